"""How much of a core the server, the load generator and everything else use."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from loadtest.outcomes import Used
from loadtest.processes import busy_seconds, cpu_seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """Processor time at one moment, in seconds: the server's processes', this one's, and the machine's."""

    moment: float
    server: float
    generator: float
    machine: float

    @classmethod
    def now(cls, server: Sequence[int]) -> Self:
        return cls(time.monotonic(), cpu_seconds(server), time.process_time(), busy_seconds())

    def until(self, later: "Reading") -> Used:
        """The shares of one core between two readings."""
        seconds = max(later.moment - self.moment, 1e-9)
        server, generator = later.server - self.server, later.generator - self.generator
        foreign = max(later.machine - self.machine - server - generator, 0.0)
        return Used(server / seconds, generator / seconds, foreign / seconds)
