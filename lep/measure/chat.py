"""Whether a model still chats as an instruct model does: it ends its turns, keeps to its template, finds good answers probable.

Measured on conversations that nothing is trained on. What an adaptation costs here is the difference from the original
model on the same conversations; a model may be better in a language and have forgotten how to chat in it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError
from lep.measure.bits import positions

if TYPE_CHECKING:
    from darumeru.inference.prompt import Prompter
    from darumeru.inference.thinking import Style
    from darumeru.requests import Message

BITS, ENDED, KEPT = "chat_bits_per_byte", "chat_ended", "chat_template_kept"
LEFT_OUT = "chat_left_out"
LIMIT = 400
"""Characters within which a turn has to end; not tokens, of which vocabularies need more or fewer for the same text."""


@dataclass(frozen=True)
class Chat:
    """A conversation up to an answer, in tokens.

    Attributes:
        prompt: ids that ask for the answer, with the marks of the chat template.
        answer: ids of the answer, without what ends it.
        size: bytes of the answer.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    size: int


def chat_measures(
    folder: Path, conversations: Sequence[Sequence[Message]], *, limit: int = LIMIT, device: str = "cpu"
) -> dict[str, float]:
    """Return `model_chat_measures` of a model folder, computed in its stored type, on a CPU in float32.

    Beside them, where there are any, `chat_left_out`: conversations without an answer or that the chat template refuses.

    Raises:
        UserError: the model has no chat template, or no conversation has an answer.
    """
    from darumeru.inference.model import open_model
    from darumeru.inference.prompt import Limits, Prompter
    from lep.model.loading import load_model

    opened = open_model(folder)
    tokenizer = opened.tokenizer()
    model = load_model(folder, "float32" if device == "cpu" else "auto", device=device)
    chats = rendered(Prompter(tokenizer, "instruct", Limits(), _style(tokenizer)), conversations)
    left_out = len(conversations) - len(chats)
    found = model_chat_measures(model, tokenizer, opened.eos_ids(tokenizer), chats, limit=limit)
    return found | ({LEFT_OUT: left_out} if left_out else {})


def _style(tokenizer: Any) -> Style:
    """Return thinking off, where the template can switch it: what is measured is the answer, not the thought before it."""
    from darumeru.inference.thinking import PLAIN, style_of
    from darumeru.settings import ThinkingSettings

    try:
        return style_of(tokenizer, ThinkingSettings())
    except UserError:  # it always thinks
        return PLAIN


def rendered(prompter: Prompter, conversations: Sequence[Sequence[Message]]) -> list[Chat]:
    """Return the last answer of each conversation, as the model is asked for it.

    Conversations without one are left out, and those that the chat template refuses.

    Raises:
        UserError: there is no answer at all.
    """
    from jinja2 import TemplateError

    found = []
    for messages in conversations:
        last = max((index for index, turn in enumerate(messages) if turn["role"] == "assistant"), default=0)
        text = messages[last]["content"]
        if last and text.strip():
            try:
                asked = prompter.encode([prompter.render(messages[:last])])[0]
            except TemplateError:  # many want user and assistant by turns
                continue
            found.append(Chat(tuple(asked), prompter.continuation(text), len(text.encode())))
    if not found:
        raise UserError(
            "No held-out conversation has an answer that the chat template writes. A row is a list 'messages' that ends with the "
            "assistant's."
        )
    return found


