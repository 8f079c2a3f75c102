"""Packages that only some uses need: imported then, and where one is missing its extra is named."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """A package that is not installed; the message names the extra that brings it."""


@contextmanager
def extra(name: str, use: str) -> Iterator[None]:
    """Put around the imports of the extra's packages; ``use`` says what needs them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{use} needs the package {error.name}: pip install 'structural-kd[{name}]'", name=error.name
        ) from error
