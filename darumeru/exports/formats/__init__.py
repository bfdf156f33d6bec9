"""The formats: each file holds one `Format` of its own name (`-` for `_`)."""
