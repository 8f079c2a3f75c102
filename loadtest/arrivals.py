"""When requests arrive at random: Poisson processes, and how a load is shared out over several of them."""

import math
import random
from collections.abc import Iterator, Sequence

SOURCE_PERCENT = 5  # of the capacity, from each source; less where the steps ask for it


def source_percent(percents: Sequence[int]) -> int:
    """The share of each source, so that every step is a whole number of sources.

    >>> source_percent([25, 50, 110]), source_percent([33, 50])
    (5, 1)
    """
    return math.gcd(SOURCE_PERCENT, *percents)


def gaps(rate: float, seed: str) -> Iterator[float]:
    """The seconds between the arrivals of a Poisson process of `rate` a second, for ever."""
    chance = random.Random(seed)
    while True:
        yield chance.expovariate(rate)
