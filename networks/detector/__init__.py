"""The face detector: MTCNN's three networks compiled into one static, batchable graph.

`mtcnn` holds P-, R- and O-Net, `screen` a small network between the first two, `pyramid` the fixed image pyramid and
the crops, `suppression` greedy non-maximum suppression as tensor operations, `cascade` the whole graph, and `reference`
a sequential implementation of the same cascade; `export/reports/parity.py` compares the two on photographs.
"""
