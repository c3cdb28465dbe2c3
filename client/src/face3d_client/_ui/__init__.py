"""The web page of ``face3d ui``."""
