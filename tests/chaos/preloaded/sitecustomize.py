"""Imported by each Python that a command of the campaign starts: it is spied on too."""

import os

if "CHAOS_SPY" in os.environ:
    from chaos.spy import note_answers

    note_answers()
