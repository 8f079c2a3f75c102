"""The command `python -m serve`: gunicorn over the bundles of a folder."""

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource

from serve.models.discovery import StartError, find_bundles
from serve.process.master import GunicornServer, prepare
from serve.settings import Settings

USAGE_ERROR = 2

DESCRIPTION = """\
Serve the bundles of a folder over HTTP: POST /ner, POST /parse, and for bulk work POST /ner/stream,
POST /parse/stream; GET /models, /info, /metrics, /docs; a page to try it at /.
"""

EPILOG = """\
Each sub-folder of --bundles with a manifest.json is a model, named as its folder. `make distill` makes them.
Versions can lie side by side in a folder of their model: ner/1/manifest.json, ner/2/manifest.json; a request
for "ner" gets the newest, "ner@1" is the other one.

examples:
  python -m serve --bundles bundles
  python -m serve --workers 4 --port 9000           one worker a core is the fastest for many small requests
  python -m serve --workers 1 --threads 4           for few large ones
  python -m serve --host 0.0.0.0 --api-keys keys.txt
  curl -H 'Content-Type: application/json' -d '{"texts": ["Ada Lovelace was born in London."]}' \\
       http://127.0.0.1:8000/ner

Every option can be given as a variable too, SERVE_BUNDLES, SERVE_PORT, SERVE_LIMITS__ITEMS and so on; the
option wins.

SIGHUP looks for new, changed and removed bundles, which take over without a failed request. SIGTERM lets
running requests end, then stops. Exit status: 0 stopped, 2 nothing to serve or a wrong setting, 3 a bundle
does not load.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until it is told to stop; returns the exit status (2: nothing was started)."""
    parser = argparse.ArgumentParser(
        "python -m serve",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(
        Settings,
        root_parser=parser,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
    )
    try:
        given = None if arguments is None else list(arguments)
        settings = CliApp.run(Settings, cli_args=given, cli_settings_source=options)
        find_bundles(settings.bundles)
    except ValidationError as error:
        for fault in error.errors():
            name = ".".join(str(step) for step in fault["loc"]) or "limits"
            print(f"serve: the setting {name} is {fault['input']!r}: {fault['msg']}", file=sys.stderr)
        return USAGE_ERROR
    except StartError as error:
        print(f"serve: {error}", file=sys.stderr)
        return USAGE_ERROR
    GunicornServer(prepare(settings)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
