"""What n-grams of a prompt would have foretold of an answer, and whether that is worth loading a model twice."""

import pytest

from darumeru.engines.vllm.speculation import Trial, asked, greedy_text, passes
from darumeru.errors import UserError
from darumeru.requests import Request, Sampling

TEXT = tuple(range(100, 140))
"""No token twice."""


def test_a_copy_takes_a_pass_for_nine_tokens_once_two_are_known() -> None:
    # Token by token until two of the text's have been written; then 8 drafted and 1 of the model's own.
    assert passes((1, *TEXT, 2), TEXT) == 2 + 5  # 2 tokens, then 9 + 9 + 9 + 9 + 2


def test_what_occurs_nowhere_takes_a_pass_a_token() -> None:
    assert passes((1, *TEXT, 2), range(200, 230)) == 30
    assert passes((), range(5)) == 5
    assert passes(TEXT, ()) == 0


def test_a_draft_is_kept_up_to_the_first_other_token() -> None:
    changed = (*TEXT[:10], 7, *TEXT[11:20])
    # 2; 8 of the copy and 7; then 2 that are no known pair with 7, 11 and 12; the rest in one.
    assert passes((1, *TEXT, 2), changed) == 2 + 1 + 2 + 1


def test_an_answer_that_repeats_itself_foretells_itself() -> None:
    assert passes((1, 2, 3), (50, 51, 52) * 20) < 60 / 2


def test_the_longest_known_beginning_counts_where_it_first_occurs() -> None:
    """As vLLM looks it up: `5 6` goes on with 9 where it occurs first, but `4 5 6` with 8."""
    prompt = (5, 6, 9, 9, 9, 4, 5, 6, 8, 8, 8, 1)
    assert passes(prompt, (4, 5, 6, 8, 8, 8)) == 3  # 4; 5; then `4 5` foretells 6 8 8 8
    assert passes(prompt, (5, 6, 9, 9, 9)) == 3  # 5; 6; then `5 6` foretells 9 9 9


def test_speculation_pays_where_answers_copy_and_the_rest_takes_long() -> None:
    requests = [Request(str(i), "generate", (1, *TEXT, 2), "", max_tokens=40) for i in range(4)]
    copies = Trial.of(requests, {r.id: TEXT for r in requests}, seconds=8.0)
    others = Trial.of(requests, {r.id: tuple(range(200, 240)) for r in requests}, seconds=8.0)
    assert copies.tokens == others.tokens == 160
    assert copies.pays(rest=100, loading=30.0), "200 s of work"
    assert not copies.pays(rest=20, loading=30.0), "40 s of work"
    assert not others.pays(rest=10_000, loading=30.0)
    assert not Trial.of(requests, {}, 0.0).pays(100, 1.0), "all of them failed"


def test_only_greedy_texts_are_foretold() -> None:
    text = Request("a", "generate", (1, 2), "", max_tokens=4)
    assert greedy_text(text)
    assert not greedy_text(text.drawn(Sampling(temperature=0.7), 1))
    assert not greedy_text(Request("a", "generate", (1, 2), "", max_tokens=4, stop=9)), "a thought"
    assert not greedy_text(Request("a", "choose", (1, 2), "", labels=(((3,),),)))


def test_the_setting() -> None:
    assert [asked(v) for v in ("auto", "on", "off", True, False)] == ["auto", "on", "off", "on", "off"]
    with pytest.raises(UserError, match="speculate=2 is not possible: give auto, on or off"):
        asked(2)
