"""Lower precision: INT8 and FP16 graphs, and the ranges that INT8 needs."""
