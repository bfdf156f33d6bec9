"""`markdown`: the scores as a Markdown table."""

from darumeru.exports.format import text_format
from darumeru.leaderboard import tables

markdown = text_format(
    "A table in Markdown.", "scores.md", lambda export: tables.run_markdown(export.run, export.model)
)
