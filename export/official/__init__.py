"""Checkpoints and face models that users download under their own licences, in their published layouts.

`checkpoint` reads network weights, `retinaface` is the family's detector as a graph of the repository's contract, `bfm`
and `flame` make face-model files. See docs/official-checkpoints.md. The layouts are those of the public code; they have
not been tested with the files themselves.
"""
