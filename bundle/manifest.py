"""``manifest.json``: what a bundle is, and the hash of every file in it."""

import dataclasses
import hashlib
import json
import types
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
RELATIONS = "relations.onnx"
ENCODER = "encoder.onnx"
TOKENIZER = "tokenizer.json"
WORDS = "words"

Task = Literal["ner", "parse"]
Kind = Literal["crf", "softmax", "biaffine", "labeller"]
KINDS: dict[str, tuple[str, ...]] = {"ner": ("crf", "softmax"), "parse": ("biaffine", "labeller")}

T = TypeVar("T")


class BundleError(ValueError):
    """A bundle cannot be used; the message names the file or field, what is wrong and what to do."""


@dataclass(frozen=True)
class FileEntry:
    """One file: its SHA-256 in hex, and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class WordSettings:
    """A word's features: the sizes of its vector and of its character features."""

    vector_size: int
    character_size: int


@dataclass(frozen=True)
class EncoderSettings:
    """The encoder in front of a teacher: features of ``size`` values from windows of ``max_pieces``."""

    name: str
    layers: tuple[int, ...]
    size: int
    max_pieces: int
    finetuned: bool


@dataclass(frozen=True)
class CorpusName:
    """The corpus that the scores were measured on; ``digest`` is over its words and labels."""

    name: str
    digest: str


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from. ``versions`` are of the packages that trained and exported it."""

    recipe: str
    objective: str
    teacher: str | None
    seed: int | None
    date: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """All that is known about a bundle.

    ``labels`` are BIOES tags for entities and relations for trees; ``relative_labels`` the closed label set
    of a sequence labeller. ``parameters`` counts every weight, frozen word vectors and an encoder included,
    ``trainable_parameters`` those that training changed. ``scores`` are by split and metric.
    """

    format_version: int
    name: str
    task: Task
    role: Literal["teacher", "student"]
    kind: Kind
    language: str
    labels: tuple[str, ...]
    relative_labels: tuple[tuple[int, str], ...]
    words: WordSettings
    encoder: EncoderSettings | None
    parameters: int
    trainable_parameters: int
    scores: dict[str, dict[str, float]]
    corpus: CorpusName | None
    provenance: Provenance
    files: dict[str, FileEntry]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks ``manifest.json``; the files it lists are checked by `verify_files`.

    Raises:
        BundleError: there is no manifest, it has another format version, or a field is wrong.
    """
    path = folder / MANIFEST
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file; python -m export writes bundles") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, too long a number; nested too deep
        raise BundleError(f"{path}: not JSON: {error}; export the bundle again") from error
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if isinstance(version, bool) or version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version is {version!r}, and this code reads {FORMAT_VERSION}; "
            "export the bundle again, or run the version that wrote it"
        )
    try:
        manifest = _checked(Manifest, fields, "")
        _check_fields(manifest)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    return manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compares every file of a bundle with its manifest, byte for byte.

    Raises:
        BundleError: a file is missing, of another size, changed, not a plain file, or not listed.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{path}: leads out of the bundle; export it again")
        if not path.is_file():
            raise BundleError(f"{path}: missing, though {MANIFEST} lists it; export or copy the bundle again")
        found = describe_file(path)
        if found.size != entry.size:
            raise BundleError(
                f"{path}: {found.size} bytes, {MANIFEST} says {entry.size}; export or copy the bundle again"
            )
        if found.sha256 != entry.sha256:
            raise BundleError(
                f"{path}: SHA-256 is {found.sha256}, {MANIFEST} says {entry.sha256}; "
                "the file was changed: export or copy the bundle again"
            )
    known = {MANIFEST, *manifest.files}
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in known:
            raise BundleError(f"{path}: not listed in {MANIFEST}; remove it or export the bundle again")


def describe_file(path: Path) -> FileEntry:
    """The hash and the size of a file on disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(digest, file.tell())


def _check_fields(manifest: Manifest) -> None:
    """What types do not say."""
    if manifest.kind not in KINDS[manifest.task]:
        raise BundleError(f"kind: {manifest.kind!r} is not one of {KINDS[manifest.task]}")
    for field, labels in (("labels", manifest.labels), ("relative_labels", manifest.relative_labels)):
        if len(set(labels)) != len(labels):
            raise BundleError(f"{field}: a label is there twice")
    counts = {"parameters": manifest.parameters, "trainable_parameters": manifest.trainable_parameters}
    counts |= {f"files.{name}.size": entry.size for name, entry in manifest.files.items()}
    for field, count in counts.items():
        if count < 0:
            raise BundleError(f"{field}: {count} is negative")
    if not manifest.labels:
        raise BundleError("labels: none")
    if bool(manifest.relative_labels) != (manifest.kind == "labeller"):
        count = len(manifest.relative_labels)
        raise BundleError(f"relative_labels: {count} of them do not fit kind {manifest.kind!r}")
    if unknown := {relation for _, relation in manifest.relative_labels} - set(manifest.labels):
        raise BundleError(f"relative_labels: {sorted(unknown)[0]!r} is not among the labels")
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name or "\\" in name or "\0" in name:
            raise BundleError(f"files: {name!r} is not a path inside the bundle")
        if name == MANIFEST:
            raise BundleError(f"files: {MANIFEST} cannot list itself")
    needed = [MODEL, f"{WORDS}/settings.json"]
    needed += [RELATIONS] if manifest.kind == "biaffine" else []
    needed += [ENCODER, TOKENIZER] if manifest.encoder else []
    for name in needed:
        if name not in manifest.files:
            raise BundleError(f"files: {name} is not listed, and kind {manifest.kind!r} needs it")


def _checked(cls: type[T], value: object, where: str) -> T:
    """A dataclass from JSON: every field there, of its type, and no other."""
    if not isinstance(value, dict):
        raise BundleError(f"{where or 'the manifest'}: expected an object, found {_shown(value)}")
    hints = get_type_hints(cls)
    prefix = f"{where}." if where else ""
    for name in hints.keys() - value.keys():
        raise BundleError(f"{prefix}{name}: missing")
    for name in value.keys() - hints.keys():
        raise BundleError(f"{prefix}{name}: unknown field")
    return cls(**{name: _value(hint, value[name], f"{prefix}{name}") for name, hint in hints.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # X | None
        return None if value is None else _value(arguments[0], value, where)
    if origin is Literal:
        if value not in arguments:
            raise BundleError(f"{where}: expected one of {', '.join(arguments)}, found {_shown(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise BundleError(f"{where}: expected a list, found {_shown(value)}")
        if arguments[-1] is Ellipsis:
            return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(value) != len(arguments):
            raise BundleError(f"{where}: expected {len(arguments)} values, found {len(value)}")
        return tuple(_value(h, item, where) for h, item in zip(arguments, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise BundleError(f"{where}: expected an object, found {_shown(value)}")
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _checked(hint, value, where)  # type: ignore[arg-type]
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise BundleError(f"{where}: expected {hint.__name__}, found {_shown(value)}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
