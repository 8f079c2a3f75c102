"""The recipe: one YAML file an experiment, validated before anything runs."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from train.distill.objectives import OBJECTIVES

StudentKind = Literal["crf", "softmax", "biaffine", "labeller"]
KINDS_OF_TASK: dict[str, tuple[StudentKind, ...]] = {
    "ner": ("crf", "softmax"),
    "parse": ("biaffine", "labeller"),
}
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RecipeError(ValueError):
    """A recipe that can not be run: says in which file, under which key, and what to write instead."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Vectors(_Section):
    """fastText vectors: trained on the corpus's own raw text, or loaded from a .bin or .vec file."""

    load: Path | None = None
    dim: Positive = 100
    epochs: Positive = 10
    buckets: Positive = 100_000
    min_n: Positive = 3
    max_n: Positive = 5


class EncoderSettings(_Section):
    """The teacher's encoder, by its Hugging Face id or a folder."""

    name: str
    layers: Annotated[tuple[int, ...], Field(min_length=1)] = (-4, -3, -2, -1)
    """Hidden states whose mean is a piece's vector, counted as transformers does."""
    finetune: bool = False
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    """Of the encoder's weights, where they are fine-tuned."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of frozen features; auto is bfloat16 on a GPU that has it, float32 elsewhere."""


class Training(_Section):
    """Size and training of one network. Steps are batches."""

    hidden_size: Positive = 256
    layers: Positive = 1
    dropout: Rate = 0.33
    arc_size: Positive = 128
    relation_size: Positive = 128
    character_dim: Positive = 25
    character_features: Positive = 50
    steps: Positive = 2000
    batch: Positive = 32
    """Sentences a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    evaluations: Positive = 10
    """How often the dev score is taken and a checkpoint written; the best one is kept."""


class TaskSettings(_Section):
    teacher: Training = Training()
    students: dict[StudentKind, Training]
    serve: StudentKind | None = None
    """The student that is exported; the first one unless named."""


class Distillation(_Section):
    objectives: tuple[str, ...] = ("none", "structural")
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    anneal: Finite = 1.0
    """Fall of the teacher's weight on labelled sentences per whole training; 0 keeps it at 1."""
    unlabelled_weight: Finite = 1.0
    unlabelled_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of an epoch's sentences that is unlabelled; as many as there are unless set."""

    @model_validator(mode="after")
    def _objectives_are_known(self) -> Self:
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ValueError(f"unknown objective {name!r}{_nearest(name, OBJECTIVES)}")
        if not self.objectives:
            raise ValueError("name at least one objective")
        return self


class Recipe(_Section):
    """An experiment: corpus, labels, teacher, students, distillation."""

    corpus: str
    """A named corpus, or a folder with train, dev and test files."""
    merge_subtokens: bool | None = None
    """Fold multiword tokens into one token; the corpus's own custom unless set."""
    labelled: Positive | None = None
    """Training sentences that keep their labels, chosen by ``selection_seed``; all unless set."""
    unlabelled: Annotated[int, Field(ge=0)] | None = None
    """How many of the others serve as raw text; all unless set."""
    text: Path | None = None
    """More raw text, one sentence a line, tokens split by spaces."""
    sentences: Positive | None = None
    """Use only so many sentences of each split: for trials."""
    selection_seed: Seed = 0
    teacher_seed: Seed = 1
    seeds: tuple[Seed, ...] = (1,)
    """One student a seed."""
    encoder: EncoderSettings
    vectors: Vectors = Vectors()
    distillation: Distillation = Distillation()
    tasks: dict[Literal["ner", "parse"], TaskSettings]
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _students_fit_tasks(self) -> Self:
        if not self.tasks:
            raise ValueError("name at least one task: ner, parse")
        if not self.seeds:
            raise ValueError("name at least one seed")
        for task, settings in self.tasks.items():
            for kind in (*settings.students, *([settings.serve] if settings.serve else [])):
                if kind not in KINDS_OF_TASK[task]:
                    known = ", ".join(KINDS_OF_TASK[task])
                    raise ValueError(f"tasks.{task}: {kind!r} is no student of this task; known: {known}")
            if not settings.students:
                raise ValueError(
                    f"tasks.{task}.students: name at least one of {', '.join(KINDS_OF_TASK[task])}"
                )
            if settings.serve and settings.serve not in settings.students:
                raise ValueError(f"tasks.{task}.serve: {settings.serve!r} is not among its students")
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: ``key=value`` pairs, dots between the levels of a key, values in YAML:
            ``distillation.temperature=2``, ``seeds=[1,2,3]``.

    Raises:
        RecipeError: the file is missing or no YAML, a key is unknown (the message names the nearest known
            one), a value does not fit.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = sorted(str(p) for p in Path("recipes").glob("*.yaml"))
        raise RecipeError(f"{path}: no such recipe; there are: {', '.join(beside) or 'none'}") from None
    except OSError as error:
        raise RecipeError(f"{path}: can not be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, see recipes/quickstart.yaml")
    content = _unshared(content)
    for override in overrides:
        _override(content, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        lines = [_explain(path, problem) for problem in error.errors()]
        raise RecipeError("\n".join(lines)) from None


def _unshared(value: Any) -> Any:
    """A copy in which sections that YAML anchors share are apart, so that setting one leaves the others."""
    if isinstance(value, dict):
        return {key: _unshared(part) for key, part in value.items()}
    return [_unshared(part) for part in value] if isinstance(value, list) else value


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override}: write key=value, for example --set seeds=[1,2,3]")
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise RecipeError(f"--set {override}: {parent} is a value, not a section")
    try:
        section[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: the value is not valid YAML: {error}") from None


def _explain(path: Path, problem: Any) -> str:
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    where = ".".join(location) or "the recipe"
    if problem["type"] == "extra_forbidden":
        return f"{path}: {where}: unknown key{_nearest(location[-1], _keys_at(Recipe, location[:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    value = problem.get("input")
    given = "" if isinstance(value, dict) or problem["type"] == "missing" else f" (given: {value!r})"
    return f"{path}: {where}: {message}{given}"


def _keys_at(section: Any, location: Sequence[str]) -> list[str]:
    """The keys a section of the recipe knows, following a location through nested models and mappings."""
    for part in location:
        if _is_section(section):
            section = section.model_fields[part].annotation
        elif get_origin(section) is dict:
            section = get_args(section)[1]
    return list(section.model_fields) if _is_section(section) else []


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
