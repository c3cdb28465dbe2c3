"""The embedded Triton server: finds the binary in its wheel, starts it, watches it, stops it."""
