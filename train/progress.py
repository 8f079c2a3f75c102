"""What a long run shows of itself: bars with the time left, and lines above them."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, title: str, unit: str, initial: int = 0, **options: Any) -> tqdm:
    """A bar with the time left: redrawn often on a terminal, seldom in a log. ``options`` are tqdm's own."""
    interval = 0.5 if sys.stderr.isatty() else 20
    return tqdm(
        total=total,
        initial=initial,
        desc=title,
        unit=unit,
        dynamic_ncols=True,
        mininterval=interval,
        **options,
    )


def log(text: str) -> None:
    """Print a line above any progress bar."""
    tqdm.write(text)
