"""A hook of schemathesis, which knows no lines of JSON: what it sends to the endpoints that read them.

It is loaded through SCHEMATHESIS_HOOKS.
"""

import json
from typing import Any

import schemathesis
from hypothesis import strategies as st

_text = st.text(max_size=200)
_objects = st.one_of(
    st.fixed_dictionaries({"text": _text}, optional={"id": st.integers(), "x": st.none()}),
    st.fixed_dictionaries({"tokens": st.lists(_text, max_size=20)}),
    st.fixed_dictionaries({"sentences": st.lists(st.lists(_text, max_size=8), max_size=4)}),
    st.dictionaries(_text, st.none() | st.booleans() | st.floats() | _text, max_size=3),
)
_lines = _objects.map(lambda line: json.dumps(line).encode()) | st.binary(max_size=100)


@schemathesis.serializer("application/jsonl")
def as_it_is(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """An example of the description is sent as it stands there."""
    return value if isinstance(value, bytes) else str(value).encode()


schemathesis.openapi.media_type("application/jsonl", st.lists(_lines, max_size=8).map(b"\n".join))
