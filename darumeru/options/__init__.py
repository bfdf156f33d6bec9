"""Command-line options, recipe sections and help, made from what is written once: the fields of a pydantic class, or the
parameters of a function, annotated as `Annotated[int, Option("New tokens to append.")]`.

    settings_model   a function's signature → a pydantic class, such as a section of a recipe
    with_options     a class or function → the options of a typer command
    validated        names and values → a class, or one sentence that says which value is impossible
    deciding         settings → those that decide the result
    yaml_template    a class or function → YAML to fill in
"""

from darumeru.options.command_line import Command, spread, with_options
from darumeru.options.settings import Option, Strict, deciding, option_of, settings_model, validated, yaml_template

__all__ = [
    "Command", "Option", "Strict", "deciding", "option_of", "settings_model", "spread", "validated", "with_options",
    "yaml_template",
]  # fmt: skip
