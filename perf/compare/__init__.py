"""Side by side: plain PyTorch, FastAPI, LitServe, BentoML, bare ONNX Runtime and this service, on the same pictures."""
