"""One network of a run, and what a killed run goes on from: its checkpoint, or the finished model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from structural_kd.files import whole
from train.models.card import ModelCard, read_card
from train.recipe import Training

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


@dataclass(frozen=True)
class Network:
    """One network of a run, what it is trained with, and its folder.

    Args:
        settings: all that decides what it becomes: it is kept, finished or not, only under the same ones.
        title: its name in logs.
    """

    card: ModelCard
    training: Training
    seed: int
    settings: dict[str, Any]
    folder: Path
    title: str

    def is_finished(self) -> bool:
        """Whether the folder holds the finished model of these settings; other settings are an error."""
        if not (self.folder / "model.json").exists():
            return False
        _, about = read_card(self.folder)
        check_settings(self.folder, about.get("settings"), self.settings)
        return True


def save_checkpoint(network: Network, **state: Any) -> None:
    """Write the state of a training, of torch's random numbers as well."""
    state["settings"] = json.dumps(network.settings)
    state["random"] = torch.get_rng_state()
    state["random_cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    with whole(network.folder / CHECKPOINT) as part:
        torch.save(state, part)


def load_checkpoint(network: Network) -> dict[str, Any] | None:
    """The state of a training that was stopped, if there is one; torch's random numbers go on from it."""
    file = network.folder / CHECKPOINT
    if not file.exists():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    check_settings(file, json.loads(state["settings"]), network.settings)
    torch.set_rng_state(state["random"])
    if state["random_cuda"]:
        torch.cuda.set_rng_state_all(state["random_cuda"])
    return state
