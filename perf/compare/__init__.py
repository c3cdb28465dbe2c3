"""Side by side: plain PyTorch, FastAPI, LitServe, bare ONNX Runtime and this service, on the same pictures."""
