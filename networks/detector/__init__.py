"""The face detector: MTCNN's three networks compiled into one static, batchable graph.

`networks` holds P-, R- and O-Net, `pyramid` the fixed image pyramid and the crops, `suppression` the greedy
non-maximum suppression as tensor operations, `cascade` the whole graph, `reference` a plain sequential
implementation of the same cascade, and `parity` the command that compares the two on real photographs.
"""
