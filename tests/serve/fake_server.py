"""`python -m serve` or `gunicorn` over fake models: `python -m tests.serve.fake_server serve --port 9000`.

A bundle is a folder whose manifest.json says {"task": …, "delay": seconds of each run, "broken": …}.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import serve.models.discovery
from serve.settings import Settings
from serve.telemetry.metrics_folder import VARIABLE
from tests.serve.fakes import FakeManifest, FakeNer, FakeParser, Tagged


@dataclass
class SlowNer(FakeNer):
    delay: float = 0

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        time.sleep(self.delay)
        if any("poison" in words for words in sentences):
            raise ValueError("cannot answer " + " ".join(map(str, sentences)))
        return super().predict(sentences)


def load_bundle(folder: Path, settings: Settings) -> Any:
    says = json.loads((folder / "manifest.json").read_text())
    logging.getLogger("serve").info("metrics folder: %s", os.environ[VARIABLE])
    if says.get("broken"):
        raise ValueError("model.onnx was changed")
    if says.get("task") == "parse":
        return FakeParser()
    return SlowNer(FakeManifest(), delay=says.get("delay", 0))


def main() -> None:
    serve.models.discovery.load_bundle = load_bundle
    command, *sys.argv[1:] = sys.argv[1:]
    if command == "gunicorn":
        from gunicorn.app.wsgiapp import run

        run()
    else:
        from serve.__main__ import main

        sys.exit(main())


if __name__ == "__main__":
    main()
