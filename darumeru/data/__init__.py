"""Bundles of rows: read from the hub, the built-in mini bundle or a folder; pulled, checked, imported."""
