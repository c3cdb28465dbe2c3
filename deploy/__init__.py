"""Running the service: containers, monitoring, a cluster, and what is measured and simulated about it."""
