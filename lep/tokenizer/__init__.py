"""A tokenizer: its tokens as bytes, its folder, and how one vocabulary maps to another."""
