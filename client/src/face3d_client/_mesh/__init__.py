"""Meshes and textures: reading, writing, drawing."""
