"""Measures of models and texts: bits per byte, held-out texts, what a folder is."""
