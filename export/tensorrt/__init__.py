"""ONNX files become TensorRT plans here, inside the serving image: see `python -m export.tensorrt --help`.

Kept apart from the rest of `export/`, and free of PyTorch, because it runs where the server runs: with TensorRT and a
GPU. Networks are strongly typed: precision was decided, and judged, in the ONNX file.
"""
