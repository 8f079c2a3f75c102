"""When the window of a closed loop opens and closes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """How long a closed loop warms up and is measured; in seconds, but for `requests`.

    It opens when `warm_up` is over and every client was answered once, at `longest_warm_up` in any case. It
    closes when `duration` is over and `requests` were answered inside it, at `longest` after the beginning of
    the whole loop in any case.
    """

    warm_up: float
    longest_warm_up: float
    duration: float
    requests: int
    longest: float


class WindowClock:
    """Opens and closes a window while a loop of `clients` goes on that began at `began`.

    `opened` and `closed` are the times of both, None before.
    """

    def __init__(self, window: Window, clients: int, began: float) -> None:
        self._window, self._clients, self._began = window, clients, began
        self._served: set[int] = set()
        self.answered = 0  # inside the window
        self.opened: float | None = None
        self.closed: float | None = None

    def note(self, client: int, done: float, *, answered: bool) -> None:
        """A client's request ended, well or not."""
        self._served.add(client)
        if answered and self.opened is not None and self.closed is None:
            self.answered += 1
        self.look(done)

    def look(self, now: float) -> None:
        """Opens or closes the window if its time has come; it is called at every answer and in between."""
        age = now - self._began
        if self.opened is None:
            warm = age >= self._window.warm_up and len(self._served) == self._clients
            if warm or age >= self._window.longest_warm_up:
                self.opened = now
        elif self.closed is None:
            enough = now - self.opened >= self._window.duration and self.answered >= self._window.requests
            if enough or age >= self._window.longest:
                self.closed = now
