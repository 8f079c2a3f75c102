"""JSON that means one thing: no key twice, finite numbers, each field there and of its type."""

import json
from functools import cache
from math import isfinite
from typing import Any, TypeVar

T = TypeVar("T")


class RepeatedKeyError(ValueError):
    """An object has a key twice; which one counts is not said anywhere."""


def parse(text: str) -> Any:
    """A value from JSON.

    Raises:
        ValueError: it is no JSON, a key is there twice, or a number is not finite or far too long.
        RecursionError: it is nested too deep.
    """
    return _decoder.decode(text)


def validated(cls: type[T], text: str) -> T:
    """A dataclass from JSON: every field there, of its type and in its range, and no other.

    Raises:
        ValueError: the message names the first wrong field, as ``files.words.size`` or ``labels[1]``.
    """
    from pydantic import ValidationError

    try:
        value: T = _adapter(cls).validate_json(text)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in wrong["loc"])
        shown = repr(wrong["input"])
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise ValueError(f"{place.lstrip('.') or 'the object'}: {wrong['msg']}; found {shown}") from None
    return value


@cache
def _adapter(cls: type) -> Any:
    from pydantic import ConfigDict, TypeAdapter, with_config  # 100 ms, which not every use need take

    return TypeAdapter(with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))(cls))


def _finite(number: str) -> float:
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number} is not finite")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RepeatedKeyError(f"the field {twice!r} is there twice")
    return fields


_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number, object_pairs_hook=_distinct)
