"""Before any measurement: is it the intended model that answers, and are its answers possible at all?"""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from loadtest.bundles import Bundle
from loadtest.sentences import Input, request_body
from loadtest.server import DIRECT

PATIENCE = 120  # seconds for an answer


class CheckError(RuntimeError):
    """The server answers, but not what was asked for; the message says what was wrong."""


def check_model(url: str, bundle: Bundle) -> dict[str, Any]:
    """The server's own settings, as /info tells them, once it is sure that it serves this bundle alone.

    Raises CheckError where it serves others, or a bundle of another manifest under the same name.
    """
    info = _json(urllib.request.Request(f"{url}/info"))
    try:
        served = [(model["name"], model["task"], model["version"]) for model in info["models"]]
        settings = {**info["queue"], **info["times"]}
    except (KeyError, TypeError) as error:
        raise CheckError(f"/info: field {error} is missing or of a wrong type") from error
    if [each[:2] for each in served] != [(bundle.served_as, bundle.task)]:
        raise CheckError(f"/info: expected {bundle.served_as!r} for {bundle.task} alone, found {served}")
    version = served[0][2]
    if not isinstance(version, str) or not version or not bundle.digest.startswith(version):
        raise CheckError(f"/info: {bundle.served_as} has the version {version!r}, not {bundle.digest[:12]!r}")
    return settings


def check_answers(url: str, bundle: Bundle, batch: Sequence[list[str]], kind: Input) -> str:
    """Send one batch and check the answer; returns a line about it, such as "41 entities in 32 sentences".

    Raises CheckError where another model answers, results are missing, tokens were changed, an entity lies
    outside its sentence, or heads are no tree with one root.
    """
    headers = {"Content-Type": "application/json"}
    body = request_body(batch, kind)
    answer = _json(urllib.request.Request(f"{url}/{bundle.task}", data=body, headers=headers))
    if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
        raise CheckError(f"/{bundle.task}: the answer has no list of results")
    if (model := answer.get("model")) != bundle.served_as:
        raise CheckError(f"/{bundle.task}: expected the model {bundle.served_as!r}, {model!r} answered")
    results = answer["results"]
    if len(results) != len(batch):
        raise CheckError(f"/{bundle.task}: {len(batch)} sentences sent, {len(results)} results came back")
    count = 0
    for position, (result, sent) in enumerate(zip(results, batch, strict=True), start=1):
        try:
            tokens = result["tokens"]
            if kind == "tokens" and tokens != sent:
                raise CheckError(f"its tokens are not those sent ({len(sent)} sent, {len(tokens)} came back)")
            count += _entities(result) if bundle.task == "ner" else _tree(result)
        except CheckError as error:
            raise CheckError(f"/{bundle.task}: result {position}: {error}") from None
        except (KeyError, TypeError) as error:
            raise CheckError(
                f"/{bundle.task}: result {position}: field {error} is missing or of a wrong type"
            ) from error
    return f"{count} {'entities' if bundle.task == 'ner' else 'arcs'} in {len(batch)} sentences"


def _json(request: urllib.request.Request) -> Any:
    url = request.full_url
    try:
        with DIRECT.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        reason = error.read(500).decode("utf-8", "replace")
        raise CheckError(f"{url}: status {error.code}: {reason}") from error
    except (OSError, ValueError) as error:
        raise CheckError(f"{url}: no usable answer: {error}") from error


def _entities(result: dict[str, Any]) -> int:
    length = len(result["tokens"])
    for entity in result["entities"]:
        if not 0 <= entity["start"] < entity["end"] <= length:
            raise CheckError(f"the entity {entity['start']}–{entity['end']} lies outside its {length} tokens")
    return len(result["entities"])


def _tree(result: dict[str, Any]) -> int:
    heads: list[int] = result["heads"]
    length = len(result["tokens"])
    if len(heads) != length or len(result["deprels"]) != length:
        raise CheckError(f"{length} tokens, {len(heads)} heads, {len(result['deprels'])} relations")
    if not all(0 <= head <= length for head in heads):
        raise CheckError(f"a head lies outside the sentence of {length} tokens")
    if length and heads.count(0) != 1:
        raise CheckError(f"{heads.count(0)} roots instead of one")
    for start in range(1, length + 1):
        node, steps = start, 0
        while node and steps <= length:
            node, steps = heads[node - 1], steps + 1
        if node:
            raise CheckError(f"the heads of token {start} run in a circle")
    return length