def model_chat_measures(
    model: Any, tokenizer: Any, ends: Collection[int], chats: Sequence[Chat], *, limit: int = LIMIT, batch: int = 16
) -> dict[str, float]:
    """Return the measures of a model in memory, which must be in eval mode.

    * `chat_bits_per_byte`: ``−Σ log2 p(answer, end | prompt) / Σ bytes(answer)``; p of the end is that of any token that ends
      a turn. What is more than the model has positions for loses its beginning.
    * `chat_ended`: share of the greedy answers that say something and end within `limit` characters.
    * `chat_template_kept`: share of the greedy answers that hold no control token, as a token or spelled out.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        ends: the tokens that end a turn.
        chats: from `rendered`.
        limit: most characters of an answer.
        batch: answers written at a time.
    """
    answers = list(_written(model, tokenizer, sorted(chats, key=lambda chat: len(chat.prompt)), ends, limit, batch))
    control = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    ended = kept = 0
    for answer in answers:
        stop = next((place for place, token in enumerate(answer) if token in ends), None)
        said = answer[:stop]
        text = tokenizer.decode(said, skip_special_tokens=False)
        ended += stop is not None and bool(text.strip()) and len(text) <= limit
        kept += not any(token in control for token in said) and not any(name in text for name in control.values())
    bits = sum(_nats(model, chat, ends, tokenizer.bos_token_id) for chat in chats) / math.log(2)
    return {
        BITS: bits / sum(chat.size for chat in chats),
        ENDED: ended / len(answers),
        KEPT: kept / len(answers),
    }


def _nats(model: Any, chat: Chat, ends: Collection[int], bos: int | None) -> float:
    import torch

    ids, at = [*chat.prompt, *chat.answer], len(chat.prompt)
    longest = positions(model) or len(ids)
    nats = 0.0
    while at <= len(ids):
        # Tokens [at, stop) and, behind the last, the end: as many as leave half of the positions for what is before them.
        stop = len(ids) + 1 if len(ids) <= longest else min(at + longest // 2, len(ids) + 1)
        seen = ids[: stop - 1] if stop - 1 <= longest else _last(ids[: stop - 1], longest, bos)
        tokens = torch.tensor([seen], device=model.device)
        with torch.no_grad():
            logits = model(tokens).logits[0, at - stop :].float()
        said = torch.tensor(ids[at:stop], device=model.device)
        surprise = torch.nn.functional.cross_entropy(logits[: len(said)], said, reduction="sum")
        if stop > len(ids):
            surprise = surprise - logits[-1].log_softmax(dim=-1)[sorted(ends)].logsumexp(dim=0)
        nats += float(surprise)
        at = stop
    return nats


def _last(ids: Sequence[int], count: int, bos: int | None) -> list[int]:
    """Return the last tokens, so many with the one that texts begin with, where there is one."""
    return list(ids[-count:]) if bos is None else [bos, *ids[len(ids) - count + 1 :]]


def _written(
    model: Any, tokenizer: Any, chats: Sequence[Chat], ends: Collection[int], limit: int, batch: int
) -> Iterator[list[int]]:
    """Yield what the model answers greedily, a few prompts of similar length at a time, filled up at their beginning."""
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList

    filler, longest, bos = min(ends), positions(model), tokenizer.bos_token_id
    for start in range(0, len(chats), batch):
        prompts = [list(chat.prompt) for chat in chats[start : start + batch]]
        most = limit + 1
        if longest is not None:
            room = longest - min(most, longest // 4)
            prompts = [prompt if len(prompt) <= room else _last(prompt, room, bos) for prompt in prompts]
            most = min(most, longest - max(map(len, prompts)))
        width = max(map(len, prompts))
        # The model's own settings may sample or punish repetitions. Tokens of less than a character are rare.
        settings = GenerationConfig(
            max_new_tokens=most, do_sample=False, use_cache=True, eos_token_id=sorted(ends), pad_token_id=filler
        )
        ids = torch.tensor([[filler] * (width - len(p)) + p for p in prompts], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)

        def too_long(written: Any, _: Any, width: int = width, **__: Any) -> Any:
            texts = tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
            return torch.tensor([len(text) > limit for text in texts], device=written.device)

        with torch.no_grad():
            written = model.generate(
                ids,
                attention_mask=mask,
                generation_config=settings,
                stopping_criteria=StoppingCriteriaList([too_long]),
            )
        yield from written[:, width:].tolist()
