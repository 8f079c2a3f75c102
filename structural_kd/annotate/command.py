"""``structural-kd annotate``: entities or trees in files of any size."""

import argparse
import hashlib
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import structural_kd
from structural_kd.annotate.lines import Lines, OtherInputError
from structural_kd.annotate.readers import READERS, ReaderSettings
from structural_kd.annotate.records import SENTENCE_TOKENS
from structural_kd.annotate.run import progress_bar, run
from structural_kd.annotate.shards import Progress, ResumeError, Shards
from structural_kd.annotate.writers import RESULT_KEYS, WRITERS
from structural_kd.extras import MissingExtraError
from structural_kd.manifest import MANIFEST
from structural_kd.session import DEVICES

BAD_RECORDS, USAGE_ERROR, STOPPED, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 130, 141

SUFFIXES: Mapping[str, str] = {".txt": "text", ".jsonl": "jsonl", ".conllu": "conllu"}
STDIO = "-"

EPILOG = """\
examples:
    structural-kd annotate --bundle bundles/ner --input pages.txt --output pages.jsonl
    structural-kd annotate --bundle bundles/ner --bundle bundles/parse < in.jsonl > out.jsonl
    structural-kd annotate --bundle bundles/parse --input in.conllu --output out.conllu --resume
    echo 'Ada Lovelace lived in London .' |
        structural-kd annotate --bundle bundles/ner --input-format tokens --output-format text

input formats:
  text    a raw text a line, of one sentence or several; tokens and sentences are found as the server does
  tokens  a sentence a line, its tokens separated by blanks or tabs
  jsonl   an object a line: {"text": "…"} or {"tokens": ["…", …]} or {"sentences": [["…", …], …]};
          other keys, as "id", are carried to the output
  conllu  CoNLL-U; only ID and FORM are read

output formats:
  jsonl   the line of the input with tokens and, for entities, entities; for trees, heads, deprels, scores and
          sentences: what the HTTP server answers for an item. Comments of CoNLL-U come under "comments".
          cuts are the tokens before which a sentence of a raw text was cut, being too long
  conllu  trees in HEAD and DEPREL, entities in MISC as NER=B-PER (BIOES, NER=O outside)
  text    a sentence a line, each token with its tag: Ada/B-PER Lovelace/E-PER lived/O; entities only
By default a file's suffix says its format (.txt, .jsonl, .conllu), stdin is jsonl, and the output is as the
input, where that is text or tokens jsonl.

Results come in the order of the input, one for each line or CoNLL-U sentence. What cannot be read is reported
on stderr as FILE:LINE: …, and the run goes on; in its place the output has {"error": {"line": …, "message":
…}}, in CoNLL-U a block that is only the comment `# error = line …`, in text an empty line.

With --output FILE the results are in the folder FILE.parts until all of them are there. With --resume a run
that was interrupted, even killed, goes on with what is in it: the finished file is, with the same --device
and --threads, byte for byte that of a run without interruption. Another input, bundle, format or limit is
refused. From a pipe the same input has to come again from its beginning.

Exit status: 0 all annotated; 1 all but the reported lines; 2 nothing done: wrong options, input, bundle or
output; 3 stopped by an error such as a full disk; 130 interrupted; 141 nobody reads the output any more.
"""


class UsageError(ValueError):
    """The options do not fit together, or name something that cannot be used."""


