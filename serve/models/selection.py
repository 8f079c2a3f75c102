"""The loaded bundles, and which of them answers a request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from serve.batcher import Batcher
from serve.models.discovery import TASKS, Found
from serve.problems import Fault, Problem, pointer
from serve.telemetry.metrics import ServedModel
from structural_kd import Manifest, Predictor
from structural_kd.annotate.readers import ReaderSettings


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded bundle, what reads its language, and the queue before it.

    `version` is the version's folder; where there is none, the beginning of the digest of the manifest.
    """

    found: Found
    predictor: Predictor
    version: str
    reading: ReaderSettings
    batcher: Batcher

    @property
    def id(self) -> str:
        """The name in a request and in its answer."""
        return self.found.id

    @property
    def name(self) -> str:
        """The name without the version."""
        return self.found.name

    @property
    def manifest(self) -> Manifest:
        return self.predictor.manifest


@dataclass(frozen=True)
class Models:
    """All models of a server: by name, the versions of one name from the oldest to the newest.

    `wanted` are the names that the settings make the defaults of their tasks; `refused` gives, by id, the
    reasons why other bundles of the folder are not in use.
    """

    all: tuple[Model, ...]
    wanted: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def of(self, task: str) -> list[Model]:
        return [model for model in self.all if model.manifest.task == task]

    def default(self, task: str) -> Model | None:
        """The wanted model, else the newest version of the first student, else of the first model."""
        return self._defaults[task]

    @cached_property
    def _defaults(self) -> dict[str, Model | None]:
        return {task: self._default(task) for task in TASKS}

    def _default(self, task: str) -> Model | None:
        if task in self.wanted:
            return self._named(self.wanted[task], task)
        candidates = self.of(task)
        students = [model for model in candidates if model.manifest.role == "student"]
        first = next(iter(students or candidates), None)
        return self._named(first.name, task) if first else None

    def labels(self, model: Model) -> ServedModel:
        """How the metrics show a model."""
        task = model.manifest.task
        return ServedModel(task, model.id, model.version, self.default(task) is model)

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
