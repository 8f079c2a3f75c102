"""Which cores the server gets, and which are left for the load generator."""

import os
from collections.abc import Sequence


class CoresError(ValueError):
    """Cores that do not exist, or that this process may not use."""


def shared_out(
    wanted: Sequence[int] | None, needed: int, available: Sequence[int] | None = None
) -> tuple[list[int], list[int]]:
    """The server's cores and the generator's: disjoint, unless there are too few.

    Args:
        wanted: the server's; by default the first `needed` ones, but one less than there are.
        needed: how many threads the server has in all.
        available: all that there are; by default those that this process may use.

    Raises:
        CoresError: a core that is wanted is not available.

    >>> shared_out(None, 1, [0, 1]), shared_out(None, 1, [0]), shared_out([1], 1, [0, 1])
    (([0], [1]), ([0], [0]), ([1], [0]))
    """
    cores = sorted(os.sched_getaffinity(0) if available is None else available)
    if wanted is not None:
        if missing := sorted(set(wanted) - set(cores)):
            raise CoresError(f"--server-cores: core {missing[0]} is not among those of this process: {cores}")
        server = sorted(set(wanted))
    else:
        server = cores[: max(min(needed, len(cores) - 1), 1)]
    return server, [core for core in cores if core not in server] or [cores[-1]]
