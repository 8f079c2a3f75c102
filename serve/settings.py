"""What can be set: by environment variables `SERVE_…`, and by `python -m serve`'s options over them."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from structural_kd.annotate.records import SENTENCE_TOKENS

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
SecondsOrNone = Annotated[float, Field(ge=0, le=86_400)]


class Limits(BaseModel):
    """The most that one request may ask for; beyond it the answer is 413. `/info` shows them."""

    model_config = ConfigDict(frozen=True)

    body_bytes: Count = Field(default=1 << 20, description="Bytes of a request's body.")
    items: Count = Field(default=256, description="Texts, or sentences of tokens, in a request.")
    text_characters: Count = Field(default=100_000, description="Code points of one text.")
    sentence_tokens: Count = Field(
        default=SENTENCE_TOKENS,
        description="Tokens of one sentence. A longer sentence of tokens is refused; a longer one that was "
        "found in raw text is cut, and the result's `cuts` says where.",
    )
    token_characters: Count = Field(
        default=1000,
        description="Code points of one given token: an unknown word costs time for each of them.",
    )
    request_tokens: Count = Field(default=32_768, description="Tokens of a whole request.")
    line_bytes: Count = Field(default=1 << 20, description="Bytes of one line of a stream.")


class Settings(BaseSettings):
    """The server's settings. A limit's variable is named `SERVE_LIMITS__ITEMS` and so on."""

    model_config = SettingsConfigDict(env_prefix="SERVE_", env_nested_delimiter="__", frozen=True)

    bundles: Path = Field(
        default=Path("bundles"), description="Folder whose sub-folders with a manifest.json are served."
    )
    defaults: dict[str, str] = Field(
        default={},
        description="The model that answers requests of a task that name none: SERVE_DEFAULTS__NER=name. "
        "Else it is the first student.",
    )
    watch_seconds: SecondsOrNone = Field(
        default=0,
        description="How often to look for new, changed and removed bundles; 0 only looks on SIGHUP.",
    )
    device: Literal["cpu", "cuda", "tensorrt"] = Field(default="cpu", description="Where the models run.")
    limits: Limits = Limits()

    host: str = Field(default="127.0.0.1", description="Address that `python -m serve` listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that `python -m serve` listens on.")
    workers: Count | None = Field(
        default=None,
        description="Processes of `python -m serve`; each loads every bundle. Unset: one for each core of "
        "the CPU quota.",
    )
    threads: Count | None = Field(
        default=None,
        description="Threads that one run of a model may use, in each worker. Unset: the cores that each "
        "worker has for itself.",
    )

    max_batch_tokens: Count = Field(
        default=2048, description="Most tokens in one run of a model; beyond it a CPU gains nothing."
    )
    max_queue_sentences: Count = Field(
        default=1024, description="Most sentences that wait for a model, in each worker; beyond it is 429."
    )
    max_queue_tokens: Count = Field(
        default=4096, description="Most tokens that wait for a model, in each worker; beyond it is 429."
    )

    request_seconds: Seconds = Field(
        default=30, description="Time for a request; a client shortens it with `X-Request-Timeout: 0.5`."
    )
    body_seconds: Seconds = Field(default=20, description="Time for a request's body to arrive.")
    head_seconds: Seconds = Field(
        default=10, description="Time for a request's headers to arrive, which have at most 64 KiB."
    )
    keep_alive_seconds: Seconds = Field(
        default=75, description="Time after which an idle connection is closed."
    )
    stream_idle_seconds: Seconds = Field(
        default=60,
        description="Time after which a stream ends whose client sends nothing, and any connection whose "
        "client takes nothing of its answer.",
    )
    drain_seconds: SecondsOrNone = Field(
        default=1,
        description="Time after SIGTERM in which new connections are still served, with /readyz at 503, so "
        "that a load balancer notices.",
    )
    graceful_seconds: Count = Field(
        default=30, description="Time after that for running requests to end when the server stops."
    )

    api_keys: Path | None = Field(
        default=None, description="File of API keys, one `key` or `name: key` a line. Unset: no key is asked."
    )
    access_log: bool = Field(default=False, description="Whether each request is logged, without its text.")
    log_format: Literal["json", "text"] = Field(default="json", description="How log lines look.")
    tracing: bool = Field(
        default=False, description="Whether OpenTelemetry spans are sent; needs the extra `tracing`."
    )

    @model_validator(mode="after")
    def _a_sentence_fits_in_a_batch(self) -> Self:
        if self.limits.sentence_tokens > self.max_batch_tokens:
            raise ValueError(
                f"limits.sentence_tokens is {self.limits.sentence_tokens}, more than max_batch_tokens, "
                f"{self.max_batch_tokens}: such a sentence could never run"
            )
        return self
