"""ONNX Runtime sessions: the provider that was asked for, no telemetry, no spinning.

Importing this module opens nothing: sessions are made in the process that uses them, after any fork.
"""

import logging
import os
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from bundle.manifest import BundleError

logger = logging.getLogger(__name__)

CPU = ("CPUExecutionProvider",)

Array = NDArray[Any]


class Session:
    """A graph that is ready to run; safe for use by several threads."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs: dict[str, Sequence[int | str]] = {i.name: i.shape for i in session.get_inputs()}
        self.outputs: tuple[str, ...] = tuple(output.name for output in session.get_outputs())
        self.providers: tuple[str, ...] = tuple(session.get_providers())

    def run(self, **feeds: Array) -> dict[str, Array]:
        """All outputs by name."""
        return dict(zip(self.outputs, self._session.run(self.outputs, feeds), strict=True))


def open_session(
    path: Path,
    *,
    threads: int = 1,
    providers: Sequence[str] = CPU,
    allow_fallback: bool = False,
) -> Session:
    """Opens a graph on the first of ``providers``.

    Args:
        threads: of one run, within operators.
        allow_fallback: run on the CPU, and say so in the log, where the first provider does not work.

    Raises:
        BundleError: the graph cannot be read, or the provider is not there or does not start.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if not providers:
        raise ValueError("providers: none; expected at least CPUExecutionProvider")
    ort = _onnxruntime()
    wanted = providers[0]
    available = ort.get_available_providers()
    if wanted not in available:
        _fall_back(f"{wanted} is not in this onnxruntime; it has {', '.join(available)}", allow_fallback)
        providers = CPU
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that spins takes a core from another worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # onnxruntime raises a different class for each of its status codes
        raise BundleError(f"{path}: onnxruntime {ort.__version__} cannot open it: {error}") from error
    used = session.get_providers()
    if used[0] != providers[0]:
        _fall_back(f"{path}: asked for {providers[0]}, onnxruntime uses {used[0]}", allow_fallback)
    return Session(session)


def _fall_back(reason: str, allowed: bool) -> None:
    if not allowed:
        raise BundleError(f"{reason}. Install what the provider needs, or ask for {CPU[0]}")
    logger.warning("%s; falling back to %s", reason, CPU[0])


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
            "exactly one: pip uninstall onnxruntime onnxruntime-gpu, then pip install one of them"
        )


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


__all__ = ["CPU", "Session", "check_installed", "open_session"]
