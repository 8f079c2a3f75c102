"""The batcher alone, with an engine whose runs the test begins and ends."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.batcher import MOST_PASSES, Batcher, Bounds, Expired, Job, Refused

pytestmark = pytest.mark.anyio

BOUNDS = Bounds(batch_tokens=10, queue_sentences=50, queue_tokens=200)


@dataclass
class Engine:
    """Answers each sentence with its own words; a run that is `held` waits for `go`."""

    held: bool = False
    runs: list[list[int]] = field(default_factory=list)  # lengths of the sentences of each
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
        self.runs.append([len(sentence) for sentence in sentences])
        self.entered.release()
        if self.held:
            assert self.go.acquire(timeout=20)
        if any("poison" in sentence for sentence in sentences):
            raise ValueError("cannot answer it")
        return [tuple(sentence) for sentence in sentences]


async def until(condition: Callable[[], bool]) -> None:
    """Lets the event loop run until something is so."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def words(count: int, word: str = "w") -> list[str]:
    return [word] * count


async def busy() -> tuple[Engine, Batcher, Job]:
    """A held engine, its batcher, and a first job of one word that keeps the engine busy."""
    engine = Engine(held=True)
    batcher = Batcher(engine, BOUNDS)
    first = batcher.submit([words(1, "first")])
    await until(lambda: bool(engine.runs))
    return engine, batcher, first


async def release(engine: Engine, *jobs: Job) -> list[Any]:
    """Lets every run go on; the answers of the jobs."""
    engine.held = False
    engine.go.release(1000)
    return [await job.answers for job in jobs]


async def test_an_idle_engine_runs_a_new_sentence_at_once() -> None:
    engine = Engine()
    answers = await Batcher(engine, BOUNDS).submit([words(3), words(2, "v")]).answers
    assert answers == [("w", "w", "w"), ("v", "v")]
    assert engine.runs == [[3, 2]]


async def test_sentences_of_several_requests_share_a_run_and_each_gets_its_own_answers() -> None:
    engine, batcher, first = await busy()
    a = batcher.submit([words(2, "a1"), words(3, "a2")])
    b = batcher.submit([words(1, "b")])
    answers = await release(engine, first, a, b)
    assert answers[1:] == [[("a1",) * 2, ("a2",) * 3], [("b",)]]
    assert [sorted(lengths) for lengths in engine.runs] == [[1], [1, 2, 3]]


async def test_a_run_has_no_more_tokens_than_its_budget() -> None:
    engine, batcher, first = await busy()
    jobs = [batcher.submit([words(4)] * 3) for _ in range(5)]
    await release(engine, first, *jobs)
    assert max(map(sum, engine.runs)) <= BOUNDS.batch_tokens
    assert sum(map(len, engine.runs)) == 16


async def test_sentences_of_a_batch_have_similar_lengths() -> None:
    engine, batcher, first = await busy()
    jobs = [batcher.submit([words(length)]) for length in (1, 9, 1, 8, 1, 1)]
    await release(engine, first, *jobs)
    assert engine.runs[1] == [1, 1, 1, 1]


async def test_a_sentence_is_passed_over_only_so_often() -> None:
    engine, batcher, first = await busy()
    # Behind the first of them, a long sentence has many neighbours that fit the short ones better.
    jobs = [batcher.submit([words(1)]), batcher.submit([words(9)])]
    jobs += [batcher.submit([words(1)]) for _ in range(40)]
    await release(engine, first, *jobs)
    assert next(i for i, lengths in enumerate(engine.runs) if 9 in lengths) <= MOST_PASSES + 2


async def test_a_small_request_goes_between_the_sentences_of_a_large_one() -> None:
    engine, batcher, first = await busy()
    large = batcher.submit([words(5, f"large{i}") for i in range(30)])
    small = batcher.submit([words(5, "small")])
    finished: list[str] = []
    large.answers.add_done_callback(lambda _: finished.append("large"))
    small.answers.add_done_callback(lambda _: finished.append("small"))
    await release(engine, first, large, small)
    assert finished == ["small", "large"]


