"""From exchanges to figures, in the loads and in the scenarios."""

import pytest

from benchmarks.chaos.figures import (
    goodput,
    is_proper_refusal,
    latency_ms,
    lateness_ms,
    outcomes,
    recovered_at,
    sentences_per_second,
)
from benchmarks.chaos.scenarios.drain import is_failure
from benchmarks.chaos.scenarios.fuzz import Fuzzed, failures_in
from benchmarks.chaos.scenarios.http_cost import costs
from benchmarks.chaos.scenarios.kill import Kill, was_held
from loadtest.http_client import Exchange, Request
from loadtest.loads import Load

ONE, EIGHT = Request(b"", 1), Request(b"", 8)


def accepted(intended: float, done: float, request: Request = ONE) -> Exchange:
    return Exchange(request, intended, intended, done, status=200, results=request.sentences)


def test_goodput_counts_accepted_answers_that_came_while_requests_were_sent() -> None:
    exchanges = [
        accepted(10.0, 10.5, EIGHT),
        accepted(11.0, 12.0),
        accepted(11.9, 12.1),
        Exchange(ONE, 10.0, 10.0, 10.1, status=429),
        Exchange(ONE, 10.0, 10.0, 10.1, status=200, failure="broken"),
    ]
    load = Load(exchanges, started=10.0, ended=12.0)
    assert goodput(load) == 2 / 2.0
    assert sentences_per_second(load) == 9 / 2.0


def test_latencies_are_of_accepted_answers_from_the_intended_time() -> None:
    exchanges = [accepted(0.0, number / 1000) for number in range(1, 101)]
    exchanges += [Exchange(ONE, 0.0, 0.0, 50.0, status=429), Exchange(ONE, 0.0, 0.0, 60.0, failure="timeout")]
    assert latency_ms(exchanges, 50) == pytest.approx(50)
    assert latency_ms(exchanges, 99) == pytest.approx(99)
    assert latency_ms([], 99) == 0


def test_lateness_is_how_long_after_its_time_a_request_was_sent() -> None:
    sent = [Exchange(ONE, 1.0, 1.0 + number / 1000, 9.0) for number in (0, 1, 5)]
    never = Exchange(ONE, 1.0, failure="refused")
    assert lateness_ms(Load([*sent, never]), 100) == pytest.approx(5)


@pytest.mark.parametrize(
    ("status", "retry_after", "failure", "proper"),
    [
        (429, "1", "", True),
        (429, "17", "", True),
        (429, "0", "", False),
        (429, "-1", "", False),
        (429, "0.5", "", False),
        (429, "soon", "", False),
        (429, None, "", False),
        (503, "1", "", False),
        (0, None, "reset", False),
        (429, "1", "broken", False),
    ],
)
def test_a_refusal_is_proper_where_it_is_a_429_that_says_when_to_come_again(
    status: int, retry_after: str | None, failure: str, proper: bool
) -> None:
    exchange = Exchange(ONE, 0.0, status=status, retry_after=retry_after)
    exchange.failure = failure  # type: ignore[assignment]
    assert is_proper_refusal(exchange) is proper


def test_requests_are_counted_by_how_they_ended_the_most_frequent_first() -> None:
    exchanges = [accepted(0.0, 1.0), Exchange(ONE, 0.0, status=429, code="overloaded")]
    exchanges += [accepted(0.0, 1.0), Exchange(ONE, 0.0, failure="reset")]
    assert outcomes(exchanges) == {"200": 2, "429 overloaded": 1, "reset": 1}


def test_recovery_is_the_first_second_with_as_many_answers_as_wanted() -> None:
    slow = [accepted(0.0, 10.0 + number / 2) for number in range(6)]  # 2 a second, up to 13 s
    fast = [accepted(0.0, 13.0 + number / 10) for number in range(30)]
    assert recovered_at(slow + fast, 10.0, rate=2.0) == pytest.approx(10.0)
    assert recovered_at(slow + fast, 10.0, rate=9.0) == pytest.approx(12.9, abs=0.11)
    assert recovered_at(slow + fast, 10.0, rate=20.0) is None
    assert recovered_at(slow, 10.0, rate=9.0) is None
    assert recovered_at([], 10.0, rate=1.0) is None


