"""Which systems are compared: the bundles of each, task by task, and what their manifests say."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, StrictInt, ValidationError

TASKS = ("ner", "parse")
RANDOM_WEIGHTS = "random weights"  # what the provenance of a model says that was never trained


class UnfitBundleError(ValueError):
    """A bundle cannot be tested; the message names the file and the field."""


class MissingBundleError(UnfitBundleError):
    """There is no bundle in a folder."""


class Kind(NamedTuple):
    """A kind of system: where its bundles lie, with {task}, and the command that makes them, with {run}."""

    folder: str
    command: str


KINDS: Mapping[str, Kind] = {
    "student": Kind("bundles/{task}", "python -m export {run}"),
    "student-int8": Kind("bundles/{task}-int8", "python -m export {run} --precision int8"),
    "teacher": Kind("bundles/teachers/{task}", "python -m export {run} --teachers --out bundles/teachers"),
    "paper-shape": Kind(
        "bundles/paper-shape/{task}", "python -m export.paper_shape {run} --out bundles/paper-shape"
    ),
}


class QuantisationLoss(BaseModel):
    """What 8 bits take away, in points by split and metric."""

    loss: dict[str, dict[str, float]] = {}


class Bundle(BaseModel, frozen=True):
    """A model of the comparison: its folder, and fields of its manifest; `scores` by split and metric."""

    folder: Path
    name: Annotated[str, Field(min_length=1)]
    task: Literal["ner", "parse"]  # also the server's path
    parameters: Annotated[StrictInt, Field(ge=1)]
    kind: str = ""
    precision: str = ""
    digest: str = ""
    provenance: dict[str, Any] = {}
    scores: dict[str, dict[str, float]] = {}
    quantisation: QuantisationLoss | None = None

    @property
    def served_as(self) -> str:
        """The name of the folder that the server sees, by which it then answers."""
        return re.sub(r"[^\w.-]", "-", self.name)

    @property
    def has_accuracy(self) -> bool:
        """Whether it was ever trained."""
        return not any(RANDOM_WEIGHTS in each for each in self.provenance.values() if isinstance(each, str))

    @property
    def test_scores(self) -> dict[str, float]:
        """Scores of this precision by metric; the manifest's are those before quantisation."""
        if not self.has_accuracy:
            return {}
        lost = self.quantisation.loss.get("test", {}) if self.quantisation else {}
        scores = {key: value - lost.get(key, 0.0) for key, value in self.scores.get("test", {}).items()}
        return {key: round(value, 4) for key, value in scores.items() if math.isfinite(value)}


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`.

    Raises:
        UnfitBundleError: its manifest is missing (MissingBundleError) or lacks what is needed.
    """
    path = folder / "manifest.json"
    try:
        return Bundle.model_validate({**json.loads(path.read_text(encoding="utf-8")), "folder": folder})
    except FileNotFoundError as error:
        raise MissingBundleError(f"{path}: no such file: train and export first (make distill)") from error
    except ValidationError as error:
        first = error.errors()[0]
        given = "" if first["type"] == "missing" else f", not {first['input']!r}"
        place = ".".join(map(str, first["loc"]))
        raise UnfitBundleError(f"{path}: field {place}: {first['msg']}{given}") from error
    except (OSError, ValueError, TypeError) as error:
        raise UnfitBundleError(f"{path}: not a JSON manifest: {error}") from error


@dataclass(frozen=True, slots=True)
class Candidate:
    """One system of one task."""

    key: str  # of KINDS
    bundle: Bundle


def candidates(
    keys: Sequence[str],
    given: Mapping[str, Sequence[Path]],
    tasks: Sequence[str],
    *,
    run: Path,
) -> list[Candidate]:
    """The bundles of the systems `keys`, the first task's first.

    Args:
        given: folders by system, in place of the usual ones.
        tasks: of the usual folders; where any folder is given, the tasks of those.
        run: for the command that is named where a bundle is missing.

    Raises:
        UnfitBundleError: a bundle is missing or cannot be used, or two are of the same system and task.
    """
    found: dict[tuple[str, str], Bundle] = {}
    for key in keys:
        for folder in given.get(key, ()):
            bundle = _read(key, folder, keys, run)
            if (bundle.task, key) in found:
                raise UnfitBundleError(f"{folder}: a second {key} for the task {bundle.task}")
            found[bundle.task, key] = bundle
    wanted = sorted({task for task, _ in found}) if found else list(tasks)
    for task in wanted:
        for key in keys:
            if (task, key) in found:
                continue
            if given.get(key):
                raise UnfitBundleError(f"no {key} for the task {task}: give its folder with --{key} too")
            folder = Path(KINDS[key].folder.format(task=task))
            bundle = _read(key, folder, keys, run)
            if bundle.task != task:
                raise UnfitBundleError(f"{folder}: its task is {bundle.task}, expected {task}")
            found[task, key] = bundle
    return [Candidate(key, found[task, key]) for task in wanted for key in keys]


def _read(key: str, folder: Path, keys: Sequence[str], run: Path) -> Bundle:
    try:
        return read_bundle(folder)
    except MissingBundleError as error:
        others = [other for other in keys if other != key]
        leave_out = f", or leave the system out: --systems {' '.join(others)}" if others else ""
        command = KINDS[key].command.format(run=run)
        raise MissingBundleError(
            f"{folder}/manifest.json: no such file; make the {key} with: {command} "
            f"(make loadtest does){leave_out}"
        ) from error
