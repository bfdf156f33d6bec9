"""A model folder, read and written tensor by tensor without building the model."""
