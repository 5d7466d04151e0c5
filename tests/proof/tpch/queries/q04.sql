-- How well the priorities of orders are kept to.
-- param: day date = '1993-07-01'
-- index: orders_orderdate
-- index: lineitem_pkey
-- rule: no_seq_scan: true
SELECT o_orderpriority, count(*) AS order_count
FROM orders
WHERE o_orderdate >= :day AND o_orderdate < :day + interval '3 month'
    AND EXISTS (SELECT * FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate)
GROUP BY o_orderpriority
ORDER BY o_orderpriority;
