"""A small server with the command line and the paths of the real one; the manifest's "fake" says how it acts.

delay       seconds an answer takes; one after the other
refuse      requests that may wait at once; beyond them the answer is 429
fail_every  every so many requests get status 500
few_every   every so many requests get a result too few
model       the name it gives itself
version     what /info says of the bundle's version
heads       what /parse answers for every sentence
crash       text to print before ending with status 3
journal     file that gets the process id and the cores that it may use, and then, for each request, the first
            word of each sentence
"""

import argparse
import json
import os
import sys
import threading
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
    journal = Path(fake.get("journal", os.devnull)).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115
    journal.write(f"{os.getpid()} {sorted(os.sched_getaffinity(0))}\n")
    name = fake.get("model", manifest_path.parent.name)
    model = {"name": name, "task": manifest["task"], "version": fake.get("version", manifest["digest"][:4])}
    info = {"models": [model], "queue": {"max_queue_tokens": 4096}, "times": {"request_seconds": 300.0}}
    numbers = count(1)
    turn = threading.Lock()
    waiting: list[None] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.answer(200 if self.path in ("/readyz", "/info") else 404, info)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sentences = body["sentences"] if "sentences" in body else [text.split() for text in body["texts"]]
            if len(waiting) >= fake.get("refuse", sys.maxsize):
                self.answer(429, {"code": "overloaded"})
                return
            waiting.append(None)
            with turn:
                journal.write(" ".join(sentence[0] for sentence in sentences) + "\n")
                time.sleep(fake.get("delay", 0.0))
                number = next(numbers)
            waiting.pop()
            if number % fake.get("fail_every", sys.maxsize) == 0:
                self.answer(500, {"code": "broken"})
                return
            few = number % fake.get("few_every", sys.maxsize) == 0
            results = [self.result(sentence) for sentence in sentences[few:]]
            self.answer(200, {"model": name, "results": results})

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

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    Server((options.host, int(options.port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
