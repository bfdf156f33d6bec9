"""Commands run in this process."""

import os

from typer.testing import CliRunner

from darumeru.cli import app


def call(*args: object, code: int = 0) -> str:
    """Run a command in this process; its output, both streams together."""
    os.environ.pop("DARUMERU_DEBUG", None)
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output
