"""Scores of texts, their aggregation and their intervals, against independent references and cases done by hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from darumeru.scoring.aggregate import Floats, Table, accuracy, cluster_sum, f1_macro, macro_mean, matthews, mean
from darumeru.scoring.bootstrap import resample, seed_of, units
from darumeru.scoring.interval import percentiles
from darumeru.scoring.summary import score_task, with_interval
from darumeru.scoring.text import (
    LemmaTokenizer,
    exact,
    exam_points,
    f1,
    lcs_share,
    length_ratio,
    r_precision,
    rouge,
    russian_words,
    squad_words,
)

# -- question answering -----------------------------------------------------------------------------------------------

ANSWERS = [
    "The Eiffel Tower",
    "eiffel tower, Paris!",
    "an apple a day",
    "",
    "the",
    "Москва",
    "в Москве, на реке",
    "река Волга (Волга)",
    "U.S.A.",
    "1,234",
    "“Волга”",
]


def test_squad_scores_agree_with_transformers() -> None:
    reference = pytest.importorskip("transformers.data.metrics.squad_metrics")
    for gold, answer in itertools.product(ANSWERS, repeat=2):
        pair = squad_words(answer), squad_words(gold)
        assert exact(*pair) == reference.compute_exact(gold, answer), (gold, answer)
        assert f1(*pair) == pytest.approx(reference.compute_f1(gold, answer)), (gold, answer)


def test_russian_normalisation_sees_through_case_endings_and_yo() -> None:
    pair = russian_words("В «Зелёном» лесу."), russian_words("в зеленых лесах")
    assert exact(*pair) == 1.0
    assert exact(squad_words("В «Зелёном» лесу."), squad_words("в зеленых лесах")) == 0.0
    assert f1(russian_words("река Волга"), russian_words("на реке Волге")) == pytest.approx(2 * 2 / 5)
    assert russian_words("— …") == []


# -- exam -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "number", "gold", "answer", "points"),
    [
        # matching: a point a position, none if the number of answers differs
        ("matching", "8", "3,1,4,2,5", "3,1,4,2,5", 5),
        ("matching", "8", "3,1,4,2,5", " 3, 1 ,5,2,4", 3),
        ("matching", "26", "3,1,4,2", "3,1,4", 0),
        ("matching", "26", "3,1,4,2", "3,1,4,2,9", 0),
        ("matching", "26", "3,1,4,2", "3142", 0),
        # text: any of the golds; digits and everything that is no letter do not count
        ("text", "4", "кремень", "Кремень", 1),
        ("text", "4", "кремень", "1) кремень.", 1),
        ("text", "24", "непокладаярук,работалнепокладаярук", "не покладая рук", 1),
        ("text", "24", "непокладаярук,работалнепокладаярук", "покладая рук", 0),
        ("text", "2", "всётаки", "всё-таки", 1),
        ("text", "2", "всётаки", "", 0),
        # multiple choice: equal sets
        ("multiple_choice_based_on_text", "1", "1,3", "3,1", 1),
        ("multiple_choice_based_on_text", "1", "1,3", "1, 3", 1),
        ("multiple_choice_based_on_text", "1", "1,3", "1", 0),
        ("multiple_choice_based_on_text", "1", "1,3", "1,3,5", 0),
        ("multiple_choice_based_on_text", "1", "1,3", "13", 0),
        # item 16: max(0, |A∩P| - |P| + |A|), P padded to |A|; a wrong number costs what a right one earns
        ("multiple_choice_independent_options", "16", "1,3", "1,3", 2),
        ("multiple_choice_independent_options", "16", "1,3", "3,1", 2),
        ("multiple_choice_independent_options", "16", "1,3", "1", 1),
        ("multiple_choice_independent_options", "16", "1,3", "1,2", 1),
        ("multiple_choice_independent_options", "16", "1,3", "2,4", 0),
        ("multiple_choice_independent_options", "16", "1,3", "1,2,3", 1),
        ("multiple_choice_independent_options", "16", "1,3", "1,2,3,4", 0),
        ("multiple_choice_independent_options", "16", "1,3", "1,2,4", 0),
        ("multiple_choice_independent_options", "16", "1,3", "", 0),
    ],
)
def test_exam_points(kind: str, number: str, gold: str, answer: str, points: int) -> None:
    assert exam_points(kind, number, gold, answer) == points


def test_no_answer_earns_more_than_the_key() -> None:
    for size in (1, 2, 3):
        for numbers in itertools.product("1234", repeat=size):
            assert exam_points("multiple_choice_independent_options", "16", "1,3", ",".join(numbers)) <= 2


# -- summaries --------------------------------------------------------------------------------------------------------

TEXT = "Старый мост закрыли на ремонт, и жители посёлка ездят в объезд. Работы завершат осенью."


def test_rouge_of_equal_russian_texts_is_one() -> None:
    assert set(rouge(TEXT, TEXT).values()) == {1.0}
    assert set(rouge(TEXT, TEXT.upper().replace(".", " !")).values()) == {1.0}
    assert set(rouge(TEXT, "Совсем иные слова").values()) == {0.0}
    assert set(rouge(TEXT, "").values()) == {0.0}


def test_rouge_counts_lemmas_by_hand() -> None:
    # Lemmas: (кошка, видеть, собака) against (собака, видеть, кошка, вчера).
    scores = rouge("кошка видит собаку", "собаки видели кошек вчера")
    assert scores["rouge1_recall"] == pytest.approx(3 / 3)
    assert scores["rouge1_f1"] == pytest.approx(2 * 3 / (3 + 4))
    assert scores["rouge2_recall"] == 0.0
    assert scores["rougeL_recall"] == pytest.approx(1 / 3)
    assert scores["rougeL_f1"] == pytest.approx(2 * 1 / (3 + 4))


def test_rouge_clips_repeated_words() -> None:
    scores = rouge("дом стоит", "дом дом дом дом")
    assert scores["rouge1_recall"] == pytest.approx(1 / 2)
    assert scores["rouge1_f1"] == pytest.approx(2 * 1 / (2 + 4))


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def test_rouge_agrees_with_a_count_of_its_own() -> None:
    rng = random.Random(0)
    words = ["мост", "река", "город", "дом", "лес", "поле", "школа", "поезд"]
    for _ in range(50):
        reference, answer = (" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(2))
        scores = rouge(reference, answer)
        for n in (1, 2):
            gold, said = _ngrams(reference.split(), n), _ngrams(answer.split(), n)
            hits = sum(min(gold.count(g), said.count(g)) for g in set(gold))
            assert scores[f"rouge{n}_recall"] == pytest.approx(hits / len(gold) if gold else 0.0)
        longest = _lcs(reference.split(), answer.split())
        assert scores["rougeL_recall"] == pytest.approx(longest / len(reference.split()))


def test_lemma_tokenizer_splits_where_the_benchmark_says() -> None:
    # ASCII punctuation is a space; what is not ASCII stays part of its word.
    assert LemmaTokenizer().tokenize("Кошки, собаки-пастухи!") == ["кошка", "собака", "пастух"]
    assert LemmaTokenizer().tokenize("") == []


def test_r_precision_by_hand() -> None:
    assert r_precision([-1.0, -3.0, -2.0, -0.5], [0, 3]) == 1.0
    assert r_precision([-1.0, -3.0, -2.0, -0.5], [0, 1]) == 0.5
    assert r_precision([-1.0, -3.0, -2.0, -0.5], [1]) == 0.0
    assert r_precision([0.0, 0.0, 0.0], [0]) == 1.0  # of equals the earlier
    assert r_precision([0.0, 0.0, 0.0], [2]) == 0.0


# -- copies -----------------------------------------------------------------------------------------------------------


def _lcs(a: Sequence[str], b: Sequence[str]) -> int:
    """The longest common subsequence by the textbook's table."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, start=1):
            row[j], before = (before + 1 if x == y else max(row[j], row[j - 1])), row[j]
    return row[-1]


