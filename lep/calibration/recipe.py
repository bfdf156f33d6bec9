"""The two published settings of calibration as named recipes; every field can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from darumeru.errors import UserError
from darumeru.options import Option, validated


class Recipe(BaseModel):
    """Settings of a calibration. The defaults are what the paper leaves open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lora_rank: Annotated[int, Option("Rank of LoRA's matrices.")] = Field(ge=1)
    lora_alpha: Annotated[float, Option("LoRA's contribution is multiplied by alpha / rank.")] = Field(gt=0)
    lora_dropout: Annotated[float, Option("Dropout before LoRA's matrices.")] = Field(default=0.0, ge=0, lt=1)
    lora_layers: Annotated[
        Literal["all", "ends"], Option("Attention and MLP of all layers, or of the first and the last (ends).")
    ]
    train_embeddings: Annotated[
        bool, Option("Train the input embeddings whole. With a tied head either flag trains the one matrix.")
    ]
    train_head: Annotated[bool, Option("Train the output head whole.")]
    learning_rate: Annotated[float, Option("Highest learning rate.")] = Field(gt=0)
    weight_decay: Annotated[float, Option("Of AdamW.")] = Field(ge=0)
    schedule: Annotated[Literal["cosine", "linear", "constant"], Option("How the learning rate falls.")] = "cosine"
    warmup: Annotated[float, Option("Share of the steps over which the learning rate rises.")] = Field(
        default=0.03, ge=0, lt=1
    )
    batch: Annotated[int, Option("Examples of one optimizer step.")] = Field(ge=1)
    max_length: Annotated[int, Option("Tokens of a row, and of the longest example; longer are left out.")] = Field(
        ge=16
    )
    epochs: Annotated[float, Option("Passes over the examples.")] = Field(default=1.0, gt=0)
    max_steps: Annotated[int | None, Option("Stop after so many steps; the schedule ends there.")] = Field(
        default=None, ge=1
    )
    seed: Annotated[int, Option("Of the order of the data.")] = Field(default=0, ge=0)


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
    return validated(Recipe, {**recipe.model_dump(), **changes}, what="field of a recipe")
