"""What is known of one request, for its log line, the metrics, its span and its header `Server-Timing`."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

_KEY = "serve.request_summary"


@dataclass(slots=True)
class RequestSummary:
    """`code` is that of the problem that answered the request.

    `stages` are seconds by part of the request's time: read (body and JSON), segment (tokens of raw texts),
    queue (waiting), engine (the model), write (making the answer).

    `path` is the route's, which holds nothing that a user wrote; `failure` is the type of an unexpected
    exception.
    """

    id: str = "-"
    method: str = ""
    path: str = "other"
    client: str | None = None
    began: float = field(default_factory=perf_counter)
    key: str | None = None
    model: str | None = None
    version: str | None = None
    items: int = 0
    sentences: int = 0
    tokens: int = 0
    code: str | None = None
    failure: str | None = None
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    def server_timing(self) -> str:
        """The header `Server-Timing` (https://www.w3.org/TR/server-timing/): milliseconds of each stage."""
        return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in self.stages.items())

    def model_and_sizes(self) -> dict[str, Any]:
        """What is known once a model was chosen."""
        names = ("model", "version", "items", "sentences", "tokens")
        return {name: getattr(self, name) for name in names}

    def put_into(self, scope: MutableMapping[str, Any]) -> None:
        """Makes this the summary of the request of a scope."""
        scope[_KEY] = self


def summary_of(scope: MutableMapping[str, Any]) -> RequestSummary:
    """The summary of a request; a new one where there is no request log."""
    summary: RequestSummary = scope.setdefault(_KEY, RequestSummary())
    return summary
