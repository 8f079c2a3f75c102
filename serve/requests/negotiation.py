"""Which format a client prefers (RFC 9110, section 12.5.1)."""


def preferred(accept: str, default: str, *others: str) -> str:
    """The media type of an answer: the default, unless another one is wanted more.

    Another one also wins where both are wanted as much and the default is only part of `*/*`.

    >>> preferred("text/x-conllu, */*", "application/json", "text/x-conllu")
    'text/x-conllu'
    >>> preferred("application/json, text/x-conllu;q=0.5", "application/json", "text/x-conllu")
    'application/json'
    """
    quality: dict[str, float] = {}
    for part in accept.split(","):
        media_type, *parameters = (piece.strip() for piece in part.lower().split(";"))
        quality[media_type] = _quality(parameters)
    kind = default.partition("/")[0]
    best = default
    most = quality.get(default, quality.get(f"{kind}/*", quality.get("*/*", 0.0)))
    for other in others:
        wanted = quality.get(other, 0.0)
        if wanted > most or (0 < wanted == most and best == default and default not in quality):
            best, most = other, wanted
    return best


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
