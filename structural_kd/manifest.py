"""``manifest.json``: what a bundle is, and the hash of every file in it."""

import dataclasses
import hashlib
import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from annotated_types import Interval

from structural_kd.strict_json import parse, validated

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
MODEL = "model.onnx"
RELATIONS = "relations.onnx"
ENCODER = "encoder.onnx"
TOKENIZER = "tokenizer.json"
WORDS = "words"

LARGEST_MANIFEST = 2**24
PATH = re.compile(r"(?!.*(^|/)\.)[A-Za-z0-9._-]{1,100}(/[A-Za-z0-9._-]{1,100}){0,3}")
"""A file's path inside a bundle: plain on every system, and no part of it hidden or a way up."""

Task = Literal["ner", "parse"]
Kind = Literal["crf", "softmax", "biaffine", "labeller"]
Precision = Literal["fp32", "int8"]
KINDS: dict[str, tuple[str, ...]] = {"ner": ("crf", "softmax"), "parse": ("biaffine", "labeller")}

LARGEST_INTEGER = 2**63 - 1
Integer = Annotated[int, Interval(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
Count = Annotated[int, Interval(ge=0, le=LARGEST_INTEGER)]
Size = Annotated[int, Interval(ge=1, le=LARGEST_INTEGER)]


class BundleError(ValueError):
    """A bundle cannot be used; the message names the file or field, what is wrong and what to do."""


@dataclass(frozen=True)
class FileEntry:
    """One file: its SHA-256 in hex, and its size in bytes."""

    sha256: str
    size: Count


@dataclass(frozen=True)
class WordSettings:
    """A word's features: the sizes of its vector, of its character features, and of both projected."""

    vector_size: Count
    character_size: Count
    projected_size: Count


@dataclass(frozen=True)
class EncoderFeatures:
    """The encoder in front of a teacher: features of ``size`` values from windows of ``max_pieces``."""

    name: str
    layers: tuple[Integer, ...]
    size: Size
    max_pieces: Size
    finetuned: bool


@dataclass(frozen=True)
class Quantisation:
    """What int8 costs: points of each split and metric that fp32 has more, and the most that was allowed."""

    loss: dict[str, dict[str, float]]
    bound: float


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
    seed: Integer | None
    date: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """All that is known about a bundle.

    ``labels`` are BIOES tags for entities and relations for trees; ``relative_labels`` the closed label set
    of a sequence labeller. ``parameters`` counts every weight, frozen word vectors and an encoder included,
    ``trainable_parameters`` those that training changed. ``scores`` are by split and metric, in percent, of
    the model as it was trained: beside F1 or attachment the ``agreement`` with its teacher, the score on
    ``unseen_`` words, the share that is ``kept`` of the teacher's score and of the ``gap`` to it that is
    closed, as far as they were measured; ``quantisation`` says what ``precision`` int8 takes away from them.
    ``digest`` is the SHA-256 of all the rest.
    """

    format_version: Integer
    name: str
    task: Task
    role: Literal["teacher", "student"]
    kind: Kind
    precision: Precision
    language: str
    labels: tuple[str, ...]
    relative_labels: tuple[tuple[Integer, str], ...]
    words: WordSettings
    encoder: EncoderFeatures | None
    parameters: Count
    trainable_parameters: Count
    scores: dict[str, dict[str, float]]
    quantisation: Quantisation | None
    corpus: CorpusName | None
    provenance: Provenance
    files: dict[str, FileEntry]
    digest: str = ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1) + "\n"

    def sealed(self) -> "Manifest":
        """The same with the digest of its fields: a manifest that was changed later can be told."""
        # As it will be read: 100 in a field of floats is 100.0 then.
        read = validated(Manifest, self.to_json())
        fields = dataclasses.asdict(read) | {"digest": ""}
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")
        return dataclasses.replace(self, digest=hashlib.sha256(canonical).hexdigest())


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks ``manifest.json``; the files it lists are checked by `verify_files`.

    Raises:
        BundleError: there is no manifest, it has another format version, or a field is wrong.
    """
    path = folder / MANIFEST
    content = _read_manifest_file(path)
    try:
        text = content.decode("utf-8")
        fields = parse(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, too long a number; nested too deep
        raise BundleError(f"{path}: not JSON: {error}; export the bundle again") from error
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if isinstance(version, bool) or version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version is {version!r}, and this code reads {FORMAT_VERSION}; "
            "export the bundle again, or run the version that wrote it"
        )
    try:
        manifest = validated(Manifest, text)
        _check_fields(manifest)
        if manifest.digest != manifest.sealed().digest:
            raise BundleError(
                "digest: not that of the other fields; the manifest was changed: export it again"
            )
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from None
    return manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compares every file of a bundle with its manifest, byte for byte.

    Raises:
        BundleError: a file is missing, of another size, changed, not a plain file, or not listed.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        _check_plain(folder, name)
        try:
            # Before it is read: a wrong file may be endless.
            size = path.stat().st_size
            found = describe_file(path) if size == entry.size else FileEntry("", size)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
        compare_file(path, found, entry)
    known = {MANIFEST, *manifest.files}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (path.is_symlink() or not path.is_dir()) and name not in known:
            raise BundleError(f"{path}: not listed in {MANIFEST}; remove it or export the bundle again")


def compare_file(path: Path, found: FileEntry, entry: FileEntry) -> None:
    """Raises BundleError where a file of a bundle is not as the manifest says."""
    if found.size != entry.size:
        raise BundleError(
            f"{path}: {found.size} bytes, {MANIFEST} says {entry.size}; export or copy the bundle again"
        )
    if found.sha256 != entry.sha256:
        raise BundleError(
            f"{path}: SHA-256 is {found.sha256}, {MANIFEST} says {entry.sha256}; "
            "the file was changed: export or copy the bundle again"
        )


def describe_file(path: Path) -> FileEntry:
    """The hash and the size of a file on disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(digest, file.tell())


def describe_bytes(content: bytes) -> FileEntry:
    """The hash and the size of a file's content."""
    return FileEntry(hashlib.sha256(content).hexdigest(), len(content))


def _read_manifest_file(path: Path) -> bytes:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: not a plain file; export or copy the bundle again")
        if status.st_size > LARGEST_MANIFEST:
            raise BundleError(f"{path}: {status.st_size} bytes are no manifest; export the bundle again")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{path}: no such file; python -m export writes bundles") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error


def _check_plain(folder: Path, name: str) -> None:
    """Refuses a listed file that is missing or anything else than a plain file in plain folders."""
    path = folder
    for part in PurePosixPath(name).parts:
        path /= part
        if path.is_symlink():
            raise BundleError(f"{folder / name}: leads out of the bundle; export it again")
    if not path.exists():
        raise BundleError(f"{path}: missing, though {MANIFEST} lists it; export or copy the bundle again")
    if not path.is_file():
        raise BundleError(f"{path}: not a plain file; export or copy the bundle again")


def _check_fields(manifest: Manifest) -> None:
    """What types do not say."""
    if manifest.kind not in KINDS[manifest.task]:
        raise BundleError(f"kind: {manifest.kind!r} is not one of {KINDS[manifest.task]}")
    for field, labels in (("labels", manifest.labels), ("relative_labels", manifest.relative_labels)):
        if len(set(labels)) != len(labels):
            raise BundleError(f"{field}: a label is there twice")
    if (manifest.quantisation is not None) != (manifest.precision == "int8"):
        raise BundleError(f"quantisation: does not fit precision {manifest.precision!r}")
    if not manifest.labels:
        raise BundleError("labels: none")
    if bool(manifest.relative_labels) != (manifest.kind == "labeller"):
        count = len(manifest.relative_labels)
        raise BundleError(f"relative_labels: {count} of them do not fit kind {manifest.kind!r}")
    if unknown := {relation for _, relation in manifest.relative_labels} - set(manifest.labels):
        raise BundleError(f"relative_labels: {sorted(unknown)[0]!r} is not among the labels")
    spellings: dict[str, str] = {}
    for name in manifest.files:
        if not PATH.fullmatch(name):
            raise BundleError(f"files: {name!r:.60} is not a path inside the bundle")
        if name.casefold() == MANIFEST:
            raise BundleError(f"files: {MANIFEST} cannot list itself")
        # One file, where a file system does not tell them apart.
        if (other := spellings.setdefault(name.casefold(), name)) != name:
            raise BundleError(f"files: {other} and {name} differ in case alone")
    needed = [MODEL, f"{WORDS}/settings.json"]
    needed += [RELATIONS] if manifest.kind == "biaffine" else []
    needed += [ENCODER, TOKENIZER] if manifest.encoder else []
    for name in needed:
        if name not in manifest.files:
            raise BundleError(f"files: {name} is not listed, and kind {manifest.kind!r} needs it")