def test_only_requests_that_the_killed_worker_may_have_had_are_held() -> None:
    kill = Kill(moment=100.0, survivors_ports=frozenset({5000}), back=101.0)
    assert was_held(Exchange(ONE, 99.0, port=4000, failure="reset"), kill)
    assert was_held(Exchange(ONE, 100.04, port=4000, failure="reset"), kill)
    assert not was_held(Exchange(ONE, 100.06, port=4000, failure="reset"), kill)
    assert not was_held(Exchange(ONE, 99.0, port=5000, failure="reset"), kill)


@pytest.mark.parametrize(
    ("exchange", "failed"),
    [
        (Exchange(ONE, 0.0, done=6.0, status=200, results=1), False),
        (Exchange(ONE, 0.0, done=6.0, status=503), False),
        (Exchange(ONE, 0.0, done=6.0, failure="refused"), False),
        (Exchange(ONE, 0.0, done=4.0, failure="refused"), True),
        (Exchange(ONE, 0.0, done=6.0, failure="reset"), True),
        (Exchange(ONE, 0.0, done=6.0, failure="broken"), True),
        (Exchange(ONE, 0.0, done=6.0, failure="timeout"), True),
        (Exchange(ONE, 0.0, done=6.0, status=500), True),
    ],
)
def test_a_stop_fails_requests_it_took_and_did_not_answer_but_may_refuse_connections_afterwards(
    exchange: Exchange, failed: bool
) -> None:
    assert is_failure(exchange, signalled=5.0) is failed


def test_http_is_ideal_where_a_request_takes_the_empty_endpoints_time_and_the_engines() -> None:
    rates = {
        ("in_process", 8): 2000.0,
        ("in_process", 32): 4000.0,
        ("empty", 16): 1500.0,
        ("empty", 32): 2000.0,
        ("single", 16): 1000.0,
        ("single", 32): 900.0,
        ("batch", 4): 1800.0,
        ("single_texts", 16): 500.0,
        ("batch_texts", 8): 1500.0,
    }
    figures = costs(rates)
    assert figures["http_single_vs_ideal"] == pytest.approx(1.0)
    assert (figures["http_single_rps"], figures["http_single_connections"]) == (1000.0, 16)
    assert (figures["http_empty_rps"], figures["http_empty_connections"]) == (2000.0, 32)
    assert figures["http_batch_vs_inprocess"] == pytest.approx(0.9)
    assert figures["http_batch_vs_inprocess_32"] == pytest.approx(0.45)


def test_fuzzing_counts_sent_requests_and_each_kind_of_failure() -> None:
    fuzzed = Fuzzed()
    short_of_time = {"headers": [{"name": "X-Request-Timeout", "value": "0.001"}]}
    archive = {
        "log": {
            "entries": [
                {"time": 5.0, "request": {"headers": []}, "response": {"status": 200}},
                {"time": 5.0, "request": {"headers": []}, "response": {"status": 504}},
                {"time": 5.0, "request": short_of_time, "response": {"status": 504}},
                {"time": 10_001.0, "request": {"headers": []}, "response": {"status": 200}},
                {"time": 5.0, "request": {"headers": []}, "response": {"status": 0}},
            ]
        }
    }
    failure = {"title": "Undocumented status code", "count": 3, "operations": ["POST /ner"]}
    fuzzed.add(archive, {"failures": [failure], "errors": []})
    fuzzed.add(archive, {"failures": [failure], "errors": [{"title": "Network Error"}]})
    assert fuzzed.requests == 10
    assert fuzzed.unanswered == 4
    assert fuzzed.statuses == {200: 2, 504: 4}
    assert fuzzed.asked_for_504 == 2
    assert fuzzed.failures == {"POST /ner: Undocumented status code": 6, "error: Network Error": 1}


def test_failures_in_schemathesis_output_are_kept_without_its_progress_and_summary() -> None:
    said = "Fuzzing\n=== FAILURES ===\n____ POST /ner ____\n\n1. Test Case\n=== SUMMARY ===\nSeed: 1\n"
    said = said.replace("===", "=====")
    assert failures_in(said) == ["===== FAILURES =====", "____ POST /ner ____", "1. Test Case"]
    assert failures_in("===== SUMMARY =====\nSeed: 1") == []
    assert failures_in("no heading") == []
