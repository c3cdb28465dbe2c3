"""Turn weights into a gated, versioned model of the Triton repository: see `python -m export --help`."""
