"""Sentences of all requests share the runs of an engine. Nothing here knows of HTTP, of models or of words.

A batcher has a bounded queue and a thread for its engine. Whenever the engine is free, the queue goes in, up
to a budget of tokens; there is no timer, so an idle engine keeps nobody waiting and a busy one finds full
batches. A run begins when the event loop has nothing else to do, so that requests that have arrived but were
not read yet come along.

Requests are served in the order in which they come, but for those that are larger than a batch: later ones
may go between their batches (start-time fair queueing, Goyal et al. 1996, with a batch as the quantum). The
sentences of a batch are chosen by length around the one whose turn it is, from a window of the next ones,
since sentences of one length are cheaper together; one that was passed over `MOST_PASSES` times goes before
any other, so that nothing starves.

A queue that has refused a request refuses all until a quarter of it is free again. So large requests have the
same chance as small ones, and a flood can be refused without a look at what is in it.
"""

import asyncio
from bisect import insort
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

WINDOW = 4
"""Budgets of tokens from which a batch is chosen: a larger window finds lengths that are more alike."""

MOST_PASSES = 3
"""Batches of its window that may go before a sentence."""

QUIET_ROUNDS, MOST_ROUNDS = 2, 16
"""A free engine runs after so many rounds of the event loop without a new sentence, or so many in all.

A round reads what has arrived, and only the next one lets the requests go so far as to bring their sentences.
"""

OVERBOOKED = 2
"""Tokens that may be in the queue and on the way to it, as a multiple of the queue's bound."""

OPEN_AGAIN = 0.75
"""Share of the bounds at which a queue that was full takes requests again."""

SMOOTHING = 0.2
"""Weight of the last run in the estimate of the engine's speed."""

Sentence = Sequence[str]


class Engine(Protocol):
    """Answers sentences, in order; it is called by one thread at a time."""

    def predict(self, sentences: Sequence[Sentence]) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Bounds:
    """The most that a batch and the queue may hold."""

    batch_tokens: int
    queue_sentences: int
    queue_tokens: int


