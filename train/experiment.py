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
    """The precision an encoder runs in: as the recipe has it, or bfloat16 where the device computes in it."""
    if choice.precision != "auto":
        return choice.precision
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _computes_bf16()
    return "bfloat16" if native else "float32"


def _computes_bf16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AMX or AVX-512 BF16), so that it gains time."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
