"""Corpora: read, write, clean, deduplicate, mix."""
