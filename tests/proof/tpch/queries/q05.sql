-- Revenue with suppliers of the customer's own nation.
-- param: region = 'ASIA'
-- param: day date = '1994-01-01'
-- index: orders_orderdate
-- index: lineitem_pkey
-- rule: no_seq_scan: lineitem
SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM customer, orders, lineitem, supplier, nation, region
WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey AND c_nationkey = s_nationkey
    AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = :region
    AND o_orderdate >= :day AND o_orderdate < :day + interval '1 year'
GROUP BY n_name
ORDER BY revenue DESC;