def test_lcs_share_by_the_textbook() -> None:
    rng = random.Random(1)
    for _ in range(100):
        source, answer = ("".join(rng.choices("абвг ", k=rng.randint(0, 30))).strip() for _ in range(2))
        want = _lcs(source, answer) / len(source) if source else float(not answer)
        assert lcs_share(source, answer) == pytest.approx(want)


def test_lcs_share_of_copies() -> None:
    assert lcs_share(TEXT, f"  {TEXT}\n") == 1.0
    assert lcs_share(TEXT, f"Вот текст: {TEXT} Готово.") == 1.0  # what is added costs nothing
    assert lcs_share(TEXT, TEXT[:-10]) == pytest.approx(1 - 10 / len(TEXT))
    assert lcs_share(TEXT, "") == 0.0
    assert lcs_share("", "") == 1.0
    long = "слово " * 5000
    assert lcs_share(long, long) == 1.0


def test_length_ratio() -> None:
    assert length_ratio(10, 10) == 1.0
    assert length_ratio(20, 10) == length_ratio(10, 20) == 0.5
    assert length_ratio(0, 10) == length_ratio(10, 0) == 0.0


# -- aggregates -------------------------------------------------------------------------------------------------------


def table(
    gold: Sequence[str] = (),
    pred: Sequence[str] = (),
    values: Sequence[float] = (),
    clusters: Sequence[str | None] = (),
    strata: Sequence[str | None] = (),
) -> Table:
    n = max(len(gold), len(values), len(clusters))
    return Table.build(
        {"x": list(values) or [float(g == p) for g, p in zip(gold, pred, strict=True)]},
        gold=list(gold) or [None] * n,
        pred=list(pred) or [None] * n,
        clusters=list(clusters) or [None] * n,
        strata=list(strata) or [None] * n,
    )


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("labels", ["01", "ABCD", "123"])
def test_choice_metrics_agree_with_sklearn(labels: str) -> None:
    rng = random.Random(labels)
    for _ in range(30):
        n = rng.randint(2, 40)
        gold = rng.choices(labels, k=n)
        pred = [g if rng.random() < 0.5 else rng.choice(labels) for g in gold]
        weights = np.array([[rng.randint(0, 4) for _ in gold] for _ in range(3)], dtype=float)
        weights[:, 0] += 1  # at least one document
        t = table(gold, pred)
        for row, *values in zip(
            weights, f1_macro(t, "x", weights), matthews(t, "x", weights), accuracy(t, "x", weights), strict=True
        ):
            # A weight of k is the row k times over.
            repeated_gold = [g for g, k in zip(gold, row, strict=True) for _ in range(int(k))]
            repeated_pred = [p for p, k in zip(pred, row, strict=True) for _ in range(int(k))]
            assert values == pytest.approx(
                [
                    f1_score(repeated_gold, repeated_pred, average="macro", zero_division=0),
                    matthews_corrcoef(repeated_gold, repeated_pred),
                    accuracy_score(repeated_gold, repeated_pred),
                ]
            )