class Refused(Exception):  # noqa: N818 - no fault of the program
    """The queue has no room; `retry_after` is in how many seconds it probably has."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"no room; probably in {retry_after:.1f} s")
        self.retry_after = retry_after


class Expired(Exception):  # noqa: N818
    """The time was up before all sentences were answered."""


@dataclass(eq=False, slots=True)
class Job:
    """A request's sentences on their way; `answers` is a future of one answer a sentence.

    `submitted` and `began`, the start of its first run, are seconds of `perf_counter`.
    """

    answers: "asyncio.Future[list[Any]]"
    results: list[Any]
    left: int
    submitted: float
    began: float | None = None
    timer: asyncio.TimerHandle | None = None

    def settle(self, error: BaseException | None = None) -> None:
        """Gives the results or an error to `answers`, if somebody still waits for them."""
        if self.timer is not None:
            self.timer.cancel()
        if self.answers.done():
            return
        if error is None:
            self.answers.set_result(self.results)
        else:
            self.answers.set_exception(error)


@dataclass(eq=False, slots=True)
class Entry:
    """A sentence in the queue.

    `turn` is when its part of its request is due, on the batcher's clock of tokens; `number` counts all
    sentences, `passes` the batches that went before it.
    """

    turn: int
    number: int
    job: Job
    index: int
    sentence: Sentence
    tokens: int
    passes: int = 0

    def __lt__(self, other: "Entry") -> bool:
        return (self.turn, self.number) < (other.turn, other.number)


class Batcher:
    """The queue before one engine. All methods are called in the event loop's thread.

    Args:
        on_batch: is called with the sentences and tokens of each run.
    """

    def __init__(
        self, engine: Engine, bounds: Bounds, on_batch: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self._engine = engine
        self._bounds = bounds
        self._on_batch = on_batch
        self._queue: list[Entry] = []
        self._tokens = 0  # in the queue
        self._running = 0  # tokens in the engine; at least 1 while it runs
        self._turn = 0
        self._submitted = 0  # sentences in all
        self._gathering = False
        self._closed = False
        self._tokens_a_second: float | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._room: list[asyncio.Future[None]] = []

    def submit(
        self, sentences: Sequence[Sentence], *, timeout: float | None = None, share: float = 1.0
    ) -> Job:
        """Takes all sentences of a request, or none.

        A request that is larger than half of the queue counts as half of it: it is taken when as much is
        free, so that small ones cannot keep it out for ever.

        Args:
            timeout: seconds after which the job fails with `Expired`.
            share: of the queue's bounds that this request may fill. Bulk work leaves room for others.

        Raises:
            Refused: there is no room, or the wait would probably be longer than the timeout.
            ValueError: a sentence is longer than a batch may be.
        """
        loop = asyncio.get_running_loop()
        lengths = [len(sentence) for sentence in sentences]
        for index, length in enumerate(lengths):
            if length > self._bounds.batch_tokens:
                most = self._bounds.batch_tokens
                raise ValueError(f"sentence {index} has {length} tokens; a batch may have {most}")
        self._admit(len(lengths), sum(lengths), share)
        wait = self._wait()
        if timeout is not None and wait > timeout:
            raise Refused(wait)
        job = Job(loop.create_future(), [None] * len(lengths), len(lengths), perf_counter())
        if not lengths:
            job.settle()
            return job
        before = 0
        for index, (sentence, length) in enumerate(zip(sentences, lengths, strict=True)):
            turn = self._turn + before - before % self._bounds.batch_tokens
            insort(self._queue, Entry(turn, self._submitted, job, index, sentence, length))
            self._submitted += 1
            before += length
        self._tokens += sum(lengths)
        if timeout is not None:
            job.timer = loop.call_later(timeout, self._expire, job)
        self._gather()
        return job

    def cancel(self, job: Job) -> None:
        """Gives a job's places to others; answers of a run that has begun are thrown away."""
        job.answers.cancel()
        job.settle()
        self._forget(job)

    @property
    def waiting(self) -> tuple[int, int]:
        """Sentences and tokens in the queue."""
        return len(self._queue), self._tokens

    def full(self, arriving: float = 0) -> float | None:
        """The seconds until there probably is room, where nothing has any; else None.

        Args:
            arriving: about how many tokens are on their way and not submitted yet. It is a guess, so only
                twice of what has room counts as too much; `submit` has the last word.
        """
        full = (
            len(self._queue) >= self._bounds.queue_sentences
            or self._tokens >= self._bounds.queue_tokens
            or self._tokens + arriving >= OVERBOOKED * self._bounds.queue_tokens
        )
        return self._wait() if full or self._closed else None

    async def room(self) -> None:
        """Returns when something left the queue."""
        if self._queue:
            waiter = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            await waiter

    def _admit(self, sentences: int, tokens: int, share: float) -> None:
        most_sentences = share * self._bounds.queue_sentences
        most_tokens = share * self._bounds.queue_tokens
        full = bool(self._queue) and (
            len(self._queue) + min(sentences, most_sentences / 2) > most_sentences
            or self._tokens + min(tokens, most_tokens / 2) > most_tokens
        )
        self._closed = self._closed or (full and share == 1.0 and self._holds_much())
        if full or self._closed:
            raise Refused(self._wait())

    def _holds_much(self) -> bool:
        return (
            len(self._queue) > OPEN_AGAIN * self._bounds.queue_sentences
            or self._tokens > OPEN_AGAIN * self._bounds.queue_tokens
        )

    def _wait(self) -> float:
        """The seconds that the engine probably takes for what it has; 0 as long as nothing is known."""
        return (self._tokens + self._running) / self._tokens_a_second if self._tokens_a_second else 0.0

    def _expire(self, job: Job) -> None:
        job.settle(Expired())
        self._forget(job)

    def _forget(self, job: Job) -> None:
        kept = [entry for entry in self._queue if entry.job is not job]
        self._tokens -= sum(entry.tokens for entry in self._queue if entry.job is job)
        self._queue = kept
        self._make_room()

    def _make_room(self) -> None:
        """Something left the queue, so others may come."""
        self._closed = self._closed and self._holds_much()
        room, self._room = self._room, []
        for waiter in room:
            if not waiter.done():
                waiter.set_result(None)

    def _gather(self) -> None:
        """Lets a free engine run as soon as the event loop has read what is there."""
        if not self._running and not self._gathering and self._queue:
            self._gathering = True
            asyncio.get_running_loop().call_soon(self._gathered, self._submitted, 0, 0)

    def _gathered(self, before: int, quiet: int, rounds: int) -> None:
        """One round of the event loop later."""
        quiet = quiet + 1 if self._submitted == before else 0
        rounds += 1
        if quiet < QUIET_ROUNDS and rounds < MOST_ROUNDS and self._tokens < self._bounds.batch_tokens:
            asyncio.get_running_loop().call_soon(self._gathered, self._submitted, quiet, rounds)
            return
        self._gathering = False
        if self._queue:
            self._run_next()

    def _run_next(self) -> None:
        batch = self._take()
        now = perf_counter()
        for entry in batch:
            if entry.job.began is None:
                entry.job.began = now
        self._running = max(1, sum(entry.tokens for entry in batch))
        self._make_room()
        run = asyncio.get_running_loop().run_in_executor(self._thread, self._outcomes, batch)
        run.add_done_callback(lambda done: self._done(batch, now, done))

    def _take(self) -> list[Entry]:
        """The next batch, which leaves the queue."""
        budget = self._bounds.batch_tokens
        if self._tokens <= budget:
            batch, self._queue, self._tokens = self._queue, [], 0
            self._turn = batch[-1].turn
            return batch
        end = tokens = 0
        while end < len(self._queue) and tokens < WINDOW * budget:
            tokens += self._queue[end].tokens
            end += 1
        self._turn = max(self._turn, self._queue[0].turn)
        batch, passed = choose(self._queue[:end], budget)
        for entry in passed:
            entry.passes += 1
        self._queue[:end] = passed
        self._tokens -= sum(entry.tokens for entry in batch)
        return batch

    def _outcomes(self, batch: Sequence[Entry]) -> list[Any]:
        """In the engine's thread: for each sentence its answer, or the exception instead.

        Where a batch fails, each request in it runs alone: a sentence that the engine cannot answer does not
        take other people's requests with it.
        """
        try:
            return self._predict(batch)
        except Exception as error:
            jobs = {entry.job: None for entry in batch}
            if len(jobs) == 1:
                return [error] * len(batch)
        outcomes: dict[int, Any] = {}
        for job in jobs:
            own = [entry for entry in batch if entry.job is job]
            outcomes |= zip((entry.number for entry in own), self._outcomes(own), strict=True)
        return [outcomes[entry.number] for entry in batch]

    def _predict(self, batch: Sequence[Entry]) -> list[Any]:
        answers = list(self._engine.predict([entry.sentence for entry in batch]))
        if len(answers) != len(batch):
            raise RuntimeError(f"{len(answers)} answers for {len(batch)} sentences")
        return answers

    def _done(self, batch: Sequence[Entry], began: float, run: "asyncio.Future[list[Any]]") -> None:
        seconds = perf_counter() - began
        for entry, outcome in zip(batch, run.result(), strict=True):
            job = entry.job
            if isinstance(outcome, Exception):
                job.settle(outcome)
                self._forget(job)
                continue
            job.results[entry.index] = outcome
            job.left -= 1
            if not job.left:
                job.settle()
        tokens, self._running = self._running, 0
        rate = tokens / max(seconds, 1e-9)
        known = self._tokens_a_second or rate
        self._tokens_a_second = known + SMOOTHING * (rate - known)
        self._gather()
        self._on_batch(len(batch), tokens)


def choose(window: Sequence[Entry], budget: int) -> tuple[list[Entry], list[Entry]]:
    """A batch of at most `budget` tokens out of a window in the order of turns, and the rest in that order.

    The first sentence is always in the batch, then those that were passed over too often, then those whose
    lengths are the nearest to the first one's.
    """
    first = window[0]
    order = sorted(
        window,
        key=lambda entry: (
            entry is not first,
            entry.passes < MOST_PASSES,
            abs(entry.tokens - first.tokens) if entry.passes < MOST_PASSES else entry.number,
        ),
    )
    batch: list[Entry] = []
    left = budget
    for entry in order:
        if entry.tokens > left:
            break
        left -= entry.tokens
        batch.append(entry)
    taken = {entry.number for entry in batch}
    return batch, [entry for entry in window if entry.number not in taken]
