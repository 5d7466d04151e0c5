-- What more revenue without some discounts would have been.
-- param: day date = '1994-01-01'
-- param: discount numeric = 0.06
-- param: quantity numeric = 24
-- index: lineitem_shipdate
-- rule: no_seq_scan: true
-- rule: rows: 1
SELECT sum(l_extendedprice * l_discount) AS revenue
FROM lineitem
WHERE l_shipdate >= :day AND l_shipdate < :day + interval '1 year'
    AND l_discount BETWEEN :discount - 0.01 AND :discount + 0.01 AND l_quantity < :quantity;
