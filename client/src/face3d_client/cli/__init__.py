"""The command ``face3d``.

argparse, because it is there: a dozen options do not earn another dependency. Only Rich is extra, and it is imported by
the commands that draw tables or a progress bar.
"""

from face3d_client.cli.command import main

__all__ = ["main"]
