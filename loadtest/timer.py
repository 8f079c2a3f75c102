"""A timer that rings to the microsecond, Linux's timerfd: an event loop's own timers tick in milliseconds."""

import ctypes
import os
import time

LATE_ANYWAY = 50e-6  # seconds: setting the timer and being woken takes about as long

_libc = ctypes.CDLL(None, use_errno=True)
_ITimerSpec = ctypes.c_long * 4  # interval and time, each in seconds and nanoseconds
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class Timer:
    """A file, `number`, that can be read from as soon as the time that was set has come."""

    def __init__(self) -> None:
        self.number: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.number < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")

    def set(self, when: float) -> bool:
        """Sets it to a time of `time.monotonic()`; False, and nothing set, where that is now or past."""
        if when - time.monotonic() < LATE_ANYWAY:
            return False
        seconds, nanoseconds = divmod(int(when * 1e9), 1_000_000_000)
        _libc.timerfd_settime(self.number, _ABSOLUTE, _ITimerSpec(0, 0, seconds, nanoseconds), None)
        return True

    def rang(self) -> None:
        """Takes note that it rang, so that it can be set again."""
        os.read(self.number, 8)

    def close(self) -> None:
        os.close(self.number)
