"""How much of a core the server and the load generator use."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from loadtest.outcomes import Used
from loadtest.processes import cpu_seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """Processor time at one moment, in seconds, of the server's processes and of this one."""

    moment: float
    server: float
    generator: float

    @classmethod
    def now(cls, server: Sequence[int]) -> Self:
        return cls(time.monotonic(), cpu_seconds(server), time.process_time())

    def until(self, later: "Reading") -> Used:
        """The shares of one core between two readings."""
        seconds = max(later.moment - self.moment, 1e-9)
        return Used((later.server - self.server) / seconds, (later.generator - self.generator) / seconds)
