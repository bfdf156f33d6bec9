"""Continued pre-training: what is trained, on which rows, at which rates."""
