"""What can be set: by environment variables `SERVE_…`, and by `python -m serve`'s options over them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Count = Annotated[int, Field(ge=1)]


class Limits(BaseModel):
    """The most that one request may ask for; beyond it the answer is 413. `/info` shows them."""

    model_config = ConfigDict(frozen=True)

    body_bytes: Count = Field(default=1 << 20, description="Bytes of a request's body.")
    items: Count = Field(default=256, description="Texts, or sentences of tokens, in a request.")
    text_characters: Count = Field(default=100_000, description="Code points of one text.")
    sentence_tokens: Count = Field(
        default=512,
        description="Tokens of one sentence. A longer sentence of tokens is refused; a longer one that was "
        "found in raw text is cut, and the result's `cuts` says where.",
    )
    token_characters: Count = Field(
        default=1000,
        description="Code points of one given token: an unknown word costs time for each of them.",
    )
    request_tokens: Count = Field(default=32_768, description="Tokens of a whole request.")


class Settings(BaseSettings):
    """The server's settings. A limit's variable is named `SERVE_LIMITS__ITEMS` and so on."""

    model_config = SettingsConfigDict(env_prefix="SERVE_", env_nested_delimiter="__", frozen=True)

    bundles: Path = Field(
        default=Path("bundles"), description="Folder whose sub-folders with a manifest.json are served."
    )
    device: Literal["cpu", "cuda", "tensorrt"] = Field(default="cpu", description="Where the models run.")
    threads: Count = Field(default=1, description="Threads that one model run may use, in each worker.")
    limits: Limits = Limits()

    host: str = Field(default="127.0.0.1", description="Address that `python -m serve` listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that `python -m serve` listens on.")
    workers: Count = Field(default=1, description="Processes of `python -m serve`; each loads every bundle.")
    graceful_seconds: Count = Field(
        default=30, description="Time for running requests to end when the server stops."
    )
