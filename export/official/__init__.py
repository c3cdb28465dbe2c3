"""Checkpoints and face models that a user fetched under their own licence, in the layouts they are published in.

`checkpoint` reads network weights, `retinaface` is the family's detector as a graph of our contract, `bfm` and `flame`
make face-model files. See docs/official-checkpoints.md. The layouts are those of the public code; the files
themselves were not at hand when this was written.
"""
