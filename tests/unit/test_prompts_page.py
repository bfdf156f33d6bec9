"""docs/prompts.md shows the prompts as they are."""

import importlib.util
from pathlib import Path
from types import ModuleType

from transformers import AutoTokenizer

ROOT = Path(__file__).parents[2]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prompts", ROOT / "scripts" / "prompts.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_page_is_current_and_holds_every_task() -> None:
    script = load_script()
    page = (ROOT / "docs" / "prompts.md").read_text(encoding="utf-8")
    assert page == "".join(script.page()), "python scripts/prompts.py > docs/prompts.md"
    parts = page.split("\n### ")[1:]
    assert len(parts) == 23
    for part in parts:
        foundation, instruct = part.split("Foundation:")[1].split("Instruct:")
        examples = 1 if part.startswith(("rutie\n", "sum_extractive\n")) else 3  # these two are asked without examples
        assert foundation.count("\n\nResponse:") == foundation.count("Query: ") == examples
        assert instruct.count("<|im_start|>assistant") == 1
    ours = {part.split("\n")[0] for part in parts if "The words are this project's." in part}
    assert ours == {"mmlu_ru", "mmlu_en", "rucola", "sum_abstractive", "sum_extractive", "gazeta"}


def test_the_page_on_thinking_is_current_and_holds_every_task(tokenizers_folder: Path) -> None:
    page = (ROOT / "docs" / "thinking-prompts.md").read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tokenizers_folder / "qwen3")
    assert page == "".join(load_script().thinking_page(tokenizer)), "see scripts/prompts.py"
    parts = page.split("\n## ")[1:]
    assert len(parts) == 17
    for part in parts:
        off, on = part.split("\nOff:\n")[1].split("\nOn:\n")
        assert "<think>\n\n</think>\n\n" in off
        assert "<think>\n⟨thought⟩</think>\n\n" in on
