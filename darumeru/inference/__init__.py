"""A model, looked through before it is loaded, and its prompts."""
