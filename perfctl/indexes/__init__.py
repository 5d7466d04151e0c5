"""Indexes: put on a live database without blocking anybody, proven, taken off again."""
