"""python -m benchmarks.peers: our students and teachers beside spaCy, UDPipe and CRFsuite, on one corpus.

Trains what is not trained yet (some hours, once; what is there is taken as it is), scores every
system on the test split, times all of them in turn in this process on one thread, and writes the report.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.system import TRAINED

EPILOG = """\
examples:
  everything:
    python -m benchmarks.peers
  training alone, for instance two of them side by side in two terminals:
    python -m benchmarks.peers --train ours
    python -m benchmarks.peers --train spacy udpipe crfsuite
  a report without the systems that take long to train:
    python -m benchmarks.peers --systems ours crfsuite

It writes peers.json, peers.md and peers.svg into --out. What was trained lies in --run, a folder a system;
delete one to have it trained anew. Exit status: 0 measured, 1 something could not be trained or read, 2 a
wrong option, 130 stopped by Ctrl-C.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if os.environ.get("OMP_NUM_THREADS") != "1":
        print(
            "peers: set OMP_NUM_THREADS=1, as make peers does: libraries take all cores else",
            file=sys.stderr,
        )
        return 2
    from benchmarks.peers.comparison import (
        run,  # slow to import: neither --help nor a wrong option should wait for it
    )

    return run(options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--systems", nargs="+", choices=TRAINED, default=TRAINED, help="which to compare (all)"
    )
    parser.add_argument("--train", nargs="+", choices=TRAINED, help="train these, and measure nothing")
    parser.add_argument("--corpus", default="en_ewt", help="name or folder, with entities and trees (en_ewt)")
    parser.add_argument("--run", type=Path, default=Path("runs/peers"), help="what was trained (runs/peers)")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of the report (reports)")
    parser.add_argument("--rounds", type=_positive, default=5, help="in which all take turns (5)")
    parser.add_argument(
        "--sample", type=_positive, default=200, help="sentences on which teachers are timed (200)"
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
