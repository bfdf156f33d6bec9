"""A model in a new vocabulary: new embeddings and head from the old ones."""