def add_command(commands: Any) -> None:
    """Adds the command to an argument parser's commands."""
    parser = commands.add_parser(
        "annotate",
        help="find entities or trees in files of any size",
        description="Annotate text, JSON lines or CoNLL-U with the entities or trees that a bundle finds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_command)
    add = parser.add_argument
    add(
        "--bundle",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="a bundle; twice for one for entities and one for trees",
    )
    add("--input", default=STDIO, metavar="FILE", help="default: stdin")
    add("--output", default=STDIO, metavar="FILE", help="default: stdout; only a file can be resumed")
    add("--input-format", choices=READERS, help="default: see below")
    add("--output-format", choices=WRITERS, help="default: see below")
    add("--resume", action="store_true", help="go on where an interrupted run with --output FILE was")
    add(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a progress bar on stderr; default: if that is a terminal",
    )
    add("--device", choices=DEVICES, default="cpu", help="where the models run; default: %(default)s")

    def number(name: str, default: int, description: str) -> None:
        add(name, type=_positive, default=default, metavar="N", help=f"{description}; default: {default:,}")

    number("--threads", 1, "threads that one model run may use")
    number("--window-tokens", 16_384, "tokens that are annotated together: more take more memory")
    number(
        "--sentence-tokens",
        SENTENCE_TOKENS,
        "longest sentence: in raw text a longer one is cut, among tokens it is reported",
    )
    number(
        "--max-line-bytes",
        10_000_000,
        "longest line or CoNLL-U sentence; a longer one is reported. A raw text takes 100 times its size in "
        "memory",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


_positive.__name__ = "whole number"  # argparse: invalid … value


def run_command(options: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if options.output == STDIO:
        advice = "; what went to stdout cannot be gone on with, --output FILE can"
    else:
        advice = "; the same command with --resume goes on"
    try:
        return _annotate(options)
    except (UsageError, structural_kd.BundleError, ResumeError, MissingExtraError) as error:
        _print(str(error))
        return USAGE_ERROR
    except KeyboardInterrupt:
        _print(f"interrupted{advice}")
        return INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _print(f"stopped: {error}{advice}")
        if options.output == STDIO:
            _discard_stdout()
        return STOPPED
    except Exception:
        traceback.print_exc()
        _print(f"stopped by the error above{advice}")
        return STOPPED


def _print(message: str) -> None:
    print(f"annotate: {message}", file=sys.stderr)


def _discard_stdout() -> None:
    """Python flushes stdout once more when it ends; where that fails, the exit status would be another."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _annotate(options: argparse.Namespace) -> int:
    files = options.input, options.output
    if options.resume and options.output == STDIO:
        raise UsageError("--resume needs --output FILE: what went to stdout cannot be gone on with")
    if STDIO not in files and all(map(os.path.exists, files)) and os.path.samefile(*files):
        raise UsageError(f"{options.output}: the input itself, which would be lost; give another --output")
    input_format, output_format = _formats(options)
    predictors = _load(options)
    if output_format == "text" and set(predictors) != {"ner"}:
        raise UsageError("text output has room for entities only; choose --output-format jsonl or conllu")
    languages = {predictor.manifest.language for predictor in predictors.values()}
    if len(languages) > 1:
        raise UsageError(
            f"the bundles are for several languages: {sorted(languages)}; annotate with each alone"
        )
    settings = ReaderSettings(
        language=languages.pop(),
        sentence_tokens=options.sentence_tokens,
        block_bytes=options.max_line_bytes,
        replaced=frozenset().union(*(RESULT_KEYS[task] for task in predictors)),
    )
    if input_format == "text":
        _ = settings.segmenter  # where spaCy is missing, before anything is written
    with ExitStack() as stack:
        name, stream = _input(options.input, stack)
        output = None if options.output == STDIO else _output(options, input_format, output_format)
        if output is not None:
            stack.callback(output.close)
        progress = Progress() if output is None else output.progress
        if options.resume:
            _print(f"going on after {progress.records:,} records, line {progress.input_lines:,}")
        lines = Lines(stream, max_bytes=options.max_line_bytes)
        show = sys.stderr.isatty() if options.progress is None else options.progress
        found = run(
            lines,
            READERS[input_format](lines, settings),
            progress,
            name=name,
            predictors=predictors,
            write=WRITERS[output_format],
            window_tokens=options.window_tokens,
            bar=stack.enter_context(progress_bar(stream, name, show=show)),
        )
        try:
            for results in found:
                if output is None:
                    sys.stdout.buffer.write(results)
                    sys.stdout.buffer.flush()
                else:
                    output.write(results)
        except OtherInputError as error:
            raise UsageError(
                f"{name}: not the input of the interrupted run: {error}; give that one, or delete "
                f"{options.output}.parts"
            ) from None
        if output is not None:
            output.finish()
    if progress.bad:
        _print(f"{progress.bad:,} of {progress.records:,} records were bad; they are reported above")
        return BAD_RECORDS
    return 0


def _formats(options: argparse.Namespace) -> tuple[str, str]:
    found = options.input_format or (
        "jsonl" if options.input == STDIO else SUFFIXES.get(Path(options.input).suffix)
    )
    if found is None:
        raise UsageError(
            f"{options.input}: its suffix is none of {', '.join(SUFFIXES)}; give its --input-format"
        )
    same = "jsonl" if found in ("text", "tokens") else found
    return found, options.output_format or SUFFIXES.get(Path(options.output).suffix, same)


def _load(options: argparse.Namespace) -> dict[str, structural_kd.Predictor]:
    """The predictors by task."""
    predictors: dict[str, structural_kd.Predictor] = {}
    for folder in options.bundle:
        predictor = structural_kd.load(folder, threads=options.threads, providers=DEVICES[options.device])
        task = predictor.manifest.task
        if task in predictors:
            raise UsageError(f"{folder}: a second bundle for {task!r}; give at most one for each task")
        predictors[task] = predictor
    return predictors


def _input(path: str, stack: ExitStack) -> tuple[str, BinaryIO]:
    if path == STDIO:
        return "<stdin>", sys.stdin.buffer
    try:
        return path, stack.enter_context(open(path, "rb"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _output(options: argparse.Namespace, input_format: str, output_format: str) -> Shards:
    # A manifest has the hashes of all files of its bundle.
    manifests = [(folder / MANIFEST).read_bytes() for folder in options.bundle]
    settings = {
        "bundles": sorted(hashlib.sha256(manifest).hexdigest() for manifest in manifests),
        "input_format": input_format,
        "output_format": output_format,
        "window_tokens": options.window_tokens,
        "sentence_tokens": options.sentence_tokens,
        "max_line_bytes": options.max_line_bytes,
    }
    try:
        return Shards(Path(options.output), settings, resume=options.resume)
    except OSError as error:
        raise UsageError(f"{options.output}: cannot be written: {error.strerror}") from error
