"""A small server with the command line and the paths of the real one; the manifest's "fake" says how it acts.

delay       seconds an answer takes
fail_every  every so many requests get status 500
model       the name it gives itself
heads       what /parse answers for every sentence
crash       text to print before ending with status 3
journal     file that gets the process id and then, for each request, the first word of each sentence
"""

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ("--bundles", "--host", "--port", "--workers", "--threads"):
        parser.add_argument(option, required=True)
    options = parser.parse_args()
    [manifest_path] = Path(options.bundles).glob("*/manifest.json")
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    fake = manifest.get("fake", {})
    if "crash" in fake:
        print(fake["crash"], flush=True)
        sys.exit(3)
    journal = Path(fake.get("journal", os.devnull)).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115
    journal.write(f"{os.getpid()}\n")
    numbers = count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200 if self.path == "/readyz" else 404, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sentences = body["sentences"] if "sentences" in body else [text.split() for text in body["texts"]]
            journal.write(" ".join(sentence[0] for sentence in sentences) + "\n")
            time.sleep(fake.get("delay", 0.0))
            if next(numbers) % fake.get("fail_every", sys.maxsize) == 0:
                self.answer(500, {"code": "broken"})
                return
            results = [self.result(sentence) for sentence in sentences]
            self.answer(200, {"model": fake.get("model", manifest_path.parent.name), "results": results})

        def result(self, tokens: list[str]) -> dict[str, object]:
            if self.path == "/ner":
                return {"tokens": tokens, "entities": [{"label": "PER", "start": 0, "end": 1}]}
            heads = fake.get("heads", list(range(len(tokens))))
            return {"tokens": tokens, "heads": heads, "deprels": ["dep"] * len(heads)}

        def answer(self, status: int, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    ThreadingHTTPServer((options.host, int(options.port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
