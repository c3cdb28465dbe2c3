"""What the container images are made of."""
