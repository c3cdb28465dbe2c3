"""Tests of what the models of the repository compute, without Triton."""
