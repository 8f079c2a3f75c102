"""Which systems are compared: the bundles of each, task by task, and what their manifests say."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, StrictInt, ValidationError

TASKS = ("ner", "parse")
RANDOM_WEIGHTS = "random weights"  # what the provenance of a model says that was never trained


class BundleError(ValueError):
    """A bundle cannot be tested; the message names the file and the field."""


class MissingBundleError(BundleError):
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


@dataclass(frozen=True, slots=True)
class Bundle:
    """One model of the comparison.

    `kind` and `precision` are as the manifest says, empty where it says nothing. `scores` are of the test
    split and of this precision, by metric; empty where the weights are random, for which `has_accuracy` is
    False. `digest` is of the manifest.
    """

    folder: Path
    name: str
    task: str  # "ner" or "parse": also the server's path
    parameters: int
    kind: str = ""
    precision: str = ""
    has_accuracy: bool = True
    scores: dict[str, float] = field(default_factory=dict)
    digest: str = ""

    @property
    def served_as(self) -> str:
        """The name of the folder that the server sees, by which it then answers."""
        return re.sub(r"[^\w.-]", "-", self.name)


class _Quantisation(BaseModel):
    loss: dict[str, dict[str, float]] = {}  # points by split and metric


class _Manifest(BaseModel):
    """What a load test has to know of a manifest."""

    name: Annotated[str, Field(min_length=1)]
    task: Literal["ner", "parse"]
    parameters: Annotated[StrictInt, Field(ge=1)]
    kind: str | None = None
    precision: str | None = None
    digest: str | None = None
    provenance: dict[str, Any] | None = None
    scores: dict[str, dict[str, float] | None] | None = None  # points by split and metric
    quantisation: _Quantisation | None = None


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`.

    Raises:
        BundleError: its manifest is missing (MissingBundleError) or lacks what is needed.
    """
    path = folder / "manifest.json"
    try:
        manifest = _Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise MissingBundleError(f"{path}: no such file: train and export first (make distill)") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        given = "" if first["type"] == "missing" else f", not {first['input']!r}"
        raise BundleError(f"{path}: field {place}: {first['msg']}{given}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not a JSON manifest: {error}") from error
    is_random = any(
        RANDOM_WEIGHTS in each for each in (manifest.provenance or {}).values() if isinstance(each, str)
    )
    return Bundle(
        folder=folder,
        name=manifest.name,
        task=manifest.task,
        parameters=manifest.parameters,
        kind=manifest.kind or "",
        precision=manifest.precision or "",
        has_accuracy=not is_random,
        scores={} if is_random else _test_scores(manifest),
        digest=manifest.digest or "",
    )


def _test_scores(manifest: _Manifest) -> dict[str, float]:
    """The manifest's scores are of the model as it was trained, what 8 bits take away stands apart."""
    trained = (manifest.scores or {}).get("test") or {}
    lost = manifest.quantisation.loss.get("test", {}) if manifest.quantisation else {}
    scores = {metric: points - lost.get(metric, 0.0) for metric, points in trained.items()}
    return {metric: round(points, 4) for metric, points in scores.items() if math.isfinite(points)}


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
        BundleError: a bundle is missing or cannot be used, or two are of the same system and task.
    """
    found: dict[tuple[str, str], Bundle] = {}
    for key in keys:
        for folder in given.get(key, ()):
            bundle = _read(key, folder, keys, run)
            if (bundle.task, key) in found:
                raise BundleError(f"{folder}: a second {key} for the task {bundle.task}")
            found[bundle.task, key] = bundle
    wanted = sorted({task for task, _ in found}) if found else list(tasks)
    for task in wanted:
        for key in keys:
            if (task, key) in found:
                continue
            if given.get(key):
                raise BundleError(f"no {key} for the task {task}: give its folder with --{key} too")
            folder = Path(KINDS[key].folder.format(task=task))
            bundle = _read(key, folder, keys, run)
            if bundle.task != task:
                raise BundleError(f"{folder}: its task is {bundle.task}, expected {task}")
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
