-- What promotions brought in a month.
-- param: day date = '1995-09-01'
-- index: lineitem_shipdate
-- rule: no_seq_scan: lineitem
-- rule: rows: 1
SELECT 100.00 * sum(CASE WHEN p_type LIKE 'PROMO%' THEN l_extendedprice * (1 - l_discount) ELSE 0 END)
    / sum(l_extendedprice * (1 - l_discount)) AS promo_revenue
FROM lineitem, part
WHERE l_partkey = p_partkey AND l_shipdate >= :day AND l_shipdate < :day + interval '1 month';
