"""The loaded bundles, and which of them answers a request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from serve.batcher import Batcher
from serve.models.discovery import TASKS, Found, Manifest, Predictor
from serve.problems import Fault, Problem, pointer
from structural_kd.annotate.readers import ReaderSettings
from structural_kd.segment import Segmenter

DIGEST_CHARACTERS = 12


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded bundle, what reads its language, and the queue before it."""

    found: Found
    predictor: Predictor
    reading: ReaderSettings
    batcher: Batcher

    @property
    def segmenter(self) -> Segmenter:
        return self.reading.segmenter

    @property
    def id(self) -> str:
        """What a request names, and what an answer says."""
        return self.found.id

    @property
    def name(self) -> str:
        """The name without the version."""
        return self.found.name

    @property
    def version(self) -> str:
        """The version's folder; where there is none, the beginning of the digest of the manifest."""
        return self.found.version or self.manifest.digest[:DIGEST_CHARACTERS]

    @property
    def manifest(self) -> Manifest:
        return self.predictor.manifest

    @property
    def provider(self) -> str:
        """ONNX Runtime's execution provider in use; it leaves to others what it cannot run."""
        return self.predictor.providers[0]

    @property
    def labels(self) -> list[str]:
        """The labels that its answers may hold: relations, or the types of entities (B-LOC, I-LOC: LOC)."""
        if self.manifest.task == "parse":
            return list(self.manifest.labels)
        return sorted({tag.partition("-")[2] for tag in self.manifest.labels if tag != "O"})


@dataclass(frozen=True)
class Models:
    """All models of a server: by name, the versions of one name from the oldest to the newest.

    `wanted` are the names that the settings make the defaults of their tasks.
    """

    all: tuple[Model, ...]
    wanted: Mapping[str, str] = field(default_factory=dict)

    def of(self, task: str) -> list[Model]:
        return [model for model in self.all if model.manifest.task == task]

    @cached_property
    def _defaults(self) -> dict[str, Model | None]:
        return {task: self._default(task) for task in TASKS}

    def default(self, task: str) -> Model | None:
        """The wanted model, else the newest version of the first student, else of the first model."""
        return self._defaults[task]

    def _default(self, task: str) -> Model | None:
        candidates = self.of(task)
        if task in self.wanted:
            return self._named(self.wanted[task], task)
        first = next((model for model in candidates if model.manifest.role == "student"), None)
        first = first or next(iter(candidates), None)
        return self._named(first.name, task) if first else None

    def choose(self, task: str, name: str | None) -> Model:
        """The model for a request: the named one, or the default. Raises a `Problem` where there is none."""
        model = self.default(task) if name is None else self._named(name, task)
        if model is not None:
            return model
        if not self.of(task):
            detail = f"This server has no bundle for the task {task!r}; /models lists what it has."
            raise Problem("no_model_for_task", detail)
        known = ", ".join(repr(model.id) for model in self.of(task))
        other = next((model for model in self.all if name in (model.id, model.name)), None)
        if name is None:
            detail = f"The default for {task!r}, {self.wanted[task]!r}, is not there; there are {known}."
            raise Problem("no_model_for_task", detail)
        if other is None:
            code, detail = "unknown_model", f"No model is named {name!r}; those for {task!r} are {known}."
        else:
            code = "wrong_task"
            detail = f"The model {name!r} is for {other.manifest.task!r}; those for {task!r} are {known}."
        raise Problem(code, detail, [Fault(pointer=pointer("model"), detail=detail)])

    def _named(self, name: str, task: str) -> Model | None:
        """The model of an id, or the newest version of a name."""
        found = [model for model in self.of(task) if name in (model.id, model.name)]
        return found[-1] if found else None