async def test_a_request_over_the_bounds_is_refused_whole_with_a_time_to_retry() -> None:
    engine, batcher, first = await busy()
    waiting = batcher.submit([words(5)] * 30)
    with pytest.raises(Refused) as by_tokens:
        batcher.submit([words(5)] * 11)
    with pytest.raises(Refused):
        batcher.submit([words(1)] * 21)
    assert by_tokens.value.retry_after >= 0
    assert batcher.full() is None, "a smaller one fits"
    fits = batcher.submit([words(5)] * 10)
    assert batcher.full() is not None
    with pytest.raises(Refused):
        batcher.submit([words(1)])
    await release(engine, first, waiting, fits)
    assert sum(map(len, engine.runs)) == 41
    assert batcher.full() is None


async def test_a_queue_that_was_full_is_open_again_when_a_quarter_of_it_is_free() -> None:
    engine, batcher, first = await busy()
    jobs = [batcher.submit([words(10)]) for _ in range(20)]
    with pytest.raises(Refused):
        batcher.submit([words(1)])
    while batcher.waiting[1] > 150:
        with pytest.raises(Refused):
            batcher.submit([words(1)])
        before = len(engine.runs)
        engine.go.release()
        await until(lambda: len(engine.runs) > before)  # noqa: B023
    last = batcher.submit([words(1)])
    await release(engine, first, *jobs, last)


async def test_bulk_work_leaves_room_for_others_and_can_wait_for_its_own() -> None:
    engine, batcher, first = await busy()
    half = batcher.submit([words(5)] * 20, share=0.5)
    with pytest.raises(Refused):
        batcher.submit([words(5)], share=0.5)
    other = batcher.submit([words(5)])
    room = asyncio.ensure_future(batcher.room())
    await asyncio.sleep(0)
    assert not room.done()
    await release(engine, first, half, other)
    await room


async def test_a_request_larger_than_the_queue_is_taken_when_half_of_it_is_free() -> None:
    engine, batcher, first = await busy()
    more_than_half = batcher.submit([words(10)] * 11)
    with pytest.raises(Refused):
        batcher.submit([words(10)] * 100)
    batcher.cancel(more_than_half)
    half = batcher.submit([words(10)] * 10)
    large = batcher.submit([words(10)] * 100)
    with pytest.raises(Refused):
        batcher.submit([words(1)])
    _, _, answers = await release(engine, first, half, large)
    assert len(answers) == 100


async def test_a_sentence_longer_than_a_batch_is_refused_at_once() -> None:
    batcher = Batcher(Engine(), BOUNDS)
    with pytest.raises(ValueError, match="sentence 1 has 11 tokens"):
        batcher.submit([words(10), words(11)])


async def test_the_wait_is_estimated_from_the_engines_speed() -> None:
    engine, batcher, first = await busy()
    batcher._tokens_a_second = 10.0
    waiting = batcher.submit([words(10)] * 20)
    with pytest.raises(Refused) as full:
        batcher.submit([words(10)])
    assert full.value.retry_after == pytest.approx(20.1)
    await release(engine, first, waiting)


async def test_a_request_that_would_wait_longer_than_its_timeout_is_refused_at_once() -> None:
    engine, batcher, first = await busy()
    batcher._tokens_a_second = 1.0
    waiting = batcher.submit([words(10)])
    with pytest.raises(Refused):
        batcher.submit([words(1)], timeout=5)
    patient = batcher.submit([words(1)], timeout=500)
    await release(engine, first, waiting, patient)


async def test_a_job_whose_time_is_up_fails_and_gives_its_places_back() -> None:
    engine, batcher, first = await busy()
    late = batcher.submit([words(5)] * 40, timeout=0.01)
    with pytest.raises(Expired):
        await late.answers
    other = batcher.submit([words(5)] * 40)
    await release(engine, first, other)
    assert sum(map(len, engine.runs)) == 41


