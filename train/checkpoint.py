"""What a killed run goes on from: checkpoints of training, and finished models."""

import json
from pathlib import Path
from typing import Any

import torch

from structural_kd.files import whole
from train.models.card import read_card

CHECKPOINT = "checkpoint.pt"


class SettingsError(RuntimeError):
    """A model that was trained with other settings than the recipe's."""


def check_settings(where: Path, found: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    """Refuse to go on from a model that was trained with other settings, naming the first that differs."""
    wanted = json.loads(json.dumps(wanted))
    for name in wanted:
        old = (found or {}).get(name)
        if old != wanted[name]:
            raise SettingsError(
                f"{where}: {name} was {json.dumps(old)}, the recipe now says {json.dumps(wanted[name])}; "
                "delete the folder to train it again, or choose another --out"
            )


def is_finished(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder holds the finished model of these settings; other settings are an error."""
    if not (folder / "model.json").exists():
        return False
    _, about = read_card(folder)
    check_settings(folder, about.get("settings"), settings)
    return True


def save_checkpoint(folder: Path, settings: dict[str, Any], **state: Any) -> None:
    """Write the state of a training, of torch's random numbers as well."""
    state["settings"] = json.dumps(settings)
    state["random"] = torch.get_rng_state()
    state["random_cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    with whole(folder / CHECKPOINT) as part:
        torch.save(state, part)


def load_checkpoint(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The state of a training of these settings, if there is one; torch's random numbers go on from it."""
    file = folder / CHECKPOINT
    if not file.exists():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    check_settings(file, json.loads(state["settings"]), settings)
    torch.set_rng_state(state["random"])
    if state["random_cuda"]:
        torch.cuda.set_rng_state_all(state["random_cuda"])
    return state
