"""Darumeru: an offline benchmark harness for language models adapted to Russian."""
