"""The journal of a run keeps what was acknowledged, and takes nothing else for an answer."""

import json
from pathlib import Path

import pytest

from darumeru.errors import UserError
from darumeru.record.journal import Journal
from darumeru.requests import Answer

ANSWERS = [Answer(f"t/{i}/0", text="ы", tokens=(1, 2, 574), logprobs=(-0.0, -1.5e-17)) for i in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal.jsonl")
    for number, answer in enumerate(ANSWERS):
        journal.append([answer], 0.1, interleaved=number % 2 > 0)
    return journal.path


def test_what_was_appended_is_read_back(path: Path) -> None:
    found = Journal(path)
    assert list(found.answers.values()) == ANSWERS
    assert found.interleaved


def test_a_changed_bit_never_becomes_an_answer(path: Path) -> None:
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        found = list(Journal(path).answers.values())
        assert all(answer in ANSWERS for answer in found), at
        assert len(found) >= 3, "a changed end of a line costs two of them, all else one"
        assert list(Journal(path).answers.values()) == found
        assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_line_that_was_not_finished_is_cut_off_and_the_next_one_is_whole(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])
    journal = Journal(path)
    assert list(journal.answers.values()) == ANSWERS[:4]
    journal.append([ANSWERS[4]], 0.1, interleaved=False)
    assert list(Journal(path).answers.values()) == ANSWERS


def test_lines_of_an_earlier_version_have_no_sum(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        del line["crc"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(Journal(path).answers.values()) == ANSWERS


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"answers": [1], "seconds": 1}', '{"answers": [], "seconds": []}', "\x00"]
)
def test_other_lines_are_dropped(path: Path, line: str) -> None:
    path.write_bytes(f"{line}\n".encode() + path.read_bytes())
    assert list(Journal(path).answers.values()) == ANSWERS
    assert path.read_bytes().count(b"\n") == 5


def test_a_link_is_not_written_through(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine\n")
    path.unlink()
    path.symlink_to(precious)
    with pytest.raises(UserError, match="is a symbolic link"):
        Journal(path)
    assert precious.read_text() == "mine\n"