async def test_a_cancelled_job_gives_its_places_back_and_is_not_run() -> None:
    engine, batcher, first = await busy()
    gone = batcher.submit([words(5)] * 40)
    batcher.cancel(gone)
    other = batcher.submit([words(5)] * 40)
    await release(engine, first, other)
    assert gone.answers.cancelled()
    assert sum(map(len, engine.runs)) == 41


async def test_a_job_that_is_cancelled_while_it_runs_harms_no_other() -> None:
    engine, batcher, first = await busy()
    batcher.cancel(first)
    other = batcher.submit([words(1)])
    assert (await release(engine, other))[0] == [("w",)]


async def test_a_sentence_that_the_engine_cannot_answer_fails_its_own_request_alone() -> None:
    engine, batcher, first = await busy()
    good = batcher.submit([words(2, "good")])
    bad = batcher.submit([["poison"], ["and", "more"]])
    fine = batcher.submit([words(1, "fine")])
    engine.held = False
    engine.go.release(1000)
    with pytest.raises(ValueError, match="cannot answer it"):
        await bad.answers
    assert await first.answers == [("first",)]
    assert await good.answers == [("good",) * 2]
    assert await fine.answers == [("fine",)]
    assert (await batcher.submit([words(1, "next")]).answers) == [("next",)]


async def test_an_engine_that_loses_a_sentence_is_an_error() -> None:
    class Forgetful(Engine):
        def predict(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
            return super().predict(sentences)[1:]

    with pytest.raises(RuntimeError, match="1 answers for 2 sentences"):
        await Batcher(Forgetful(), BOUNDS).submit([words(1), words(1)]).answers


async def test_nothing_and_empty_sentences_have_answers_too() -> None:
    engine = Engine()
    batcher = Batcher(engine, BOUNDS)
    assert await batcher.submit([]).answers == []
    assert engine.runs == []
    assert await batcher.submit([[], words(1)]).answers == [(), ("w",)]
    assert await batcher.submit([[]]).answers == [()]


async def test_each_run_is_reported_and_the_queue_has_its_size() -> None:
    runs: list[tuple[int, int]] = []
    engine = Engine(held=True)
    batcher = Batcher(engine, BOUNDS, lambda *sizes: runs.append(sizes))
    first = batcher.submit([words(1)])
    await until(lambda: bool(engine.runs))
    second = batcher.submit([words(4), words(4)])
    assert batcher.waiting == (2, 8)
    await release(engine, first, second)
    await until(lambda: len(runs) == 2)
    assert batcher.waiting == (0, 0)
    assert runs == [(1, 1), (2, 8)]


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 10), max_size=12), max_size=12),
    cancelled=st.sets(st.integers(0, 11)),
    seed=st.randoms(use_true_random=False),
)
async def test_whatever_comes_every_request_gets_its_own_answers_in_order(
    requests: list[list[int]], cancelled: set[int], seed: Any
) -> None:
    engine = Engine()
    batcher = Batcher(engine, Bounds(batch_tokens=10, queue_sentences=1000, queue_tokens=10_000))
    jobs = []
    for number, lengths in enumerate(requests):
        sentences = [[f"{number}.{index}"] * length for index, length in enumerate(lengths)]
        job = batcher.submit(sentences)
        jobs.append((job, sentences))
        if seed.random() < 0.3:
            await asyncio.sleep(0)
    for number in sorted(cancelled):
        if number < len(jobs):
            batcher.cancel(jobs[number][0])
    for number, (job, sentences) in enumerate(jobs):
        if number in cancelled and job.answers.cancelled():
            continue
        assert await job.answers == [tuple(sentence) for sentence in sentences]
    assert all(sum(lengths) <= 10 for lengths in engine.runs)
    assert (batcher._tokens, batcher._queue) == (0, [])
