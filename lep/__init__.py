"""Learned Embedding Propagation: a new vocabulary for a model and for every instruct variant of it."""
