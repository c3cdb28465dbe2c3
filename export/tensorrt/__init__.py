"""Build TensorRT plans of ONNX files inside the serving image: see `python -m export.tensorrt --help`.

Independent of PyTorch, because it runs where the server runs, with TensorRT and a GPU. Networks are strongly typed: the
ONNX file decides their precision, and the gate has judged it.
"""
