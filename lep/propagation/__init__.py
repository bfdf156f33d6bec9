"""Trained embeddings carried over to an instruct variant by a linear map."""
