"""``structural-kd speed``: how many sentences a second a bundle annotates in this process."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import structural_kd
from structural_kd.session import DEVICES

USAGE_ERROR = 2
WARM_UP_SHARE = 0.2


def add_command(commands: Any) -> None:
    """Adds the command to an argument parser's commands."""
    parser = commands.add_parser(
        "speed",
        help="measure how fast a bundle is here",
        description="Annotate a file again and again, so many sentences a call, and print the speed as JSON.",
        epilog="The file has a sentence a line, its tokens split by spaces: runs/NAME/test.txt is one.",
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sentences", type=Path, required=True, metavar="FILE")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="sentences a call; default: 8")
    parser.add_argument("--seconds", type=float, default=5, metavar="S", help="how long; default: 5")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of one call; default: 1")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="default: %(default)s")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    try:
        if options.batch < 1 or options.threads < 1:
            raise ValueError("--batch and --threads are at least 1")
        lines = options.sentences.read_text(encoding="utf-8").split("\n")
        sentences = [tokens for line in lines if (tokens := line.split())]
        if not sentences:
            raise ValueError(f"{options.sentences}: no sentence in it")
        predictor = structural_kd.load(
            options.bundle, threads=options.threads, providers=DEVICES[options.device]
        )
    except (OSError, ValueError) as error:
        print(f"speed: {error}", file=sys.stderr)
        return USAGE_ERROR
    calls = [sentences[i : i + options.batch] for i in range(0, len(sentences), options.batch)]
    _measure(predictor, calls, WARM_UP_SHARE * options.seconds)
    print(json.dumps({"batch": options.batch} | _measure(predictor, calls, options.seconds)))
    return 0


def _measure(
    predictor: "structural_kd.Predictor", calls: Sequence[Sequence[Sequence[str]]], seconds: float
) -> dict[str, float]:
    """Sentences and tokens a second over the calls, again and again for so many seconds."""
    done = tokens = 0
    began = perf_counter()
    while perf_counter() - began < seconds or not done:
        for call in calls:
            predictor.predict(call)
            done += len(call)
            tokens += sum(map(len, call))
            if perf_counter() - began >= seconds:
                break
    took = perf_counter() - began
    return {
        "sentences_per_second": round(done / took, 1),
        "tokens_per_second": round(tokens / took, 1),
        "sentences": done,
        "seconds": round(took, 3),
    }
