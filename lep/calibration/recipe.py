"""The two published settings of calibration as named recipes; every field can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from darumeru.errors import UserError


class Recipe(BaseModel):
    """How to calibrate. The defaults are what the paper leaves open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lora_rank: int = Field(ge=1)
    lora_alpha: float = Field(gt=0)
    """LoRA's contribution is multiplied by alpha / rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_layers: Literal["all", "ends"]
    """Attention and MLP of all transformer layers, or of the first and the last only."""
    train_embeddings: bool
    """Train the input embeddings whole. Where the head is tied to them, either flag trains the one matrix."""
    train_head: bool
    """Train the output head whole."""
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """The share of the steps over which the learning rate rises."""
    batch: int = Field(ge=1)
    """Examples of one optimizer step."""
    max_length: int = Field(ge=16)
    """Tokens of a row, and of the longest example; longer ones are left out."""
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many optimizer steps; the schedule ends there."""
    seed: int = Field(default=0, ge=0)


RECIPES: dict[str, Recipe] = {
    "self": Recipe(
        lora_rank=8,
        lora_alpha=1,
        lora_layers="ends",
        train_embeddings=True,
        train_head=True,
        learning_rate=2.5e-5,
        weight_decay=0.1,
        batch=64,
        max_length=8096,
    ),
    "instruct": Recipe(
        lora_rank=32,
        lora_alpha=16,
        lora_layers="all",
        train_embeddings=False,
        train_head=True,
        learning_rate=5e-5,
        weight_decay=0.05,
        batch=128,
        max_length=4096,
    ),
}
"""arXiv 2412.21140: self-calibration, and continued instruction tuning."""


def choose_recipe(recipe: str | Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe by its name, with fields changed.

    Raises:
        UserError: an unknown recipe, an unknown field, or a value that is not possible.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise UserError(f"Unknown recipe {recipe!r}; choose one of {', '.join(RECIPES)}.")
        recipe = RECIPES[recipe]
    for name in changes:
        if name not in Recipe.model_fields:
            raise UserError(f"A recipe has no field {name!r}; it has {', '.join(Recipe.model_fields)}.")
    try:
        return Recipe(**{**recipe.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UserError(f"{option}: {first['input']!r} is not possible. {first['msg']}.") from None
