"""How the autoscaler holds latency: a simulation of replicas, queues and scaling, fed with measured service times."""
