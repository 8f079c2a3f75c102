"""What requests and answers look like."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from serve.settings import Limits

NER_EXAMPLE: dict[str, Any] = {
    "model": "ner",
    "results": [
        {
            "tokens": ["Bye", "Ada", "."],
            "entities": [
                {"label": "PER", "start": 1, "end": 2, "start_char": 4, "end_char": 7, "text": "Ada",
                 "score": 0.98},
            ],
        }
    ],
}  # fmt: skip
PARSE_EXAMPLE: dict[str, Any] = {
    "model": "parse",
    "results": [
        {
            "tokens": ["She", "sleeps", "."],
            "heads": [2, 0, 2],
            "deprels": ["nsubj", "root", "punct"],
            "scores": [0.99, 0.98, 0.99],
            "sentences": [{"start": 0, "end": 3}],
        }
    ],
}

Token = Annotated[str, Field(min_length=1)]
Tokens = Annotated[list[Token], Field(fail_fast=True)]


class AnnotationRequest(BaseModel):
    """Raw texts, or sentences that are tokens already: exactly one of the two."""

    model_config = ConfigDict(
        extra="forbid",
    )

    texts: Annotated[list[str], Field(min_length=1, fail_fast=True)] | None = Field(
        None,
        description="Raw texts, of one sentence or several. The server finds the tokens and the sentences.",
    )
    sentences: Annotated[list[Tokens], Field(min_length=1, fail_fast=True)] | None = Field(
        None,
        description="Sentences, each a list of its tokens. A token has no white space at its ends, "
        "and no tab and no line break inside.",
    )
    model: str | None = Field(
        None,
        max_length=200,
        description="The name or id of a model of `/models`; by default the task's default there.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.texts is None) == (self.sentences is None):
            raise PydanticCustomError("one_kind", "Give exactly one of 'texts' and 'sentences'")
        return self


class Entity(BaseModel):
    """A named entity."""

    label: str
    start: int = Field(description="Its first token, an index into `tokens`.")
    end: int = Field(description="The token after its last one.")
    start_char: int | None = Field(
        description="Its first character, in Unicode code points of the text as sent; null for given tokens."
    )
    end_char: int | None = Field(description="The character after its last one; null for given tokens.")
    text: str = Field(description="Its part of the text; for given tokens, these joined by a space.")
    score: float = Field(description="The model's probability of this entity.")


class TokenRange(BaseModel):
    """Some of an item's tokens."""

    start: int
    end: int = Field(description="The token after the last one.")


Cuts = Annotated[
    list[int],
    Field(
        default_factory=list,
        description="Only where a sentence found in the text was longer than the limit: the tokens before "
        "which it was cut. Nothing reaches across a cut.",
        exclude_if=lambda cuts: not cuts,
    ),
]


class NerResult(BaseModel):
    """The entities of one text or sentence."""

    tokens: list[str]
    entities: list[Entity]
    cuts: Cuts


class ParseResult(BaseModel):
    """The dependency trees of one text or sentence: one tree for each of its `sentences`."""

    tokens: list[str]
    heads: list[int] = Field(
        description="The head of each token: 0 for the root of a sentence, else 1 + an index into `tokens`."
    )
    deprels: list[str] = Field(description="The relation of each token to its head.")
    scores: list[float] = Field(description="The model's probability of each token's head and relation.")
    sentences: list[TokenRange]
    cuts: Cuts


class NerResponse(BaseModel):
    """One result for each item of the request, in order."""

    model_config = ConfigDict(json_schema_extra={"examples": [NER_EXAMPLE]})

    model: str = Field(description="The model that answered.")
    results: list[NerResult]


class ParseResponse(BaseModel):
    """One result for each item of the request, in order."""

    model_config = ConfigDict(json_schema_extra={"examples": [PARSE_EXAMPLE]})

    model: str = Field(description="The model that answered.")
    results: list[ParseResult]


class StreamLine(BaseModel):
    """A line of a stream: one of `text`, `tokens` and `sentences`. Other keys come back in its result."""

    model_config = ConfigDict(extra="allow")

    text: str | None = Field(None, description="A raw text, of one sentence or several.")
    tokens: list[str] | None = Field(None, description="The tokens of a sentence.")
    sentences: list[list[str]] | None = Field(None, description="Several sentences of tokens.")


class LineFault(BaseModel):
    """Why a line of a stream has no result."""

    line: int = Field(description="The line, counted from 1.")
    code: str = Field(description="The kind of fault as a stable word to branch on.")
    message: str


class StreamFault(BaseModel):
    """What a stream answers instead of a result."""

    error: LineFault


class ModelInfo(BaseModel):
    """A bundle that is served."""

    id: str = Field(description="What a request gives as `model` to have exactly this one.")
    name: str = Field(description="Its folder's name; as `model` it means the newest version of that name.")
    version: str = Field(description="Its version's folder, or the beginning of its manifest's digest.")
    task: str
    role: str
    default: bool = Field(description="Whether it answers requests of its task that name no model.")
    language: str
    segmenter: str = Field(
        description="The language whose rules find tokens in raw text; `xx` is the fallback for a language "
        "without rules of its own."
    )
    labels: list[str] = Field(description="The labels of entities, or relations, that answers may hold.")
    scores: Any = Field(
        description="What it reached, as its bundle says, in percent by split and metric: F1 or attachment, "
        "and for a student what it has `kept` of its teacher's score and its `agreement` with the teacher."
    )
    provider: str = Field(description="ONNX Runtime's execution provider in use.")


class RefusedModel(BaseModel):
    """A bundle that is in the folder and not in use; what it would have replaced goes on."""

    id: str
    reason: str = Field(description="Why it does not load.")


class ModelList(BaseModel):
    """All that is in the folder of bundles."""

    models: list[ModelInfo]
    refused: list[RefusedModel]


class QueueBounds(BaseModel):
    """The most that may run together and wait, for each model in each worker; beyond it the answer is 429."""

    max_batch_tokens: int
    max_queue_sentences: int
    max_queue_tokens: int


class Times(BaseModel):
    """Seconds after which the server gives up."""

    request_seconds: float = Field(description="A request as a whole; also the most of `X-Request-Timeout`.")
    body_seconds: float = Field(description="A request's body to arrive.")
    stream_idle_seconds: float = Field(description="A stream on which nothing comes and nothing is read.")


class Info(BaseModel):
    """What this server is and serves."""

    version: str
    models: list[ModelInfo]
    limits: Limits
    queue: QueueBounds
    times: Times


class Status(BaseModel):
    """A server's state, in a word."""

    status: str
