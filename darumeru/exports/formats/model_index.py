"""`model-index`: a model card's results."""

from darumeru.exports.format import text_format
from darumeru.leaderboard import tables

model_index = text_format(
    "YAML for a model card's metadata.", "model-index.yaml", lambda export: tables.model_index(export.run, export.model)
)
