"""The keys of a task's YAML file: those of lm-eval's that mean something here, and templates that can be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from darumeru.errors import UserError, unknown
from darumeru.task.template import compiled

KEYS = (
    "task",
    "class",
    "include",
    "tag",
    "task_alias",
    "dataset_path",
    "dataset_name",
    "test_split",
    "fewshot_split",
    "num_fewshot",
    "description",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "gen_prefix",
    "generation_kwargs",
    "output_type",
    "metadata",
)
"""What a task file may hold."""

TEMPLATES = ("description", "doc_to_text", "doc_to_target", "gen_prefix")
"""Those of them that are Jinja templates over a row's fields."""

_INSTEAD = {
    "process_docs": "prepare the rows themselves, or override `docs` in a class of your own",
    "process_results": "override `score` in a class of your own",
    "metric_list": "metrics are those of the class, and `metadata: darumeru: primary` chooses among them",
    "filter_list": "override `score` in a class of your own",
    "repeats": "the number is chosen for the run, with --repeats",
    "fewshot_config": "`fewshot_split` names the examples, and `metadata: darumeru:` says which are taken",
    "fewshot_delimiter": "turns are separated by a blank line, or by the chat template",
    "target_delimiter": "an answer follows its prefix behind a space",
    "training_split": "`fewshot_split` names the split that examples are taken from",
    "validation_split": "`fewshot_split` names the split that examples are taken from",
}
"""Keys of lm-eval's that would be passed over, and what does the same here."""

_DRAWN = "whether answers are drawn is chosen for the run, with --temperature and the options beside it"
_GENERATION = {
    "until": "what ends a base model's answer stands under `metadata: darumeru: until`; an instruct model ends its turn itself",
    "do_sample": _DRAWN,
    "temperature": _DRAWN,
    "top_p": _DRAWN,
    "top_k": _DRAWN,
}


def check_keys(name: str, config: Mapping[str, Any]) -> None:
    """Refuse what a task file says and nothing here would heed.

    Raises:
        UserError: a key or a value that is not supported.
    """
    for key, value in config.items():
        if key not in KEYS and value is not None:
            if key in _INSTEAD:
                raise UserError(f"Task '{name}': lm-eval's key '{key}' is not supported: {_INSTEAD[key]}.")
            raise unknown(f"key of task '{name}'", key, KEYS)
    if config.get("num_fewshot") not in (None, 0):
        raise UserError(
            f"Task '{name}': num_fewshot: {config['num_fewshot']} is not supported: 0 shows no examples, and their number is "
            "chosen for the run, with --num-fewshot."
        )
    for key, value in (config.get("generation_kwargs") or {}).items():
        greedy = key in ("do_sample", "temperature") and not value
        if key != "max_gen_toks" and not greedy:
            instead = _GENERATION.get(key, "only max_gen_toks is")
            raise UserError(f"Task '{name}': generation_kwargs: '{key}' is not supported: {instead}.")
    choices = config.get("doc_to_choice")
    if choices is not None and not isinstance(choices, list):
        raise UserError(f'Task \'{name}\': doc_to_choice: {choices!r} is no list of labels, such as ["no", "yes"].')


def check_templates(name: str, templates: Mapping[str, Any]) -> None:
    """Refuse templates that cannot be read, by their keys.

    Raises:
        UserError: one is no text, or no valid Jinja.
    """
    for key, template in templates.items():
        if template is None:
            continue
        if not isinstance(template, str):
            raise UserError(
                f"Task '{name}': {key}: {template!r} is no text. Give a Jinja template over the row's fields."
            )
        try:
            compiled(template)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(
                f"Task '{name}': {key} is no valid Jinja template: {error.message} (line {error.lineno}). Correct it in the "
                "task's file, or in that of --wording."
            ) from None
