"""Before any measurement: is it the intended model that answers, and are its answers possible at all?"""

from collections.abc import Sequence
from typing import Any

from loadtest.server import Server
from loadtest.systems import Bundle


class CheckError(RuntimeError):
    """The server answers, but not what was asked for; the message says what was wrong."""


def check_model(server: Server, bundle: Bundle) -> dict[str, Any]:
    """The server's own settings, as /info gives them.

    Raises:
        CheckError: it serves other bundles, or one of another manifest under the same name.
    """
    info = server.get("/info")
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


def check_answers(server: Server, bundle: Bundle, sentences: Sequence[list[str]]) -> str:
    """Sends one batch and checks the answer; returns a line about it, such as "41 entities in 32 sentences".

    Raises:
        CheckError: another model answers, results are missing, tokens were changed, an entity lies outside
            its sentence, or heads are no tree with one root.
    """
    path = f"/{bundle.task}"
    answer = server.post(path, {"sentences": sentences})
    if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
        raise CheckError(f"{path}: the answer has no list of results")
    if (model := answer.get("model")) != bundle.served_as:
        raise CheckError(f"{path}: expected the model {bundle.served_as!r}, {model!r} answered")
    results = answer["results"]
    if len(results) != len(sentences):
        raise CheckError(f"{path}: {len(sentences)} sentences sent, {len(results)} results came back")
    count = 0
    for position, (result, sent) in enumerate(zip(results, sentences, strict=True), start=1):
        try:
            if (tokens := result["tokens"]) != sent:
                raise CheckError(f"its tokens are not those sent ({len(sent)} sent, {len(tokens)} came back)")
            count += _entities(result) if bundle.task == "ner" else _tree(result)
        except CheckError as error:
            raise CheckError(f"{path}: result {position}: {error}") from None
        except (KeyError, TypeError) as error:
            raise CheckError(
                f"{path}: result {position}: field {error} is missing or of a wrong type"
            ) from error
    return f"{count} {'entities' if bundle.task == 'ner' else 'arcs'} in {len(sentences)} sentences"


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
