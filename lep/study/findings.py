"""Findings of Tejaswi, Gupta and Choi (arXiv 2406.14670), and what a grid says of each by a stated rule.

A rule looks at intervals alone: what they do not decide is "cannot tell". All bits per byte are of the first held-out text after
training; "told apart" is by the shared ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lep.study.analysis import Comparison, Configuration, levels, longest, rank_correlation
from lep.study.anova import Contrast, contrasts
from lep.study.grid import SEED, TOKENS

AGREES, DISAGREES, UNKNOWN = "agrees", "disagrees", "cannot tell"
MARGIN = 0.01
"""Share of the bits per byte up to which two initialisations count as equally good."""
_ELABORATE = {"focus", "omp", "weighted"}
_INIT, _TRAIN = "init.strategy", "pretrain.train"
_ABSTRACT = "arXiv 2406.14670, abstract"


@dataclass(frozen=True)
class Evidence:
    """What the rules look at.

    Attributes:
        items: all configurations.
        beside: studies of the same grid in other languages, as their `study.json` has them.
        lang: of this one.
    """

    items: list[Configuration]
    beside: Sequence[Mapping[str, Any]]
    lang: str

    @property
    def adapted(self) -> list[Configuration]:
        """The configurations with a new vocabulary."""
        return [item for item in self.items if not item.control]

    def contrasts(self, factor: str, first: str | None = None) -> list[Contrast]:
        """Return the levels of a factor against the first one, or against the one that is named.

        Over the cells with a new vocabulary; none without the factor.
        """
        values, places = [], []
        for item in self.adapted:
            if factor in item.values:
                values += item.ends
                places += [levels(item)] * len(item.ends)
        return contrasts(np.array(values), places, factor, first) if values else []


@dataclass(frozen=True)
class Finding:
    """A finding and what this grid says: claim, where it is stated, the rule, the verdict and what it rests on."""

    claim: str
    source: str
    rule: str
    verdict: str
    because: str

    def to_json(self) -> dict[str, str]:
        """Return it as a JSON object."""
        return asdict(self)


Rule = Callable[[Evidence], tuple[str, str]]


def start_and_end(evidence: Evidence) -> tuple[str, str]:
    """Whether the best start is the best end."""
    if len(evidence.adapted) < 2:
        return UNKNOWN, "Fewer than two configurations have a new vocabulary."
    items = longest(evidence.adapted)
    found = rank_correlation([item.start for item in items], [item.end for item in items])
    if found.value is None:
        return UNKNOWN, "Fewer than three configurations were trained longest."
    ranks = Comparison.of(items, evidence.items).ranks
    first = ranks[min(range(len(items)), key=lambda i: items[i].start)]
    interval = "" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]"
    said = f"ρ = {found.value:.2f}{interval} over {found.count} configurations; the best start ends in rank {first} of them."
    if first > 1:
        return AGREES, said
    return (DISAGREES if found.low is not None and found.low > 0 else UNKNOWN), said


def efficiency(evidence: Evidence) -> tuple[str, str]:
    """Whether a new vocabulary reads more symbols a token at no loss."""
    verdicts = []
    comparison = Comparison.of(evidence.items)
    for place, item in enumerate(evidence.items):
        if item.symbols > item.results[0].original.texts[item.text].symbols_per_token:
            found = comparison.against_original(place)
            verdicts.append(
                (found.high is not None and found.high < 0, found.low is not None and found.low > 0, item, found)
            )
    if not verdicts:
        return UNKNOWN, "No configuration reads more symbols a token than its original."
    good = [v for v in verdicts if v[0]]
    said = f"{len(good)} of {len(verdicts)} configurations read more symbols a token and end below their untrained original."
    if good:
        _, _, item, found = min(good, key=lambda v: -v[2].symbols)
        return AGREES, f"{said} {item.symbols:.2f} symbols a token at {found.value:+.3f} bits per byte."
    return (DISAGREES if all(bad for _, bad, _, _ in verdicts) else UNKNOWN), said


def mean_and_random(evidence: Evidence) -> tuple[str, str]:
    """Whether the mean beats random rows."""
    found = _pair(evidence.contrasts(_INIT, "mean"), "mean", "random")
    return _sides(found, "mean − random")


def simplest(evidence: Evidence) -> tuple[str, str]:
    """Whether the mean is as good as elaborate initialisations."""
    found = evidence.contrasts(_INIT, "mean")
    pairs = {name: pair for name in sorted(_ELABORATE) if (pair := _pair(found, "mean", name)) is not None}
    if not pairs:
        return UNKNOWN, "The grid has no elaborate initialisation beside the mean."
    margin = MARGIN * float(np.mean([item.end for item in evidence.adapted]))
    said = "; ".join(f"mean − {name}: {_shown(*pair)}" for name, pair in pairs.items())
    if any(low is not None and low > margin for _, low, _ in pairs.values()):
        return DISAGREES, said
    known = all(high is not None and high < margin for _, _, high in pairs.values())
    return (AGREES if known else UNKNOWN), said


def bases(evidence: Evidence) -> tuple[str, str]:
    """Whether a base that starts worse may end better."""
    lengths: dict[str, set[int]] = {}
    for item in evidence.adapted:
        lengths.setdefault(levels(item).get("base", "–"), set()).add(item.results[0].cell.tokens)
    if len(lengths) < 2:
        return UNKNOWN, "The grid has one base."
    shared = set.intersection(*lengths.values())
    if not shared:
        return UNKNOWN, "No configurations of all bases were trained with as many tokens."
    by_base: dict[str, Configuration] = {}
    for item in evidence.adapted:
        name = levels(item).get("base", "–")
        if item.results[0].cell.tokens == max(shared) and (name not in by_base or item.end < by_base[name].end):
            by_base[name] = item
    items = sorted(by_base.values(), key=lambda item: item.original)
    comparison = Comparison.of(items, evidence.items)
    crossed, kept = [], True
    for i in range(len(items)):
        for j in range(i + 1, len(items)):
            found = comparison.difference(i, j)
            crossed += [(i, j)] if found.high is not None and found.high < 0 else []
            kept = kept and found.low is not None and found.low > 0
    said = "; ".join(f"{name}: {item.original:.3f} before, {item.end:.3f} at best" for name, item in by_base.items())
    return (AGREES if crossed else DISAGREES if kept else UNKNOWN), said


def language(evidence: Evidence) -> tuple[str, str]:
    """Whether the best configurations of languages differ."""
    if not evidence.beside or not evidence.items:
        return UNKNOWN, "One language. Name the study.json of the same grid in another one (beside:)."
    ranks = Comparison.of(evidence.items).ranks
    own = _best_ranks((levels(item), rank) for item, rank in zip(evidence.items, ranks, strict=True))
    verdicts, said = [], []
    for other in evidence.beside:
        theirs = _best_ranks((row["labels"], row["rank"]) for row in other["configurations"])
        both = own.keys() & theirs.keys()
        if len(both) < 2:
            continue
        mine, yours = ({c for c in both if known[c] == min(known[k] for k in both)} for known in (own, theirs))
        verdicts.append(
            AGREES if not mine & yours else DISAGREES if mine == yours and len(mine) < len(both) else UNKNOWN
        )
        said.append(f"{evidence.lang} and {other['lang']} share {len(mine & yours)} of their best configurations.")
    if not verdicts:
        return UNKNOWN, "The other studies have no two configurations in common with this one."
    return (AGREES if AGREES in verdicts else verdicts[0] if len({*verdicts}) == 1 else UNKNOWN), " ".join(said)


def low_rank(evidence: Evidence) -> tuple[str, str]:
    """Whether LoRA is worse than training all."""
    found = evidence.contrasts(_TRAIN, "all")
    names = {c.first for c in found} | {c.level for c in found}
    lora = next((name for name in sorted(names) if "lora" in name), None)
    if lora is None or "all" not in names:
        return UNKNOWN, "The grid does not train both all weights and LoRA."
    return _sides(_pair(found, "all", lora), f"all − {lora}")


def _best_ranks(
    ranked: Iterable[tuple[Mapping[str, str], int]],
) -> dict[tuple[tuple[str, str], ...], int]:
    """Return the best rank of each choice, at whatever length."""
    found: dict[tuple[tuple[str, str], ...], int] = {}
    for values, rank in ranked:
        choice = _choice(values)
        found[choice] = min(rank, found.get(choice, rank))
    return found


def _choice(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, v) for k, v in values.items() if k not in ("corpus", SEED, TOKENS, "pretrain.replay")))


def _pair(found: Sequence[Contrast], one: str, other: str) -> tuple[float, float | None, float | None] | None:
    """Return `one` − `other` with its interval, where one of them is the first level."""
    for c in found:
        if (c.level, c.first) == (one, other):
            return c.value, c.low, c.high
        if (c.level, c.first) == (other, one):
            return -c.value, None if c.high is None else -c.high, None if c.low is None else -c.low
    return None


def _sides(found: tuple[float, float | None, float | None] | None, what: str) -> tuple[str, str]:
    """Return agrees where the interval lies below 0, disagrees where it lies above."""
    if found is None:
        return UNKNOWN, "The grid does not have both."
    _, low, high = found
    if low is None or high is None:
        return UNKNOWN, f"{what}: {_shown(*found)}; too few cells for an interval."
    return (AGREES if high < 0 else DISAGREES if low > 0 else UNKNOWN), f"{what}: {_shown(*found)} bits per byte."


def _shown(value: float, low: float | None, high: float | None) -> str:
    return f"{value:+.3f}" + ("" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]")


FINDINGS: tuple[tuple[str, str, str, Rule], ...] = (
    (
        "The performance before adaptation does not always correlate with that after it.",
        _ABSTRACT,
        "Configurations with a new vocabulary, trained longest. Agrees: the one with the best start is told apart from the best "
        "end. Disagrees: it is not, and ρ's interval lies above 0.",
        start_and_end,
    ),
    (
        "Efficiency improves easily with vocabulary extension and continued pre-training.",
        _ABSTRACT,
        "Agrees: some configuration reads more symbols a token than its untrained original, and the interval of its bits per "
        "byte less the original's lies below 0. Disagrees: the intervals of all such configurations lie above 0.",
        efficiency,
    ),
    (
        "Mean initialisation ends better than random (Hindi, 10,000 tokens: 25.2 against 17.8 BLEU).",
        "arXiv 2406.14670, LLaMA-2-7B",
        "The interval of mean − random, all else equal: below 0 agrees, above 0 disagrees.",
        mean_and_random,
    ),
    (
        "The simplest initialisation works well: the mean is about as good as elaborate ones.",
        _ABSTRACT,
        f"Against focus, omp and weighted: agrees where each interval of mean − other ends below {MARGIN:.0%} of the bits per "
        "byte; disagrees where one begins above that.",
        simplest,
    ),
    (
        "A base that is worse before adaptation can be better after it.",
        _ABSTRACT,
        "The best configuration of each base, with as many training tokens as all of them were trained with at most. Agrees: one "
        "that was worse untrained ends told apart below another. Disagrees: all end told apart in the order of their originals.",
        bases,
    ),
    (
        "The best choice depends on the language.",
        _ABSTRACT,
        "The same grid in other languages. Agrees: the first ranks share no configuration. Disagrees: they are the same, and not "
        "all of them.",
        language,
    ),
    (
        "LoRA is worse than continued pre-training of all weights.",
        "arXiv 2406.14670",
        "The interval of all − LoRA, all else equal: below 0 agrees, above 0 disagrees.",
        low_rank,
    ),
)  # fmt: skip
"""Claim, source, rule in words, rule."""


def judge(evidence: Evidence) -> list[Finding]:
    """Return every finding with this grid's verdict."""
    return [Finding(claim, source, rule, *decide(evidence)) for claim, source, rule, decide in FINDINGS]