def test_an_answer_that_chose_nothing_is_a_miss_and_no_label_of_its_own() -> None:
    gold, pred = list("AABBBC"), ["A", "", "B", "", "A", "C"]
    t = table(gold, pred)
    assert f1_macro(t, "x", t.ones()) == pytest.approx([f1_score(gold, pred, labels=["A", "B", "C"], average="macro")])
    assert matthews(t, "x", t.ones()) == pytest.approx([matthews_corrcoef(gold, pred)])
    assert accuracy(t, "x", t.ones()) == pytest.approx([3 / 6])


def test_metrics_where_a_denominator_is_zero() -> None:
    constant = table("0101", "0000")
    assert matthews(constant, "x", constant.ones()) == pytest.approx([0.0])
    assert f1_macro(constant, "x", constant.ones()) == pytest.approx([(2 / 3 + 0) / 2])
    one_class = table("000", "000")
    assert matthews(one_class, "x", one_class.ones()) == pytest.approx([0.0])
    assert f1_macro(one_class, "x", one_class.ones()) == pytest.approx([1.0])
    perfect, inverted = table("0110", "0110"), table("0110", "1001")
    assert matthews(perfect, "x", perfect.ones()) == pytest.approx([1.0])
    assert matthews(inverted, "x", inverted.ones()) == pytest.approx([-1.0])
    nothing = np.zeros((1, 4))
    for metric in (mean, f1_macro, matthews):
        assert metric(perfect, "x", nothing) == pytest.approx([0.0])


def test_macro_mean_weighs_strata_alike() -> None:
    t = table(values=[1, 1, 1, 1, 0], strata=["physics"] * 4 + ["law"])
    assert macro_mean(t, "x", t.ones()) == pytest.approx([0.5])
    assert mean(t, "x", t.ones()) == pytest.approx([0.8])
    # Weights change the mean within a stratum, not its share.
    t = table(values=[1, 0, 1, 1, 0], strata=["physics"] * 3 + ["law"] * 2)
    assert macro_mean(t, "x", np.array([[1.0, 3, 0, 0, 2]])) == pytest.approx([(1 / 4 + 0) / 2])


