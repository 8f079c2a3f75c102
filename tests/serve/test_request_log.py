"""The headers of all answers, and the metrics of requests, over a real socket."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.serve.conftest import ADA, Client, Serve, answer, connect, problem, request, until
from tests.serve.fakes import FakeNer, HeldNer


def test_an_answer_says_where_its_time_went(client: Client) -> None:
    def stages(body: dict[str, Any]) -> list[str]:
        timing = client.post("/ner", json=body).headers["Server-Timing"]
        names, durations = zip(*(entry.split(";dur=") for entry in timing.split(", ")), strict=True)
        assert all(float(duration) >= 0 for duration in durations)
        return list(names)

    assert stages({"texts": ["Ada."]}) == ["read", "segment", "queue", "engine", "write"]
    assert stages({"sentences": [["Ada"]]}) == ["read", "queue", "engine", "write"]
    assert "Server-Timing" not in client.get("/livez").headers


def test_every_answer_has_an_id_which_a_client_may_choose(client: Client) -> None:
    for path, method in (("/ner", "POST"), ("/nowhere", "GET"), ("/livez", "GET"), ("/ner", "PUT")):
        chosen = client.request(method, path, headers={"X-Request-Id": "of-the.client_7"})
        assert chosen.headers["X-Request-Id"] == "of-the.client_7"
        ids = {client.request(method, path).headers["X-Request-Id"] for _ in range(3)}
        assert len(ids) == 3
    unfit = client.get("/livez", headers={"X-Request-Id": "with spaces"}).headers["X-Request-Id"]
    assert unfit
    assert " " not in unfit


def test_a_stopping_server_is_not_ready_and_still_answers(serve: Serve) -> None:
    client = serve({"names": FakeNer()})
    assert client.get("/readyz").status_code == 200
    assert "Connection" not in client.post("/ner", json=ADA).headers
    client.app.state.service.draining = True
    unready = client.get("/readyz")
    assert problem(unready) == (503, "not_ready")
    assert unready.headers["Connection"] == "close"
    served = client.post("/ner", json=ADA)
    assert (served.status_code, served.headers["Connection"]) == (200, "close")
    assert client.get("/livez").status_code == 200


def figures(client: Client) -> dict[frozenset[str], float]:
    """The samples of /metrics by name and values of labels."""
    return {
        frozenset([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_metrics_tell_of_requests_refusals_batches_and_models(serve: Serve) -> None:
    engine = HeldNer()
    client = serve({"counted": engine}, max_queue_sentences=3)
    before = figures(client)
    with connect(client) as first, connect(client) as second:
        first.sendall(request(1))
        until(lambda: engine.runs)
        second.sendall(request(3))
        until(lambda: client.waiting() == 3)
        client.post("/ner", json=ADA)
        engine.gate.set()
        assert [answer(each).status for each in (first, second)] == [200, 200]
    client.post("/ner", json=ADA, headers={"X-Request-Timeout": "never"})
    after = figures(client)

    def more(*name: str) -> float:
        return after[frozenset(name)] - before.get(frozenset(name), 0)

    assert more("serve_requests_total", "/ner", "200") == 2
    assert more("serve_requests_total", "/ner", "429") == 1
    assert more("serve_refusals_total", "overloaded") == 1
    assert more("serve_refusals_total", "invalid_timeout") == 1
    assert more("serve_sentences_total", "counted", "0123456789ab") == 4
    assert more("serve_batch_sentences_count", "counted") == 2
    assert more("serve_stage_seconds_count", "queue") == 2
    assert after[frozenset(["serve_queue_sentences", "counted"])] == 0
    assert after[frozenset(["serve_model_info", "ner", "counted", "0123456789ab", "true"])] == 1
