"""The command `python -m serve`: gunicorn over the bundles of a folder."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from pydantic import ValidationError
from starlette.types import ASGIApp

from serve.bundles import StartError, bundle_folders
from serve.settings import Limits, Settings

USAGE_ERROR = 2


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn with uvicorn workers; each builds its application, and so its sessions, after the fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        chosen: dict[str, Any] = {
            "bind": f"{self.settings.host}:{self.settings.port}",
            "workers": self.settings.workers,
            "worker_class": "uvicorn_worker.UvicornWorker",
            "graceful_timeout": self.settings.graceful_seconds,
            "timeout": 120,
            "control_socket_disable": True,
            "proc_name": "serve",
        }
        if os.access("/dev/shm", os.W_OK):
            chosen["worker_tmp_dir"] = "/dev/shm"
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        # Options become variables, so that the module's own application is this one.
        for name, value in self.settings.model_dump(exclude={"limits"}).items():
            os.environ[f"SERVE_{name.upper()}"] = str(value)
        from serve.app import app

        logging.basicConfig(
            level=logging.INFO, format="[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
        )
        return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until it is told to stop; returns the exit status (2: nothing was started)."""
    given = {
        name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None
    }
    try:
        settings = Settings(**given)
        bundle_folders(settings.bundles)
    except ValidationError as error:
        for fault in error.errors():
            name = ".".join(str(step) for step in fault["loc"])
            print(f"serve: the setting {name} is {fault['input']!r}: {fault['msg']}", file=sys.stderr)
        return USAGE_ERROR
    except StartError as error:
        print(f"serve: {error}", file=sys.stderr)
        return USAGE_ERROR
    Server(settings).run()
    return 0


def _parser() -> argparse.ArgumentParser:
    limits = "\n".join(
        f"  SERVE_LIMITS__{name.upper():<17} {field.default:>8}  {field.description}"
        for name, field in Limits.model_fields.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="Serve the bundles of a folder over HTTP: POST /ner, POST /parse, GET /info, GET /docs.",
        epilog=f"""\
Each sub-folder of --bundles with a manifest.json is a model, named as its folder. `make distill` makes them.

examples:
  python -m serve --bundles bundles
  python -m serve --workers 4 --port 9000           one worker a core is the fastest for many small requests
  python -m serve --workers 1 --threads 4           for few large ones
  curl -H 'Content-Type: application/json' -d '{{"texts": ["Ada Lovelace was born in London."]}}' \\
       http://127.0.0.1:8000/ner

Every option can be given as a variable too, SERVE_BUNDLES, SERVE_PORT and so on; the option wins.
The limits of a request are variables only:
{limits}

SIGTERM lets running requests end, then stops. Exit status: 0 stopped, 2 nothing to serve or a wrong setting,
3 a bundle does not load.
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def option(name: str, kind: type, metavar: str) -> None:
        field = Settings.model_fields[name]
        description = f"{field.description} Default: {field.default}."
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=description)

    option("bundles", Path, "FOLDER")
    option("host", str, "ADDRESS")
    option("port", int, "PORT")
    option("workers", int, "N")
    option("threads", int, "N")
    option("device", str, "cpu|cuda|tensorrt")
    option("graceful_seconds", int, "S")
    return parser


if __name__ == "__main__":
    sys.exit(main())
