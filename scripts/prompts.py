"""Write docs/prompts.md: of every task a prompt as base models get it and one as instruct models get it.

Usage: python scripts/prompts.py > docs/prompts.md
       python scripts/prompts.py QWEN3 > docs/thinking-prompts.md

The prompts are those of the first row of the mini bundle, through the same prompter as `darumeru run`. It needs no model: the
tokenizer knows bytes alone, and its chat template is ChatML, which many models use. With QWEN3, the folder of Qwen3's tokenizer
(`scripts/fetch_tokenizers.py`), the page shows the suite's prompts with thinking off and on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from darumeru.inference.prompt import Limits, Mode, Prompter
from darumeru.inference.thinking import style_of
from darumeru.requests import Request
from darumeru.settings import ThinkingSettings
from darumeru.task import DarumeruTask
from darumeru.task.suite import Catalogue

SUITES = ("darumeru", "darumeru-extended")
EXAMPLES = 2
LONGEST_LINE = 360

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

HEAD = f"""# Prompts

What a model is asked, task by task: the first row of the mini bundle, as a base model gets it (`--mode foundation`, here
with {EXAMPLES} examples; the default is 5) and as an instruct model gets it (`--mode instruct`, zero-shot, here in ChatML).
The mini bundle's rows are this project's own; `darumeru run --dry-run` prints such prompts of any data with your model's
template. BOS, which goes before a base model's prompt where its tokenizer has one, is not shown, and of long lines the middle
is left out (`[…]`). A model that can think before it answers: [Prompts with thinking off and on](thinking-prompts.md).

Made by `python scripts/prompts.py > docs/prompts.md`; a test holds this page against the tasks.
"""


HEAD_THINKING = """# Prompts with thinking off and on

What Qwen3 is asked, task by task, with its own chat template: the first row of the mini bundle, zero-shot. Each prompt is shown
once up to where the two ways part. With thinking off (the default) the template closes the thought before it begins, also before
a turn whose first words are given. With `--thinking on` the model writes its thought where `⟨thought⟩` stands, up to the token
`</think>`; what follows is given, and the answer goes on from there. See [Thinking](thinking.md).

Made by `python scripts/prompts.py .cache/tokenizers/qwen3 > docs/thinking-prompts.md` (`python scripts/fetch_tokenizers.py`
fetches the tokenizer); a test holds this page against the tasks.
"""


def byte_tokenizer() -> Any:
    """Return a tokenizer of bytes with ChatML's template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=CHATML)


def request_of(task: DarumeruTask, prompter: Prompter, examples: int) -> Request:
    """Return the task's first request."""
    doc = task.docs()[0]
    query = task.asked(doc)[0]
    return prompter.requests([(f"{task.name}/0/0", query, task.fewshot(doc, examples))])[0]


def about(task: DarumeruTask) -> str:
    """Return what is asked, and whose words the prompt is."""
    queries = task.asked(task.docs()[0])
    query = queries[0]
    if query.kind == "choose":
        how = f"Chooses among {', '.join(f'`{label}`' for label in query.options)}"
    elif query.kind == "rank":
        how = "Ranks the sentences of the document as continuations of the prompt"
    else:
        ends = " or ".join(repr(end).replace("'", "`") for end in query.until) or "a blank line"
        how = f"Writes at most {query.max_tokens} tokens; a base model's answer ends at {ends}"
    twice = "; asked in both orders of the options" if len(queries) == 2 else ""
    words = "The words are this project's." if task.worded_here else "The words come with the rows."
    return f"{how}{twice}. Score: {' + '.join(task.primary)}. {words}"


def shortened(text: str) -> str:
    """Return a text without the middle of its long lines."""
    half = LONGEST_LINE // 2
    lines = (line if len(line) <= LONGEST_LINE else f"{line[:half]} […] {line[-half:]}" for line in text.split("\n"))
    return "\n".join(lines)


def page() -> Iterator[str]:
    """Yield the page's parts."""
    yield HEAD
    catalogue, tokenizer = Catalogue(), byte_tokenizer()
    modes: tuple[tuple[Mode, int], ...] = (("foundation", EXAMPLES), ("instruct", 0))
    prompters = {mode: Prompter(tokenizer, mode, Limits(max_prompt_len=10**7)) for mode, _ in modes}
    for name in SUITES:
        suite = catalogue.suite(name)
        for group in suite.groups:
            yield f"\n## {group.title}\n"
            for task in catalogue.load(group.tasks, "mini").values():
                yield f"\n### {task.name}\n\n{about(task)}\n"
                for mode, examples in modes:
                    shown = shortened(request_of(task, prompters[mode], examples).text)
                    yield f"\n{mode.capitalize()}:\n\n````text\n{shown}\n````\n"


def thinking_page(tokenizer: Any) -> Iterator[str]:
    """Yield the parts of the page on thinking, for a tokenizer with a chat template that switches it."""
    yield HEAD_THINKING
    catalogue, limits = Catalogue(), Limits(max_prompt_len=10**7)
    off, on = (
        Prompter(tokenizer, "instruct", limits, style_of(tokenizer, ThinkingSettings(thinking=mode)))
        for mode in ("off", "on")
    )
    for name, task in catalogue.load(catalogue.suite(SUITES[0]).tasks, "mini").items():
        at_once, first = request_of(task, off, 0).text, request_of(task, on, 0)
        begin = first.text.removesuffix(on.style.opening)
        if first.thinking is None or not at_once.startswith(begin):
            raise ValueError(f"{name}: the two ways do not begin alike")
        yield f"\n## {name}\n\n````text\n{shortened(begin)}\n````\n"
        for mode, rest in (("Off", at_once[len(begin) :]), ("On", f"{on.style.opening}⟨thought⟩{first.thinking.text}")):
            yield f"\n{mode}:\n\n````text\n{rest}\n````\n"


def main() -> None:
    """Write one of the pages."""
    if len(sys.argv) == 1:
        sys.stdout.writelines(page())
        return
    from transformers import AutoTokenizer

    sys.stdout.writelines(thinking_page(AutoTokenizer.from_pretrained(sys.argv[1])))


if __name__ == "__main__":
    main()
