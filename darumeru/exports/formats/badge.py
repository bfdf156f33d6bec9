"""`badge`: the mean as a README's badge."""

from darumeru.exports.format import text_format
from darumeru.leaderboard import tables

badge = text_format("A README's badge.", "badge.md", lambda export: tables.badge(export.run, export.model))