def test_cluster_sum_is_the_mean_grade_of_variants() -> None:
    t = table(values=[0.1, 0.2, 0.3, 0.5], clusters=["v1", "v2", "v1", "v2"])
    assert cluster_sum(t, "x", t.ones()) == pytest.approx([(0.4 + 0.7) / 2])
    assert cluster_sum(t, "x", np.array([[2.0, 1.0, 2.0, 1.0]])) == pytest.approx([(0.4 + 0.4 + 0.7) / 3])
    assert cluster_sum(t, "x", np.array([[0.0, 2.0, 0.0, 2.0]])) == pytest.approx([0.7])


# -- intervals --------------------------------------------------------------------------------------------------------


def draws(t: Table, resamples: int = 200, seed: int = 0, chunk: int = 100) -> Floats:
    return np.concatenate(list(resample(t.clusters, t.strata, resamples, seed, chunk)))


def test_a_draw_keeps_clusters_whole_and_strata_full() -> None:
    clusters = ["a", "b", "a", "c", "d", "d", "d", "e"]
    strata = ["s", "s", "s", "s", "t", "t", "t", "t"]
    t = table(values=[0.0] * 8, clusters=clusters, strata=strata)
    weights = draws(t)
    assert weights.shape == (200, 8)
    assert units(t) == 5
    for name in "ad":
        members = [i for i, c in enumerate(clusters) if c == name]
        assert (weights[:, members] == weights[:, members[:1]]).all()
    first = [clusters.index(c) for c in "abc"], [clusters.index(c) for c in "de"]
    assert (weights[:, first[0]].sum(axis=1) == 3).all()  # as many clusters as the stratum has
    assert (weights[:, first[1]].sum(axis=1) == 2).all()
    assert len({tuple(row) for row in weights}) > 10


def test_draws_of_single_documents_sum_to_their_number() -> None:
    t = table(values=[0.0] * 7)
    assert draws(t).sum(axis=1) == pytest.approx(np.full(200, 7.0))
    assert draws(t, resamples=5000).mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)


def test_draws_depend_on_the_seed_and_on_nothing_else() -> None:
    t = table(values=[0.0] * 20)
    np.random.seed(5)  # the global generator must not matter
    one = draws(t, seed=3)
    np.random.seed(6)
    assert (one == draws(t, seed=3)).all()
    assert (one != draws(t, seed=4)).any()
    assert draws(t, resamples=250, chunk=100).shape == (250, 20)
    assert seed_of("run", 1) == seed_of("run", 1) != seed_of("run", 2)
    assert seed_of("ab", "c") != seed_of("a", "bc")


def test_interval_of_a_mean_agrees_with_theory() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(400) < 0.7
    t = table(values=[float(v) for v in values])
    low, high = percentiles(np.concatenate([mean(t, "x", w) for w in resample(t.clusters, t.strata, 4000, 1)]))
    p = values.mean()
    half = 1.96 * np.sqrt(p * (1 - p) / 400)
    assert (low, high) == pytest.approx((p - half, p + half), abs=0.008)


def test_clusters_widen_and_strata_narrow_an_interval() -> None:
    values = [1.0] * 40 + [0.0] * 40

    def width(t: Table) -> float:
        low, high = percentiles(mean(t, "x", draws(t, 1000)))
        return high - low

    plain = width(table(values=values))
    clustered = width(table(values=values, clusters=[str(i // 10) for i in range(80)]))
    stratified = width(table(values=values, strata=["a"] * 40 + ["b"] * 40))
    assert clustered > 1.5 * plain
    assert stratified == pytest.approx(0.0)  # no draw differs


def test_interval_by_hand() -> None:
    assert percentiles(np.arange(101, dtype=float), level=0.9) == pytest.approx((5.0, 95.0))
    assert with_interval(None, None) == {"value": None, "low": None, "high": None}


def test_score_of_a_task_and_its_draws() -> None:
    gold, pred = "0110100111", "0110010101"
    t = table(gold, pred)
    score, sampled = score_task(t, {"x": accuracy, "mcc": matthews}, ("x", "mcc"), seed=1, resamples=300)
    want = (accuracy_score(list(gold), list(pred)) + matthews_corrcoef(list(gold), list(pred))) / 2
    assert score["score"]["value"] == pytest.approx(want)
    assert sampled.draws is not None
    assert sampled.draws.shape == (300,)
    assert score["score"]["low"] <= want <= score["score"]["high"]
    # The draws are the mean of both metrics on the same documents.
    weights = draws(t, 300, seed=1)
    assert sampled.draws == pytest.approx((accuracy(t, "x", weights) + matthews(t, "mcc", weights)) / 2)
    again, _ = score_task(t, {"x": accuracy, "mcc": matthews}, ("x", "mcc"), seed=1, resamples=300)
    assert again == score
