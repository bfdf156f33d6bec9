"""A board to a static host: a folder, or a branch of a git repository, with the workflow that puts it on GitHub Pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from darumeru.errors import DarumeruError, UserError

WORKFLOW = ".github/workflows/pages.yml"
_WORKFLOW = """\
# Puts this branch on GitHub Pages; in the repository's settings, Pages, the source must be "GitHub Actions".
name: pages
on:
  push:
    branches: [{branch}]
  workflow_dispatch:
permissions:
  contents: read
  pages: write
  id-token: write
concurrency:
  group: pages
  cancel-in-progress: true
jobs:
  deploy:
    runs-on: ubuntu-latest
    environment:
      name: github-pages
      url: ${{{{ steps.deployment.outputs.page_url }}}}
    steps:
      - uses: actions/checkout@v4
      - uses: actions/upload-pages-artifact@v3
        with:
          path: .
      - id: deployment
        uses: actions/deploy-pages@v4
"""


def to_folder(site: Path, output: Path, branch: str = "gh-pages") -> None:
    """Copy a board into a new folder, with what a static host wants beside it.

    Args:
        site: folder that `darumeru leaderboard` wrote.
        output: new or empty; it appears whole or not at all.
        branch: for the workflow file.

    Raises:
        UserError: no board, or a folder that holds something.
    """
    _check(site)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output '{output}' exists and is not empty. Give a new folder.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as place:
        stage = Path(place) / "site"
        _stage(site, stage, branch)
        if output.exists():
            output.rmdir()
        stage.rename(output)


def to_branch(site: Path, branch: str, repository: Path = Path()) -> tuple[str, str]:
    """Commit a board to a branch of a git repository, which then holds nothing else; working tree and index stay as they are.

    Args:
        site: folder that `darumeru leaderboard` wrote.
        branch: made if it does not exist.
        repository: a folder in it.

    Returns:
        The commit, and what it changes, as git states it; the branch stays where nothing changes.

    Raises:
        UserError: no board, no git, no repository, or a branch that cannot be written.
        DarumeruError: git failed.
    """
    _check(site)
    head, tree, changed = _tree(site, branch, repository)
    if not changed:
        return head, ""
    parent = ["-p", head] if head else []
    commit = _git(repository, "commit-tree", tree, *parent, "-m", "Leaderboard")
    _git(repository, "update-ref", f"refs/heads/{branch}", commit, head)
    return commit, changed


def branch_diff(site: Path, branch: str, repository: Path = Path()) -> str:
    """Return what `to_branch` would change, as git states it; empty for nothing."""
    _check(site)
    return _tree(site, branch, repository)[2]


def _tree(site: Path, branch: str, repository: Path) -> tuple[str, str, str]:
    """Return the commit that a branch is at, empty for none, the tree of the board, and what differs."""
    if shutil.which("git") is None:
        raise UserError("A branch needs git, and it is not installed. Use --output FOLDER instead.")
    if _ask(repository, "rev-parse", "--git-dir") is None:
        raise UserError(f"'{repository}' is no git repository. Name one with --repository, or use --output FOLDER.")
    if _ask(repository, "check-ref-format", "--branch", branch) is None:
        raise UserError(f"'{branch}' is no name for a branch. Use a name such as gh-pages.")
    if f"branch refs/heads/{branch}" in _git(repository, "worktree", "list", "--porcelain").splitlines():
        raise UserError(
            f"Branch '{branch}' is checked out, and it would hold nothing but the board. Name another branch."
        )
    head = _ask(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}") or ""
    with tempfile.TemporaryDirectory() as place:
        stage = Path(place) / "site"
        _stage(site, stage, branch)
        # An index and a working tree of its own, so that the user's are not touched.
        own = {"GIT_INDEX_FILE": str(Path(place) / "index"), "GIT_WORK_TREE": str(stage)}
        own["GIT_DIR"] = _git(repository, "rev-parse", "--absolute-git-dir")
        _git(stage, "add", "--all", "--force", ".", environment=own)
        tree = _git(stage, "write-tree", environment=own)
    before = head or _git(repository, "hash-object", "-t", "tree", "/dev/null")
    return head, tree, _git(repository, "diff", "--stat", "--no-color", before, tree)


def _check(site: Path) -> None:
    if not (site / "index.html").is_file() or not (site / "table.json").is_file():
        raise UserError(f"'{site}' is no board. Make one: darumeru leaderboard RUNS --output {site}.")


def _stage(site: Path, stage: Path, branch: str) -> None:
    """Copy a board with what the host needs: no links, nothing hidden."""
    shutil.copytree(
        site, stage, ignore=lambda folder, names: [n for n in names if n[0] == "." or Path(folder, n).is_symlink()]
    )
    (stage / ".nojekyll").touch()
    (stage / WORKFLOW).parent.mkdir(parents=True)
    (stage / WORKFLOW).write_text(_WORKFLOW.format(branch=branch), encoding="utf-8")


def _ask(place: Path, *arguments: str) -> str | None:
    """Return what git prints; None where it says no."""
    done = _run(place, arguments)
    return None if done.returncode else done.stdout.strip()


def _git(place: Path, *arguments: str, environment: Mapping[str, str] = {}) -> str:
    """Return what git prints.

    Raises:
        DarumeruError: git failed.
    """
    done = _run(place, arguments, environment)
    if done.returncode:
        reason = "; ".join(done.stderr.strip().splitlines()[-1:]) or "no reason given"
        raise DarumeruError(f"git {arguments[0]} failed ({reason}). Nothing was changed.")
    return done.stdout.strip()


def _run(
    place: Path, arguments: Sequence[str], environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    if not place.is_dir():
        raise UserError(f"There is no folder '{place}'.")
    return subprocess.run(
        ["git", *arguments], cwd=place, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
