"""Every network on a GPU by PyTorch: an upper bound for plans, where no TensorRT is at hand."""
