"""The face detectors: each is one graph that takes a canvas and gives 64 slots of box, score and points (`contract`).

The default is `single_shot`: YuNet (`yunet`), and MTCNN's O-Net on crops of its boxes (`crops`).

The other is MTCNN's cascade: `mtcnn` holds P-, R- and O-Net, `screen` a small network between the first two, `pyramid`
the fixed image pyramid and the crops, `cascade` the whole graph, and `reference` a sequential implementation of it;
`export/reports/parity.py` compares the two on photographs.

`suppression` is greedy non-maximum suppression as tensor operations; `export/reports/detectors.py` compares the
detectors.
"""
