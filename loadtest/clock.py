"""Waking to the microsecond by Linux's timerfd, where an event loop's own timers tick in milliseconds."""

import ctypes
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import gevent

LATE_ANYWAY = 50e-6  # seconds: setting the timer and being woken takes about as long

_libc = ctypes.CDLL(None, use_errno=True)
_ITimerSpec = ctypes.c_long * 4  # interval and time, each in seconds and nanoseconds
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class Alarm:
    """Lets one greenlet sleep until an exact time, over and over, while a `with` block lasts."""

    def __enter__(self) -> Self:
        self._file: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._watcher = gevent.get_hub().loop.io(self._file, 1)
        return self

    def __exit__(self, *error: object) -> None:
        self._watcher.close()
        os.close(self._file)

    def sleep_until(self, when: float) -> None:
        """Returns at `when`, a time of `time.monotonic()`; if that is past, after the others had a turn."""
        if when - time.monotonic() < LATE_ANYWAY:
            gevent.sleep(0)
            return
        seconds, nanoseconds = divmod(int(when * 1e9), 1_000_000_000)
        _libc.timerfd_settime(self._file, _ABSOLUTE, _ITimerSpec(0, 0, seconds, nanoseconds), None)
        gevent.get_hub().wait(self._watcher)
        os.read(self._file, 8)  # so that it can be set again


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collects garbage before the block and not in it: a pause of the generator would be one of the load."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
