"""How to send lines of JSON: a hook of schemathesis, which finds it through SCHEMATHESIS_HOOKS."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/jsonl")
def lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """An example of the description as it stands; else what was made up, as text, sentence and bare line."""
    text = str(value)
    if not text.startswith("{"):
        text = "\n".join((json.dumps({"text": text}), json.dumps({"tokens": text.split()}), text))
    return text.encode(errors="surrogatepass")
