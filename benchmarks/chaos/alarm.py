"""Waking asyncio at an exact time."""

import asyncio
from types import TracebackType
from typing import Self

from loadtest.timer import Timer


class Alarm:
    """Sleeps until a time of `time.monotonic()`; one sleeper at a time."""

    def __init__(self) -> None:
        self._timer = Timer()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._timer.number, self._ring)
        self._sleeper: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._timer.number)
        self._timer.close()

    async def sleep_until(self, when: float) -> None:
        """Returns at `when`, or at once where that is now or past."""
        if self._timer.set(when):
            self._sleeper = self._loop.create_future()
            await self._sleeper

    def _ring(self) -> None:
        self._timer.rang()
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
