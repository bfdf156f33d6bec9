"""Rules on a curve, the best point, and the diagnosis: pure functions."""

import math
from typing import Any

import pytest

from darumeru.errors import UserError
from darumeru.evaluation import settings_of
from darumeru.watch.curve import Metrics, Point, best, logged, metrics_for
from darumeru.watch.diagnosis import diagnose
from darumeru.watch.rules import Fired, check, parse_rule
from darumeru.watch.verdict import make_judge

METRICS = metrics_for(settings_of(model="m", suite="darumeru-train"))


def curve(metric: str, *values: float, every: int = 100) -> list[Point]:
    return [Point(i * every, {metric: v}) for i, v in enumerate(values)]


def fires(rule: str, points: list[Point]) -> Fired | None:
    return check(parse_rule(rule, METRICS), points, METRICS)


def test_metrics_of_the_training_suite() -> None:
    assert {"micro_avg", "darucopy_ru", "bits_per_byte", "bpb_ru", "cp_sent_ru", "loss"} <= set(METRICS.names)
    assert METRICS.lower == {"bpb_ru", "bpb_en", "bits_per_byte", "loss"}
    part = metrics_for(settings_of(model="m", suite="darumeru-train", tasks=("bpb_ru",)))
    assert "micro_avg" not in part.names, "bits per byte have no mean of shares"
    likelihood = metrics_for(settings_of(model="m", tasks=("parus",), likelihood=True))
    assert "parus" not in likelihood.lower, "log-probabilities are better when higher"


@pytest.mark.parametrize(
    ("rule", "values", "want"),
    [
        ("darucopy_ru < 0.9 for 3", (0.8, 0.95, 0.8, 0.8, 0.8), (200, 300, 400)),
        ("darucopy_ru < 0.9 for 3", (0.8, 0.8, 0.95, 0.8, 0.8), None),
        ("darucopy_ru < 0.9 for 3", (0.8, 0.8), None),
        ("darucopy_ru<.9", (0.95, 0.89), (100,)),
        ("  darucopy_ru   <=  9e-1  ", (0.9,), (0,)),
        ("darucopy_ru > 0.5 for 2", (0.6, 0.7), (0, 100)),
        ("darucopy_ru >= 1", (0.99,), None),
        ("darucopy_ru > -1.5", (-1.0,), (0,)),
        ("no improvement of darucopy_ru for 2", (0.5, 0.7, 0.7, 0.6), (100, 200, 300)),
        ("no improvement of darucopy_ru for 2", (0.5, 0.7, 0.7, 0.71), None),
        ("no improvement of darucopy_ru for 2", (0.5, 0.7, 0.6), None),
        ("no improvement of darucopy_ru for 2", (0.5, math.nan, math.nan), (0, 100, 200)),
        ("darucopy_ru < 0.9", (math.nan,), None),
    ],
)
def test_when_a_rule_fires(rule: str, values: tuple[float, ...], want: tuple[int, ...] | None) -> None:
    found = fires(rule, curve("darucopy_ru", *values))
    assert (None if found is None else tuple(p.step for p in found.points)) == want
    shuffled = fires(rule, curve("darucopy_ru", *values)[::-1])
    assert (shuffled is None) == (found is None), "the order in which checkpoints were evaluated does not matter"


def test_bits_per_byte_improve_when_they_fall() -> None:
    assert fires("no improvement of bpb_ru for 2", curve("bpb_ru", 2.0, 1.9, 1.8, 1.7)) is None
    found = fires("no improvement of bpb_ru for 2", curve("bpb_ru", 2.0, 1.7, 1.8, 1.9))
    assert found is not None
    assert str(found) == ("no improvement of bpb_ru for 2: best 1.7 at step 100, then 1.8 at step 200, 1.9 at step 300")
    top = best(curve("bpb_ru", 2.0, 1.7, math.nan, 1.7), "bpb_ru", METRICS)
    assert top is not None
    assert top.step == 100, "the earliest of equals"
    assert best(curve("bpb_ru", math.nan), "bpb_ru", METRICS) is None


def test_evidence_is_json_and_words() -> None:
    points = [Point(s, {"micro_avg": v}, tokens_seen=s * 10) for s, v in ((10, 0.1), (20, 0.12))]
    found = fires("micro_avg < 0.2 for 2", points)
    assert found is not None
    assert str(found) == "micro_avg < 0.2 for 2: 0.1 at step 10, 0.12 at step 20"
    assert found.evidence[1] == {"step": 20, "tokens_seen": 200, "metric": "micro_avg", "value": 0.12}
    assert found.step == 20


