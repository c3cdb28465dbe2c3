"""The inference protocol: what is asked of the service and how its answers are read."""
