"""Experiments that compare the merge methods, and the bundled model."""