def test_a_loss_that_is_not_finite() -> None:
    history: list[dict[str, Any]] = [
        {"loss": 2.0, "grad_norm": 1.0, "step": 1}, {"eval_loss": 1.0, "step": 1},
        {"loss": 0.0, "grad_norm": math.nan, "step": 2},
        {"loss": math.inf, "grad_norm": math.inf, "step": 3}, {"train_runtime": 3.0},
    ]  # fmt: skip
    log = logged(history)
    assert [p.step for p in log] == [1, 2, 3]
    assert fires("loss not finite", log[:1]) is None
    found = fires("loss  not finite", log)
    assert found is not None
    assert found.evidence == [{"step": 2, "tokens_seen": None, "metric": "grad_norm", "value": "nan"}]
    # fp16's scaler meets infinite gradients as a matter of course.
    assert fires("loss not finite", [Point(1, {"loss": 2.0, "grad_norm": math.inf})]) is None
    assert fires("loss > 1.5 for 2", log[:1]) is None
    assert fires("no improvement of loss for 1", [*logged([{"loss": 1.0, "step": 1}, {"loss": 1.0, "step": 2}])])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "darucopy_ur < 0.9",
            r"Unknown metric in rule 'darucopy_ur < 0\.9' 'darucopy_ur'\. Did you mean 'darucopy_ru'",
        ),
        ("no improvement of micro for 3", "Unknown metric"),
        ("darucopy_ru == 0.9", "is not understood"),
        ("darucopy_ru < x", "is not understood"),
        ("darucopy_ru < 0.9 for 0", "K is 1 or more"),
        ("darucopy_ru < 0.9 for -1", "is not understood"),
        ("darucopy_ru < 0.9 for 1.5", "is not understood"),
        ("darucopy_ru < 0.9 or loss > 3", "is not understood"),
        ("darucopy_ru < 1e999", "too large"),
        ("darucopy_ru < nan", "is not understood"),
        ("loss is not finite", "is not understood"),
        ("__import__('os').system('x') < 1", "is not understood"),
        ("", "is not understood"),
    ],
)
def test_rules_that_are_none(rule: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_rule(rule, METRICS)


def test_a_judge_has_patience() -> None:
    judge = make_judge(METRICS, ["loss not finite"], "bpb_ru", patience=2)
    assert [r.text for r in judge.rules] == ["loss not finite", "no improvement of bpb_ru for 2"]
    verdict = judge.verdict(curve("bpb_ru", 2.0, 1.5, 1.6, 1.7))
    assert verdict.best is not None
    assert verdict.best.step == 100
    assert [f.rule.text for f in verdict.fired] == ["no improvement of bpb_ru for 2"]
    assert [r.text for r in make_judge(METRICS, patience=1).rules] == ["no improvement of micro_avg for 1"]
    with pytest.raises(UserError, match=r"Unknown metric to keep the best of 'bpb'\. Did you mean 'bpb_"):
        make_judge(METRICS, keep_best="bpb")


def both(copies: tuple[float, ...], bpb: tuple[float, ...], width: float = 0.02) -> list[Point]:
    return [
        Point(
            100 * i,
            {"darucopy_ru": c, "darucopy_en": 0.9, "bpb_ru": b, "choices": 0.3},
            bounds={"darucopy_ru": (c - width, c + width), "bpb_ru": (b - 0.01, b + 0.01)},
        )
        for i, (c, b) in enumerate(zip(copies, bpb, strict=True))
    ]


def test_diagnosis_reads_but_does_not_write() -> None:
    found = diagnose(both((0.5, 0.9, 0.6), (1.5, 1.2, 1.1)), METRICS)
    assert found is not None
    assert found.kind == "reads-only"
    assert "darucopy_ru 0.900 at step 100 → 0.600 at step 200" in found.text
    assert "bpb_ru 1.100 at step 200 → 1.100 at step 200 (likelihood held)" in found.text
    assert "reads the new tokens but does not write them" in found.text


def test_diagnosis_both_fall() -> None:
    found = diagnose(both((0.9, 0.6), (1.2, 1.9)), METRICS)
    assert found is not None
    assert found.kind == "both-fall"
    assert "learning rate" in found.text
    broken = diagnose(both((0.9, 0.0), (1.2, math.nan)), METRICS)
    assert broken is not None
    assert broken.kind == "both-fall"


@pytest.mark.parametrize(
    ("copies", "bpb", "width"),
    [
        ((0.5, 0.8, 0.9), (1.5, 1.2, 1.1), 0.02),  # all is well
        ((0.9, 0.85), (1.2, 1.2), 0.1),  # inside the interval
        ((0.9, 0.89), (1.2, 1.2), 0.001),  # less than the margin
        ((0.9, 0.9), (1.2, 1.9), 0.02),  # only the likelihood falls
        ((0.9,), (1.2,), 0.02),  # one point is no curve
    ],
)
def test_no_diagnosis(copies: tuple[float, ...], bpb: tuple[float, ...], width: float) -> None:
    assert diagnose(both(copies, bpb, width), METRICS) is None


def test_no_diagnosis_without_either() -> None:
    only = Metrics("s", {"micro_avg": "Mean", "cp_sent_ru": "x"}, (), ("cp_sent_ru",), frozenset({"loss"}))
    assert diagnose(curve("cp_sent_ru", 0.9, 0.1), only) is None
