"""The networks as PyTorch modules, and what they share: face model, camera, alignment.

Imports neither `export` (which turns these modules into ONNX graphs) nor `training` (which makes their weights).
"""
