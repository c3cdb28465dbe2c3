"""Versions of models: publish, roll back, pin, prune, on a repository that a server may be serving from.

A version folder is immutable and its number is never used again. What serves is always the highest number that stands
in the model's folder (Triton's default policy), so every change is a rename, which either has happened or has not:

- a candidate is copied to ``.staging-*``, tried in a private server, then renamed to the next number;
- going back renames what is newer to ``.retired-N``;
- what a server refused is renamed to ``.rejected-N``.

Triton takes only numbers for versions, so nothing half done is ever served. Several models that belong together change
as one: see `server.release.switch`.
"""
