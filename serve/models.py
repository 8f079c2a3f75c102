"""The loaded bundles, and which of them answers a request."""

from dataclasses import dataclass, field

from anyio import CapacityLimiter

from bundle.segment import Segmenter
from serve.bundles import Load, Manifest, Predictor, bundle_folders, load_checked
from serve.problems import Fault, Problem, pointer
from serve.settings import Settings


@dataclass(frozen=True)
class Model:
    """A loaded bundle with the segmenter of its language. Its limiter lets one call in at a time."""

    name: str
    predictor: Predictor
    segmenter: Segmenter
    limiter: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))

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
    """All models of a server, in the order of their names."""

    all: tuple[Model, ...]

    def of(self, task: str) -> list[Model]:
        return [model for model in self.all if model.manifest.task == task]

    def default(self, task: str) -> Model | None:
        """The first student of the task, else its first model, else none."""
        candidates = self.of(task)
        students = (model for model in candidates if model.manifest.role == "student")
        return next(students, candidates[0] if candidates else None)

    def choose(self, task: str, name: str | None) -> Model:
        """The model for a request: the named one, or the default. Raises a `Problem` where there is none."""
        default = self.default(task)
        if default is None:
            detail = f"This server has no bundle for the task {task!r}; /info lists what it has."
            raise Problem("no_model_for_task", detail)
        if name is None:
            return default
        named = next((model for model in self.all if model.name == name), None)
        if named is not None and named.manifest.task == task:
            return named
        known = ", ".join(repr(model.name) for model in self.of(task))
        if named is None:
            code, detail = "unknown_model", f"No model is named {name!r}; those for {task!r} are {known}."
        else:
            code = "wrong_task"
            detail = f"The model {name!r} is for {named.manifest.task!r}; those for {task!r} are {known}."
        raise Problem(code, detail, [Fault(pointer=pointer("model"), detail=detail)])


def load_models(settings: Settings, load: Load) -> Models:
    """Loads every bundle. Raises StartError naming the first folder that does not load."""
    models = []
    for folder in bundle_folders(settings.bundles):
        predictor = load_checked(folder, settings, load)
        segmenter = Segmenter(predictor.manifest.language)
        models.append(Model(folder.name, predictor, segmenter))
    return Models(tuple(models))
