"""The formats: each file holds one `Reader` of its own name (`-` for `_`)."""
