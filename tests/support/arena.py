"""An arena without models in memory: faked players and a faked judge, told what to say by functions."""

import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darumeru.arena import Arena, ArenaSettings
from darumeru.arena.contest import execute, prepare
from darumeru.arena.judge import LABELS
from darumeru.arena.player import Player
from darumeru.engines.base import Engine
from darumeru.requests import Answer, Request
from darumeru.scoring.judging import FIRST, SECOND, TIE


class Faked(Engine):
    """A model or judge that answers with a function, and can break after some answers."""

    name = "faked"

    def __init__(self, player: Player, answer: Callable[[Player, Request], Answer], house: "House") -> None:
        super().__init__()
        self.player, self.answer, self.house = player, answer, house

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name}

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        for request in requests:
            if request.id in done:
                continue
            if self.house.breaks_after is not None and sum(self.house.asked.values()) == self.house.breaks_after:
                raise RuntimeError("the engine died")
            self.house.asked[self.player.name, request.id] += 1
            yield [self.answer(self.player, request)]

    def close(self) -> None:
        self.house.open -= 1


def quality(name: str, number: int) -> int:
    """How good a model's answer to a prompt is: `best` always better than `good`, both mostly better than `poor`."""
    return {"best": 90, "good": 60, "poor": 30}[name] + (40 if (name, number % 4) == ("poor", 0) else 0)


def write(player: Player, request: Request) -> Answer:
    number = int(request.id.rsplit("/", 1)[1])
    text = f"Ответ {player.name}, качество {quality(player.name, number)}."
    return Answer(request.id, text=text, tokens=(1, 2, 3), finish="stop")


def read(request: Request) -> tuple[int, int]:
    """The qualities of the first and the second answer that a judge is shown."""
    found = re.search(
        r"<ответ_1>\n.*качество (\d+).*\n</ответ_1>\n\n<ответ_2>\n.*качество (\d+).*\n</ответ_2>", request.text
    )
    assert found, request.text
    return int(found[1]), int(found[2])


def choosing(request: Request, place: int) -> Answer:
    return Answer(request.id, logprobs=tuple(-0.1 if i == place else -3.0 for i in range(len(LABELS))))


def oracle(player: Player, request: Request) -> Answer:
    first, second = read(request)
    return choosing(request, TIE if first == second else FIRST if first > second else SECOND)


def always_first(player: Player, request: Request) -> Answer:
    return choosing(request, FIRST)


@dataclass
class House:
    """Opens faked engines and counts what they are asked."""

    judge: Callable[[Player, Request], Answer] = oracle
    writer: Callable[[Player, Request], Answer] = write
    breaks_after: int | None = None
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    opened: list[str] = field(default_factory=list)
    open: int = 0

    def __call__(self, player: Player, max_len: int) -> Engine:
        self.open += 1
        assert self.open == 1, "two models in memory at once"
        self.opened.append(player.name)
        return Faked(player, self.judge if player.name == "judge" else self.writer, self)


def hold(
    models: Path, prompts: Path, output: Path, house: House, names: Sequence[str] = ("best", "poor"), **more: Any
) -> Arena:
    settings: dict[str, Any] = {"engine": "hf", "judge_engine": "hf", "judge": str(models / "judge"), **more}
    asked = ArenaSettings(models=tuple(str(models / n) for n in names), prompts=prompts, **settings)
    return execute(prepare(asked), output, open_engine=house)
