"""ONNX Runtime sessions: the provider that was asked for, no telemetry, no spinning.

Importing this module opens nothing: sessions are made in the process that uses them, after any fork.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from numpy.typing import NDArray

from structural_kd.manifest import BundleError, FileEntry, compare_file, describe_bytes

CPU = ("CPUExecutionProvider",)

DEVICES: Mapping[str, tuple[str, ...]] = {
    "cpu": CPU,
    "cuda": ("CUDAExecutionProvider", *CPU),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", *CPU),
}
"""Providers of each kind of device, the one that is meant first."""

OTHER_PROVIDER = f"Install what the provider needs, or ask for {CPU[0]}"

Array = NDArray[Any]
Shape = Sequence[int | str | None]
"""A size, the name of one that is free, or None."""


class Value(NamedTuple):
    """An input or output of a graph: ONNX Runtime's name of its type, and its rank."""

    type: str
    rank: int


@dataclass(frozen=True)
class Signature:
    """What code feeds to a graph and reads from it; ``optional`` inputs may be missing."""

    inputs: dict[str, Value]
    outputs: dict[str, Value]
    optional: frozenset[str] = frozenset()


class Session:
    """A graph that is ready to run; safe for use by several threads."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs: dict[str, Shape] = {value.name: value.shape for value in session.get_inputs()}
        self.output_shapes: dict[str, Shape] = {value.name: value.shape for value in session.get_outputs()}
        self.outputs: tuple[str, ...] = tuple(self.output_shapes)
        self.providers: tuple[str, ...] = tuple(session.get_providers())

    def run(self, **feeds: Array) -> dict[str, Array]:
        """All outputs by name."""
        return dict(zip(self.outputs, self._session.run(self.outputs, feeds), strict=True))


def open_session(
    path: Path,
    *,
    entry: FileEntry | None = None,
    signature: Signature | None = None,
    threads: int = 1,
    providers: Sequence[str] = CPU,
) -> Session:
    """Opens a graph on the first of ``providers``; the others run what that one cannot.

    The file is read once: what is compared with ``entry`` is what is opened. Weights in other files, which
    ONNX allows, are refused.

    Args:
        entry: the hash and size that the file must have.
        signature: inputs and outputs that the graph must have.
        threads: of one run, within operators.

    Raises:
        BundleError: the graph cannot be read or is another one, a provider is unknown, or the first is not
            there or does not start.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if not providers:
        raise ValueError("providers: none; expected at least CPUExecutionProvider")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    if entry is not None:
        compare_file(path, describe_bytes(content), entry)
    ort = _onnxruntime()
    session = _start(ort, path, content, _usable(ort, providers), threads)
    if signature is not None:
        _check_signature(path, session, signature)
    return Session(session)


def _usable(ort: ModuleType, providers: Sequence[str]) -> list[str]:
    """The providers that this onnxruntime has; the first must be among them."""
    known, available = ort.get_all_providers(), ort.get_available_providers()
    for name in providers:
        if name not in known:
            raise BundleError(f"{name}: no provider of onnxruntime; it knows {', '.join(known)}")
    if providers[0] not in available:
        reason = f"{providers[0]} is not in this onnxruntime; it has {', '.join(available)}"
        raise BundleError(f"{reason}. {OTHER_PROVIDER}")
    return [name for name in providers if name in available]


def _start(ort: ModuleType, path: Path, content: bytes, providers: list[str], threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that spins takes a core from another worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # No folder, so that no file can be found in it: else weights could be read from the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path))
    options.log_severity_level = 3
    first = providers[0]
    try:
        # Its own fallback is silent, also in the middle of a run.
        session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime raises a different class for each of its status codes
        remedy = "Export the bundle again" if first == CPU[0] else OTHER_PROVIDER
        raise BundleError(
            f"{path}: onnxruntime {ort.__version__} cannot open it on {first}: {error}. {remedy}"
        ) from error
    used = session.get_providers()[0]
    if used != first:
        raise BundleError(f"{path}: asked for {first}, onnxruntime uses {used}. {OTHER_PROVIDER}")
    return session


def _check_signature(path: Path, session: Any, signature: Signature) -> None:
    """Refuses a graph that lacks an input or output, has an unknown input, or one of another type or rank."""
    inputs = {value.name: Value(value.type, len(value.shape)) for value in session.get_inputs()}
    outputs = {value.name: Value(value.type, len(value.shape)) for value in session.get_outputs()}
    for what, found, expected, optional in (
        ("input", inputs, signature.inputs, signature.optional),
        ("output", outputs, signature.outputs, frozenset[str]()),
    ):
        for name, value in expected.items():
            if name not in found and name not in optional:
                raise BundleError(f"{path}: has no {what} {name!r}; export the bundle again")
            if (other := found.get(name, value)) != value:
                raise BundleError(
                    f"{path}: {what} {name!r}: expected {value.type} of rank {value.rank}, found "
                    f"{other.type} of rank {other.rank}; export the bundle again"
                )
    if unknown := sorted(inputs.keys() - signature.inputs.keys()):
        raise BundleError(f"{path}: input {unknown[0]!r} is unknown; export the bundle again")


@cache
def _onnxruntime() -> ModuleType:
    """onnxruntime, imported with its telemetry off, if exactly one of its two packages is installed."""
    check_installed([name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)])
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module


def check_installed(packages: Sequence[str]) -> None:
    """Refuses to run with none or both of onnxruntime's packages: they overwrite each other's files."""
    if len(packages) != 1:
        raise BundleError(
            f"{' and '.join(packages) or 'neither onnxruntime nor onnxruntime-gpu'} installed, expected "
            "exactly one: pip uninstall onnxruntime onnxruntime-gpu, then pip install 'structural-kd[cpu]' "
            "or 'structural-kd[gpu]'"
        )


def _is_installed(package: str) -> bool:
    from importlib import metadata  # 30 ms, which other uses of this module need not take

    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True
