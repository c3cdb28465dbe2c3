"""How the rate grows with cores: a simulation of the pipeline's processes and threads, fed with measured times."""
