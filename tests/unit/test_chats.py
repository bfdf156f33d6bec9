"""Chat templates that write today's date, and tokenizers that have several templates."""

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from darumeru.errors import UserError
from darumeru.evaluation import Plan, prepare, settings_of
from support.tiny import CHAT_TEMPLATE

DATED = (
    "{% if not day is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}Today: {{ day }}\n" + CHAT_TEMPLATE
)


def with_template(model: Path, folder: Path, template: str | dict[str, str]) -> Path:
    """A copy of a model with another chat template, or several."""
    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def plan_of(model: Path, **more: Any) -> Plan:
    return prepare(settings_of(model=str(model), data="mini", tasks=("parus",), limit=2, engine="hf", **more))


def test_a_run_is_the_same_tomorrow(tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama 3.2's template, and others', write the day on which a prompt is made."""
    model = with_template(tiny_chat, tmp_path / "dated", DATED)
    headers = []
    for day in (26, 27):

        class Clock(datetime.datetime):
            today_ = day

            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> "Clock":
                return cls(2026, 11, cls.today_, 23, 59)

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        plan = plan_of(model)
        assert plan.requests[0].text.startswith("Today: 26 Jul 2024\n<s>")
        headers.append(plan.header())
    assert headers[0] == headers[1]
    assert headers[0]["model"]["chat_template_date"] == "2024-07-26"
    given = plan_of(model, chat_template_args={"day": "1 Jan 2026"})
    assert given.requests[0].text.startswith("Today: 1 Jan 2026\n<s>")


def test_a_template_without_a_date_keeps_its_identity(tiny_chat: Path) -> None:
    assert "chat_template_date" not in plan_of(tiny_chat).header()["model"]


def test_the_date_is_no_argument_of_a_user(tiny_chat: Path, tmp_path: Path) -> None:
    model = with_template(tiny_chat, tmp_path / "dated", DATED)
    with pytest.raises(UserError, match=r"Unknown --chat-template-args key .* 'strftime_now'.*day"):
        plan_of(model, chat_template_args={"strftime_now": "x"})


def test_of_several_templates_the_default_one_is_used(tiny_chat: Path, tmp_path: Path) -> None:
    """As Command R and Hermes have them: one for conversations, others for tools and documents."""
    several = with_template(tiny_chat, tmp_path / "two", {"default": CHAT_TEMPLATE, "tool_use": "{{ tools }}"})
    assert isinstance(AutoTokenizer.from_pretrained(several).chat_template, dict)
    plan, want = plan_of(several), plan_of(tiny_chat)
    assert [r.prompt for r in plan.requests] == [r.prompt for r in want.requests]
    assert plan.header()["mode"] == "instruct"
    stated = json.loads(json.dumps(plan.header()["model"]))
    for key in ("chat_template", "chat_template_sha256"):
        assert stated[key] == want.header()["model"][key]


def test_several_templates_without_a_default_are_named(tiny_chat: Path, tmp_path: Path) -> None:
    several = with_template(tiny_chat, tmp_path / "two", {"rag": CHAT_TEMPLATE, "tool_use": "{{ tools }}"})
    with pytest.raises(UserError, match=r"chat templates of the names rag, tool_use, .*'default'.*--mode foundation"):
        plan_of(several)
    assert plan_of(several, mode="foundation").requests
