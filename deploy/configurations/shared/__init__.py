"""Modules that several version folders of the model repository hold a copy of."""
