"""Scores: from an answer to numbers, from numbers to a task's score and its interval. Knows no engine and no task."""
