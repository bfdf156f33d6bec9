"""`latex`: the scores as a LaTeX table."""

from darumeru.exports.format import text_format
from darumeru.leaderboard import tables

latex = text_format(
    "A table in LaTeX, with booktabs.", "scores.tex", lambda export: tables.run_latex(export.run, export.model)
)
