"""A stand-in server whose made-up model thinks before it answers, in the ways in which servers tell a thought."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from support.standin import KNOWN, StandIn

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{% if loop.last and m['role'] == 'assistant' %}"
    "<think>\n{{ m['reasoning_content'] or '' }}\n</think>\n\n{% endif %}{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""As Qwen3's: thinking by default, an empty thought where it is off."""


def thinking_tokenizer(tiny_chat: Path, folder: Path) -> Path:
    """Write the tiny instruct model's configuration with a tokenizer that knows thoughts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_chat)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_bytes((tiny_chat / "config.json").read_bytes())
    return folder


@dataclass
class ThinkingStandIn(StandIn):
    """A server of a model that thinks for a few tokens, as many as the prompt says, and then says a few."""

    told: Literal["reasoning", "reasoning_content", "content"] = "reasoning"
    """Where a chat answer has the thought."""
    takes_args: bool = True
    """Gives `chat_template_kwargs` to the template."""

    def says(self, base: list[int], thinks: bool) -> list[int]:
        """All that the model writes behind a generation prompt; or behind an empty thought, if it thinks no more."""
        thought = self.encode("так и " * (1 + len(base) % 5))
        answer = [*self.encode(f"вот {len(base) % 7} и всё"), self.tokenizer.eos_token_id]
        return [*self.encode("<think>\n"), *thought, *self.encode("</think>\n\n"), *answer] if thinks else answer

    def generate(self, ids: list[int], body: dict[str, Any]) -> list[int]:
        mark = self.encode("<|assistant|>\n")
        places = [i for i in range(len(ids)) if ids[i : i + len(mark)] == mark]
        if not places:
            return super().generate(ids, body)
        base, written = ids[: places[-1] + len(mark)], ids[places[-1] + len(mark) :]
        empty = self.encode("<think>\n\n</think>\n\n")
        thinks = written[: len(empty)] != empty
        rest = self.says(base, thinks)[len(written) if thinks else len(written) - len(empty) :]
        new: list[int] = []
        for token in (rest or [self.tokenizer.eos_token_id])[: body.get("max_tokens", 16)]:
            new.append(token)
            if token in body.get("stop_token_ids", []):
                break
        return new

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        text = self.tokenizer.apply_chat_template(
            body["messages"],
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
            **(body.get("chat_template_kwargs", {}) if self.takes_args else {}),
        )
        ids = self.encode(text)
        new = self.generate(ids, body)
        said = self.tokenizer.decode([t for t in new if t != self.tokenizer.eos_token_id])
        thought, closed, content = said.partition("</think>")
        message: dict[str, Any] = {"role": "assistant", "content": said}
        if self.told != "content" and (closed or thought.startswith("<think>")):
            message = {
                "role": "assistant",
                self.told: thought.removeprefix("<think>"),
                "content": content.lstrip() or None,
            }
        answer = self.answer(body, ids, new, {"message": message})
        if body.get("logprobs"):
            rows = [
                self.answer(body, ids + new[:i], [], {})["choices"][0]["logprobs"]["content"][0]
                for i in range(len(new))
            ]
            named = [{**row, "token": self.tokenizer.decode([token])} for row, token in zip(rows, new, strict=True)]
            answer["choices"][0]["logprobs"] = {"content": named}
        return answer


STRICT = KNOWN | {"chat_template_kwargs"}
"""What a strict server takes that has a template with arguments."""
