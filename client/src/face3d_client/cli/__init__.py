"""The command ``face3d``.

It uses argparse, since a dozen options do not justify another dependency. Rich is imported only by the commands that
draw tables or a progress bar.
"""

from face3d_client.cli.command import main

__all__ = ["main"]
