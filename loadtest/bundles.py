"""What a load test has to know of a bundle, read from its manifest.json."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TASKS = ("ner", "parse")
RANDOM_WEIGHTS = "random weights"  # what the provenance of a model says that was never trained


class BundleError(ValueError):
    """A bundle cannot be tested; the message names the file and the field."""


class MissingBundleError(BundleError):
    """There is no bundle in a folder."""


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


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`; raises BundleError where its manifest is missing or lacks what is needed."""
    path = folder / "manifest.json"
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingBundleError(f"{path}: no such file: train and export first (make distill)") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not a JSON manifest: {error}") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{path}: expected a JSON object")
    task, name, parameters = (manifest.get(key) for key in ("task", "name", "parameters"))
    if task not in TASKS:
        raise BundleError(f"{path}: field task: expected ner or parse, not {task!r}")
    if not isinstance(name, str) or not name:
        raise BundleError(f"{path}: field name: expected a non-empty string, not {name!r}")
    if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 1:
        raise BundleError(f"{path}: field parameters: expected a positive number, not {parameters!r}")
    is_random = _has_random_weights(manifest)
    try:
        return Bundle(
            folder=folder,
            name=name,
            task=task,
            parameters=parameters,
            kind=str(manifest.get("kind") or ""),
            precision=str(manifest.get("precision") or ""),
            has_accuracy=not is_random,
            scores={} if is_random else _test_scores(manifest),
            digest=str(manifest.get("digest") or ""),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: fields scores and quantisation: expected points: {error}") from error


def _has_random_weights(manifest: Mapping[str, Any]) -> bool:
    provenance = manifest.get("provenance")
    said = provenance.values() if isinstance(provenance, dict) else ()
    return any(RANDOM_WEIGHTS in each for each in said if isinstance(each, str))


def _test_scores(manifest: Mapping[str, Any]) -> dict[str, float]:
    """The scores are of the model as it was trained; what 8 bits take away from them is told apart."""
    trained = (manifest.get("scores") or {}).get("test") or {}
    lost = ((manifest.get("quantisation") or {}).get("loss") or {}).get("test") or {}
    scores = {str(metric): float(points) - float(lost.get(metric, 0)) for metric, points in trained.items()}
    return {metric: round(points, 4) for metric, points in scores.items() if math.isfinite(points)}
