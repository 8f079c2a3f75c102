"""The lines of a stream of any size, with a place that a later run can go on from."""

import hashlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

CHUNK_BYTES = 1 << 20


class Line(NamedTuple):
    """A line without its line break, or why it cannot be read. Lines count from 1."""

    number: int
    text: str
    fault: str | None = None


class OtherInputError(ValueError):
    """The input does not begin with the bytes that were read before."""


class Lines:
    """Reads UTF-8 lines that end in LF or CRLF, and counts and hashes what it has read.

    No more than one line is in memory, and of a line longer than `max_bytes` no more than that: the rest of
    it is skipped in chunks. Such a line, or one that is not UTF-8, comes with its `fault`; the next is read
    as usual. A byte order mark at the beginning is skipped.

    >>> import io
    >>> [line.text for line in Lines(io.BytesIO("Ada\\r\\nלאה".encode()), max_bytes=100)]
    ['Ada', 'לאה']
    """

    def __init__(self, stream: BinaryIO, *, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.count = 0

    @property
    def sha256(self) -> str:
        """Of all bytes read so far."""
        return self._digest.hexdigest()

    def skip(self, size: int, count: int, sha256: str, report: Callable[[int], object]) -> None:
        """Goes on after the `count` lines in the first `size` bytes; `report` gets each chunk's size.

        Raises:
            OtherInputError: these bytes have another hash, or there are fewer of them.
        """
        while self.bytes < size:
            chunk = self._read(self._stream.read, min(CHUNK_BYTES, size - self.bytes))
            if not chunk:
                raise OtherInputError(f"it ends after {self.bytes:,} bytes")
            report(len(chunk))
        if self.sha256 != sha256:
            raise OtherInputError(f"its first {size:,} bytes are not those that were annotated")
        self.count = count

    def __iter__(self) -> Iterator[Line]:
        readline = self._stream.readline
        while data := self._read(readline, self._max_bytes + len(b"\r\n")):
            self.count += 1
            content = data.removesuffix(b"\n").removesuffix(b"\r")
            if len(content) > self._max_bytes:
                while data and not data.endswith(b"\n"):
                    data = self._read(readline, CHUNK_BYTES)
                limit = f"{self._max_bytes:,} bytes (--max-line-bytes)"
                yield Line(self.count, "", f"the line is too long; expected at most {limit}")
                continue
            try:
                text = content.decode()
            except UnicodeDecodeError as error:
                yield Line(self.count, "", f"byte {error.start + 1} of the line is not UTF-8; expected UTF-8")
                continue
            yield Line(self.count, text.removeprefix("\ufeff") if self.count == 1 else text)

    def _read(self, read: Callable[[int], bytes], size: int) -> bytes:
        data = read(size)
        self._digest.update(data)
        self.bytes += len(data)
        return data
