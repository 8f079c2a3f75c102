"""The command `python -m serve`: gunicorn over the bundles of a folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError

from serve.models.discovery import StartError, find_bundles
from serve.process.master import NOT_VARIABLES, Server, prepare
from serve.settings import Limits, Settings

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until it is told to stop; returns the exit status (2: nothing was started)."""
    given = {
        name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None
    }
    try:
        settings = Settings(**given)
        find_bundles(settings.bundles)
    except ValidationError as error:
        for fault in error.errors():
            name = ".".join(str(step) for step in fault["loc"]) or "limits"
            print(f"serve: the setting {name} is {fault['input']!r}: {fault['msg']}", file=sys.stderr)
        return USAGE_ERROR
    except StartError as error:
        print(f"serve: {error}", file=sys.stderr)
        return USAGE_ERROR
    Server(prepare(settings)).run()
    return 0


def _parser() -> argparse.ArgumentParser:
    limits = "\n".join(
        f"  SERVE_LIMITS__{name.upper():<17} {field.default:>8}  {field.description}"
        for name, field in Limits.model_fields.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="Serve the bundles of a folder over HTTP: POST /ner, POST /parse, and for bulk work "
        "POST /ner/stream, POST /parse/stream; GET /models, /info, /metrics, /docs; a page to try it at /.",
        epilog=f"""\
Each sub-folder of --bundles with a manifest.json is a model, named as its folder. `make distill` makes them.
Versions can lie side by side in a folder of their model: ner/1/manifest.json, ner/2/manifest.json; a request
for "ner" gets the newest, "ner@1" is the other one.

examples:
  python -m serve --bundles bundles
  python -m serve --workers 4 --port 9000           one worker a core is the fastest for many small requests
  python -m serve --workers 1 --threads 4           for few large ones
  python -m serve --host 0.0.0.0 --api-keys keys.txt
  curl -H 'Content-Type: application/json' -d '{{"texts": ["Ada Lovelace was born in London."]}}' \\
       http://127.0.0.1:8000/ner

Every option can be given as a variable too, SERVE_BUNDLES, SERVE_PORT and so on; the option wins.
SERVE_DEFAULTS__NER and SERVE_DEFAULTS__PARSE name the models that answer where a request names none.
The limits of a request are variables only:
{limits}

SIGHUP looks for new, changed and removed bundles, which take over without a failed request. SIGTERM lets
running requests end, then stops. Exit status: 0 stopped, 2 nothing to serve or a wrong setting, 3 a bundle
does not load.
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, field in Settings.model_fields.items():
        if name in NOT_VARIABLES:
            continue
        option = f"--{name.replace('_', '-')}"
        default = "" if field.default is None else f" Default: {field.default}."
        description = f"{field.description}{default}".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(option, action="store_true", default=None, help=description)
        else:
            parser.add_argument(option, type=str, metavar=_metavar(field.annotation, name), help=description)
    return parser


def _metavar(annotation: Any, name: str) -> str:
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    if all(isinstance(kind, str) for kind in kinds):
        return "|".join(kinds)
    if Path in kinds:
        return "PATH"
    return "S" if name.endswith("_seconds") else "ADDRESS" if name == "host" else "N"


if __name__ == "__main__":
    sys.exit(main())
