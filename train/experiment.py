"""What the steps of a run share, and what decides what one of its models becomes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from train.batching import Dataset
from train.models.encoders import Encoder
from train.recipe import EncoderChoice, Recipe, Training
from train.splits import Splits


@dataclass(frozen=True)
class Experiment:
    """A recipe with its sentences, its encoder (None where no teacher reads one) and its device."""

    recipe: Recipe
    out: Path
    splits: Splits
    dataset: Dataset
    encoder: Encoder | None
    accelerator: Accelerator

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def settings_of(self, training: Training, **more: Any) -> dict[str, Any]:
        """All that decides what a model becomes: it is kept, finished or not, only under the same."""
        return {
            "training": training.model_dump(mode="json"),
            "corpus": [self.splits.digest, self.splits.words_digest],
            "labelled": len(self.splits.labelled),
            "selection_seed": self.recipe.selection_seed,
            "vectors": self.recipe.vectors.model_dump(mode="json", exclude={"text"}),
            **more,
        }


def precision_of(choice: EncoderChoice, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision an encoder runs in: as the recipe has it, or bfloat16 on a GPU that has it."""
    if choice.precision != "auto":
        return choice.precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
