"""The Triton configurations that say the same thing twice, written from one description.

`python -m deploy.configurations` (`make configs`) writes the ensembles and both flavours of each network into
`model_repository/`. The Python models' configurations have no twin and are written by hand.
"""
