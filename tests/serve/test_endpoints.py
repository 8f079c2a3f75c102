"""What the endpoints answer, over a real socket."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from serve import schemas
from tests.serve.conftest import Serve, answer, connect, head, until
from tests.serve.fakes import FakeManifest, FakeNer, FakeParser, HeldNer, Tagged


def test_entities_of_raw_text_have_token_and_character_offsets(client: httpx.Client) -> None:
    response = client.post("/ner", json={"texts": ["so Ada  Lovelace isn't here. Bye Bob!"]})
    assert response.status_code == 200
    assert response.json() == {
        "model": "names",
        "results": [
            {
                "tokens": ["so", "Ada", "Lovelace", "is", "n't", "here", ".", "Bye", "Bob", "!"],
                "entities": [
                    {"label": "NAME", "start": 1, "end": 3, "start_char": 3, "end_char": 16,
                     "text": "Ada  Lovelace", "score": 0.5},
                    {"label": "NAME", "start": 7, "end": 9, "start_char": 29, "end_char": 36,
                     "text": "Bye Bob", "score": 0.5},
                ],
            }
        ],
    }  # fmt: skip


def test_entities_of_given_tokens_have_no_character_offsets(client: httpx.Client) -> None:
    response = client.post("/ner", json={"sentences": [["by", "Ada", "Lovelace"]], "model": "names"})
    assert response.json()["results"] == [
        {
            "tokens": ["by", "Ada", "Lovelace"],
            "entities": [
                {"label": "NAME", "start": 1, "end": 3, "start_char": None, "end_char": None,
                 "text": "Ada Lovelace", "score": 0.5}
            ],
        }
    ]  # fmt: skip


def test_heads_count_from_the_first_token_of_the_text_and_each_sentence_has_a_root(
    client: httpx.Client,
) -> None:
    response = client.post("/parse", json={"texts": ["She sleeps. He too snores."]})
    assert response.json() == {
        "model": "trees",
        "results": [
            {
                "tokens": ["She", "sleeps", ".", "He", "too", "snores", "."],
                "heads": [0, 1, 2, 0, 4, 5, 6],
                "deprels": ["root", "dep", "dep", "root", "dep", "dep", "dep"],
                "scores": [0.25] * 7,
                "sentences": [{"start": 0, "end": 3}, {"start": 3, "end": 7}],
            }
        ],
    }


@pytest.mark.parametrize("path", ["/ner", "/parse"])
@pytest.mark.parametrize(
    ("request_body", "tokens"),
    [
        ({"texts": ["", "One.", " \n", "Two. Three."]}, [[], ["One", "."], [], ["Two", ".", "Three", "."]]),
        ({"sentences": [[], ["One"], []]}, [[], ["One"], []]),
        ({"texts": [""]}, [[]]),
    ],
)
def test_every_item_has_its_result_in_order_also_an_empty_one(
    client: httpx.Client, path: str, request_body: dict[str, Any], tokens: list[list[str]]
) -> None:
    response = client.post(path, json=request_body)
    assert response.status_code == 200
    assert [result["tokens"] for result in response.json()["results"]] == tokens


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_character_offsets_index_the_text_as_sent(client: httpx.Client, texts: list[str]) -> None:
    results = client.post("/ner", json={"texts": texts}).json()["results"]
    assert len(results) == len(texts)
    for text, result in zip(texts, results, strict=True):
        for entity in result["entities"]:
            assert text[entity["start_char"] : entity["end_char"]] == entity["text"]


def test_code_points_beyond_the_first_plane_count_as_one_also_when_escaped(client: httpx.Client) -> None:
    body = '{"texts": ["\\ud83d\\ude00 \\u05d0 Ada"]}'
    response = client.post("/ner", content=body, headers={"Content-Type": "application/json"})
    (entity,) = response.json()["results"][0]["entities"]
    assert (entity["start_char"], entity["end_char"], entity["text"]) == (4, 7, "Ada")


def test_the_cuts_of_a_long_sentence_are_in_the_result(serve: Serve) -> None:
    limited = serve({"names": FakeNer(), "trees": FakeParser()}, limits={"sentence_tokens": 3})
    result = limited.post("/parse", json={"texts": ["a b c d", "e"]}).json()["results"]
    assert [item.get("cuts") for item in result] == [[3], None]
    assert result[0]["heads"] == [0, 1, 2, 0]
    assert limited.post("/ner", json={"texts": ["A B C D"]}).json()["results"][0]["cuts"] == [3]


def test_trees_as_conllu(client: httpx.Client) -> None:
    response = client.post(
        "/parse",
        json={"texts": ["She\nisn't  _.\tBye.\n\nNo", "", "x"]},
        headers={"Accept": "text/x-conllu"},
    )
    assert response.headers["content-type"] == "text/x-conllu; charset=utf-8"
    assert response.headers["vary"] == "Accept"
    assert response.text == (
        "# newdoc id = item-0\n# model = trees\n# sent_id = item-0-0\n# text = She isn't _.\n"
        "1\tShe\t_\t_\t_\t_\t0\troot\t_\t_\n"
        "2\tis\t_\t_\t_\t_\t1\tdep\t_\tSpaceAfter=No\n"
        "3\tn't\t_\t_\t_\t_\t2\tdep\t_\t_\n"
        "4\t_\t_\t_\t_\t_\t3\tdep\t_\tSpaceAfter=No\n"
        "5\t.\t_\t_\t_\t_\t4\tdep\t_\t_\n"
        "\n"
        "# sent_id = item-0-1\n# text = Bye.\n"
        "1\tBye\t_\t_\t_\t_\t0\troot\t_\tSpaceAfter=No\n"
        "2\t.\t_\t_\t_\t_\t1\tdep\t_\t_\n"
        "\n"
        "# sent_id = item-0-2\n# text = No\n"
        "1\tNo\t_\t_\t_\t_\t0\troot\t_\t_\n"
        "\n"
        "# newdoc id = item-2\n# model = trees\n# sent_id = item-2-0\n# text = x\n"
        "1\tx\t_\t_\t_\t_\t0\troot\t_\t_\n"
        "\n"
    )


def test_given_tokens_as_conllu_have_no_text_and_may_hold_spaces(client: httpx.Client) -> None:
    response = client.post(
        "/parse", json={"sentences": [["10 000", "men"]]}, headers={"Accept": "text/x-conllu"}
    )
    assert response.text == (
        "# newdoc id = item-0\n# model = trees\n# sent_id = item-0-0\n"
        "1\t10 000\t_\t_\t_\t_\t0\troot\t_\t_\n"
        "2\tmen\t_\t_\t_\t_\t1\tdep\t_\t_\n"
        "\n"
    )


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_conllu_has_ten_columns_and_its_text_is_its_forms_whatever_is_sent(
    client: httpx.Client, text: str
) -> None:
    response = client.post("/parse", json={"texts": [text]}, headers={"Accept": "text/x-conllu"})
    tokens = client.post("/parse", json={"texts": [text]}).json()["results"][0]["tokens"]
    forms: list[str] = []
    for block in response.text.split("\n\n")[:-1]:
        lines = block.split("\n")
        words = [line.split("\t") for line in lines if not line.startswith("#") or "\t" in line]
        assert [word[0] for word in words] == [str(number + 1) for number in range(len(words))]
        assert all(len(word) == 10 and "" not in word for word in words)
        said = next(line for line in lines if line.startswith("# text = ")).removeprefix("# text = ")
        assert said == "".join(word[1] + " " * (word[9] == "_") for word in words).removesuffix(" ")
        forms += [word[1] for word in words]
    assert forms == tokens


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/json, text/x-conllu", "application/json"),
        ("application/json;q=0.5, text/x-conllu", "text/x-conllu"),
        ("text/x-conllu;q=0", "application/json"),
        ("text/x-conllu, */*;q=0.1", "text/x-conllu"),
        ("text/x-conllu, */*", "text/x-conllu"),
        ("text/x-conllu;q=what", "application/json"),
    ],
)
def test_the_accept_header_chooses_the_format(client: httpx.Client, accept: str, media_type: str) -> None:
    response = client.post("/parse", json={"texts": ["a"]}, headers={"Accept": accept})
    assert response.headers["content-type"].partition(";")[0] == media_type


def test_the_documentation_page_loads_nothing_from_other_hosts(client: httpx.Client) -> None:
    page = client.get("/docs").text
    parts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert any(part.endswith(".js") for part in parts)
    for part in parts:
        assert part.startswith("/")
        assert client.get(part).status_code == 200
    assert "http" not in re.sub(r"window.location[^;]*", "", page).replace("http-equiv", "")


def test_health(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "live"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_info_names_the_provider_that_a_model_really_runs_on(serve: Serve) -> None:
    fallen_back = FakeNer(providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    (model,) = serve({"names": fallen_back}, device="tensorrt").get("/info").json()["models"]
    assert model["provider"] == "CUDAExecutionProvider"


def test_info_names_models_and_limits(serve: Serve) -> None:
    predictors = {
        "a-teacher": FakeNer(FakeManifest(role="teacher")),
        "b-student": FakeNer(FakeManifest(language="ja")),
        "c-student": FakeNer(),
    }
    described = serve(predictors, limits={"items": 7}).get("/info").json()
    models = described["models"]
    assert [(model["name"], model["role"], model["default"]) for model in models] == [
        ("a-teacher", "teacher", False),
        ("b-student", "student", True),
        ("c-student", "student", False),
    ]
    assert (models[1]["language"], models[1]["segmenter"]) == ("ja", "xx")
    assert models[2] == {
        "id": "c-student", "name": "c-student", "version": "0123456789ab", "task": "ner",
        "role": "student", "default": False, "language": "en",
        "segmenter": "en", "labels": ["NAME"], "scores": [{"metric": "f1", "value": 80.0}],
        "provider": "CPUExecutionProvider",
    }  # fmt: skip
    assert described["limits"] == {
        "body_bytes": 1 << 20, "items": 7, "text_characters": 100_000,
        "sentence_tokens": 512, "token_characters": 1000, "request_tokens": 32_768,
        "line_bytes": 1 << 20,
    }  # fmt: skip


def test_a_teacher_answers_where_there_is_no_student(serve: Serve) -> None:
    only = serve({"big": FakeNer(FakeManifest(role="teacher"))})
    assert only.post("/ner", json={"texts": ["x"]}).json()["model"] == "big"


def test_the_description_has_examples_problems_and_no_dangling_reference(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 200
    described = client.get("/openapi.json").json()
    for path in ("/ner", "/parse"):
        operation = described["paths"][path]["post"]
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            assert client.post(path, json=example["value"]).status_code == 200
        assert {"200", "400", "404", "413", "415", "422", "500"} <= set(operation["responses"])
        assert "application/problem+json" in operation["responses"]["422"]["content"]
    assert "text/x-conllu" in described["paths"]["/parse"]["post"]["responses"]["200"]["content"]
    references = _references(described)
    assert references
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= set(
        described["components"]["schemas"]
    )


@pytest.mark.parametrize(
    ("path", "response"), [("/ner", schemas.NerResponse), ("/parse", schemas.ParseResponse)]
)
def test_answers_and_their_examples_have_the_fields_of_the_schema(
    client: httpx.Client, path: str, response: type[BaseModel]
) -> None:
    given = client.post(path, json={"texts": ["Ada sleeps. Bob too."]}).json()
    for body in (given, *response.model_json_schema()["examples"]):
        assert response.model_validate(body).model_dump(mode="json") == body


def _references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if "$ref" in part else set()
        return own.union(*(_references(value) for value in part.values()))
    if isinstance(part, list):
        return set().union(*(_references(value) for value in part))
    return set()


@dataclass
class CountingNer(HeldNer):
    """Notes how many calls are inside at once."""

    inside: int = 0
    most_inside: int = 0

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        answers = super().predict(sentences)
        self.inside -= 1
        return answers


def test_the_server_answers_while_a_model_is_busy_and_calls_each_model_once_at_a_time(serve: Serve) -> None:
    engine = CountingNer()
    busy = serve({"names": engine, "trees": FakeParser()})
    body = json.dumps({"texts": ["x"]}).encode()
    askers = [connect(busy) for _ in range(4)]
    for asker in askers:
        asker.sendall(head("/ner", f"Content-Length: {len(body)}") + body)
    until(lambda: engine.runs)
    assert busy.get("/livez").status_code == 200
    assert busy.post("/parse", json={"texts": ["x"]}).status_code == 200
    engine.gate.set()
    assert [answer(asker).status for asker in askers] == [200] * 4
    for asker in askers:
        asker.close()
    assert engine.most_inside == 1
