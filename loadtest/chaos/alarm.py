"""Waking at an exact time: an event loop's own timers tick in milliseconds, Linux's timerfd does not."""

import asyncio
import ctypes
import os
import time
from types import TracebackType
from typing import Self

LATE_ANYWAY = 50e-6  # seconds: setting the timer and being woken takes about as long

_libc = ctypes.CDLL(None, use_errno=True)
_ITimerSpec = ctypes.c_long * 4  # interval and time, each in seconds and nanoseconds
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class Alarm:
    """Sleeps until a time of `time.monotonic()`; one sleeper at a time."""

    def __init__(self) -> None:
        self._timer = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._timer, self._ring)
        self._sleeper: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._timer)
        os.close(self._timer)

    async def sleep_until(self, when: float) -> None:
        """Returns at `when`, or at once where that is now or past."""
        if when - time.monotonic() < LATE_ANYWAY:
            return
        seconds, nanoseconds = divmod(int(when * 1e9), 1_000_000_000)
        self._sleeper = self._loop.create_future()
        _libc.timerfd_settime(self._timer, _ABSOLUTE, _ITimerSpec(0, 0, seconds, nanoseconds), None)
        await self._sleeper

    def _ring(self) -> None:
        os.read(self._timer, 8)
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
