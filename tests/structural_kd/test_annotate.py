"""Bulk annotation: formats, order, bad lines, memory."""

import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import structural_kd
from structural_kd.__main__ import main
from structural_kd.annotate.lines import Lines
from structural_kd.annotate.readers import READERS, ReaderSettings
from structural_kd.annotate.records import TOKEN_CHARACTERS, BadRecord
from structural_kd.annotate.stream import windows
from tests.export.tiny_models import bundle_of
from tests.structural_kd.annotation_fakes import fake_bundle, load

ROOT = Path(__file__).resolve().parents[2]
SECRET = "Zyzzyva"

TREEBANK = """\
# newdoc id = letters
# sent_id = 1
# text = Vámonos al mar
1-2	Vámonos	_	_	_	_	_	_	_	SpaceAfter=No
1	Vamos	ir	VERB	_	Mood=Imp	0	root	0:root	NER=B-X|Gloss=go
2	nos	nosotros	PRON	_	_	1	obj	1:obj	_
2.1	vamos	ir	VERB	_	_	_	_	0:root	_
3	mar	mar	NOUN	_	_	1	obl	1:obl	Gloss=sea
"""


class Outcome(NamedTuple):
    status: int
    output: str
    errors: str

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for line in self.output.split("\n")[:-1]]


Annotate = Callable[..., Outcome]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structural_kd, "load", load)


@pytest.fixture
def annotate(tmp_path: Path, capsys: pytest.CaptureFixture[str], fakes: None) -> Annotate:
    """annotate(input, "name.suffix", *options, tasks=…) runs the command with fakes on a file."""
    number = iter(range(1000))

    def run(content: str | bytes, name: str, *options: str, tasks: Sequence[str] = ("ner",)) -> Outcome:
        folder = tmp_path / str(next(number))
        bundles = [
            each
            for index, task in enumerate(tasks)
            for each in ("--bundle", str(fake_bundle(folder / str(index), *task.split())))
        ]
        given, output = folder / name, folder / "out"
        given.write_bytes(content.encode() if isinstance(content, str) else content)
        arguments = ["annotate", *bundles, "--input", str(given), "--output", str(output), *options]
        status = main(arguments)
        assert not list(folder.glob("out.parts")) or status >= 2
        written = output.read_text(encoding="utf-8") if output.exists() else ""
        return Outcome(status, written, capsys.readouterr().err.replace(f"{folder}/", ""))

    return run


def names(record: dict[str, Any]) -> list[str]:
    return [entity["text"] for entity in record["entities"]]


@pytest.mark.parametrize("longest", [512, 3])
def test_two_tasks_together_give_the_results_of_each(annotate: Annotate, longest: int) -> None:
    texts = ["Ada met Lord Byron. They talked.", "", "שלום, Ada 👩‍👩‍👧!", "a,\n\nb"]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    options = (f"--sentence-tokens={longest}",)
    tagged = annotate(lines, "in.jsonl", *options).records
    trees = annotate(lines, "in.jsonl", *options, tasks=["parse"]).records
    both = annotate(lines, "in.jsonl", *options, tasks=["ner", "parse"])
    assert both.records == [one | other for one, other in zip(tagged, trees, strict=True)]
    assert (both.status, both.errors) == (0, "")


def test_raw_text_is_a_document_a_line_and_an_empty_line_an_empty_record(annotate: Annotate) -> None:
    found = annotate("Ada isn't in. Why?\n\nByron is.\r\nlast", "in.txt", tasks=["parse", "ner"])
    assert [len(record["sentences"]) for record in found.records] == [2, 0, 1, 1]
    assert [names(record) for record in found.records] == [["Ada", "Why"], [], ["Byron"], []]
    entity = found.records[0]["entities"][1]
    assert (entity["start"], entity["start_char"], entity["end_char"]) == (5, 14, 17)
    assert found.records[0]["heads"] == [0, 1, 2, 3, 4, 0, 6]


def test_tokens_are_separated_by_blanks_and_tabs_only(annotate: Annotate) -> None:
    found = annotate("\ufeffAda  10\u00a0000\tisn't \n\n.", "in", "--input-format", "tokens")
    assert [record["tokens"] for record in found.records] == [["Ada", "10\u00a0000", "isn't"], [], ["."]]


def test_sentences_of_tokens_are_one_record_and_stay_apart(annotate: Annotate) -> None:
    line = json.dumps({"sentences": [["a", "Bo"], [], ["c", "D"]]})
    (record,) = annotate(line, "in.jsonl", tasks=["ner", "parse"]).records
    assert record["tokens"] == ["a", "Bo", "c", "D"]
    assert record["heads"] == [0, 1, 0, 3]
    assert [(each["start"], each["end"]) for each in record["sentences"]] == [(0, 2), (2, 2), (2, 4)]
    assert [(each["start"], each["text"]) for each in record["entities"]] == [(1, "Bo"), (3, "D")]


def test_other_keys_are_carried_and_earlier_results_replaced(annotate: Annotate) -> None:
    carried = {"id": "ä\u2028", "meta": {"n": [1, 2.5, None, True]}, "heads": 2}
    line = {**carried, "tokens": ["Ada"], "entities": 1}
    (record,) = annotate(json.dumps(line), "in.jsonl").records
    assert {key: record[key] for key in carried} == carried
    assert names(record) == ["Ada"]
    (again,) = annotate(json.dumps(record), "in.jsonl", tasks=["parse"]).records
    assert names(again) == ["Ada"]
    assert again["heads"] == [0]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"Zyzzyva", "not JSON (Expecting value, column 1)"),
        (b'{"tokens": ["Zyzzyva"]', "not JSON (Expecting ',' delimiter, column 23)"),
        (b"", "not JSON"),
        (b'"Zyzzyva"', "no object"),
        (b'{"Zyzzyva": 1}', "0 of the keys"),
        (b'{"text": "Zyzzyva", "tokens": []}', "2 of the keys"),
        (b'{"text": "a", "text": "Zyzzyva"}', "a key of an object is there twice"),
        (b'{"tokens": ["a"], "id": {"b": 1, "b": "Zyzzyva"}}', "a key of an object is there twice"),
        (b'{"tokens": ["a"], "error": "Zyzzyva"}', "the key error"),
        (b'{"text": ["Zyzzyva"]}', "text is no string"),
        (b'{"tokens": "Zyzzyva"}', "expected a list of strings"),
        (b'{"sentences": ["Zyzzyva"]}', "expected a list of lists"),
        (b'{"tokens": ["Zyzzyva", 3]}', "not a string"),
        (b'{"tokens": ["Zyzzyva", ""]}', "token 2 is empty"),
        (b'{"tokens": [" Zyzzyva"]}', "token 1 begins or ends with white space"),
        (b'{"tokens": ["Zyz\\u0000zyva"]}', "token 1 has a control character"),
        (b'{"tokens": ["a", "Zyz\\nzyva"]}', "token 2 has a control character"),
        (b'{"tokens": ["Zyz\\u2028zyva"]}', "token 1 has a control character"),
        (json.dumps({"tokens": ["Z" * (TOKEN_CHARACTERS + 1)]}).encode(), "1,001 characters"),
        (json.dumps({"tokens": ["a"] * 513}).encode(), "a sentence of 513 tokens"),
        (b'{"tokens": ["Zyzzyva\\ud83d"]}', "surrogate"),
        (b'{"tokens": ["a"], "id": "\\udead"}', "surrogate"),
        (b'{"tokens": ["a"], "id": NaN}', "number"),
        (b'{"tokens": ["a"], "id": 1e999}', "number"),
        (b'{"tokens": ["a"], "id": ' + b"9" * 5000 + b"}", "number"),
        (b'{"tokens": ["a"], "id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b'{"tokens": ["a"], "id": "' + b"Z" * 300_000 + b'"}', "the line is too long"),
        (b'{"tokens": ["Zyzzyva\xff"]}', "byte 21 of the line is not UTF-8"),
    ],
)
def test_a_bad_line_is_reported_by_number_and_its_place_kept(
    annotate: Annotate, line: bytes, wrong: str
) -> None:
    content = b'{"tokens": ["Ada"]}\n' + line + b'\n{"tokens": ["Bo"]}\n'
    found = annotate(content, "in.jsonl", "--max-line-bytes=250000")
    assert found.status == 1
    report, count = found.errors.splitlines()
    assert report.startswith("in.jsonl:2: ")
    assert wrong in report
    assert "; expected" in report
    assert SECRET not in found.errors + found.output
    assert count == "annotate: 1 of 3 records were bad; they are reported above"
    first, bad, last = found.records
    assert (names(first), names(last)) == (["Ada"], ["Bo"])
    assert bad == {"error": {"line": 2, "message": report.removeprefix("in.jsonl:2: ")}}


@pytest.mark.parametrize("depth", [*range(100, 900, 200), *range(900, 1000, 9)])
def test_nested_values_are_carried_or_reported_but_never_stop_the_run(annotate: Annotate, depth: int) -> None:
    content = '{"tokens": ["Ada"], "id": ' + "[" * depth + "]" * depth + "}\n" + '{"tokens": ["Bo"]}\n'
    found = annotate(content, "in.jsonl")
    assert found.status in (0, 1)
    assert names(found.records[1]) == ["Bo"]


def test_conllu_keeps_all_but_the_answers(annotate: Annotate) -> None:
    found = annotate(
        TREEBANK + "\n" + "# only a comment\n\n\n" + TREEBANK, "in.conllu", tasks=["parse", "ner"]
    )
    assert (found.status, found.errors) == (0, "")
    annotated = """\
# newdoc id = letters
# sent_id = 1
# text = Vámonos al mar
1-2	Vámonos	_	_	_	_	_	_	_	SpaceAfter=No
1	Vamos	ir	VERB	_	Mood=Imp	0	root	0:root	Gloss=go|NER=S-NAME
2	nos	nosotros	PRON	_	_	1	dep	1:obj	NER=O
2.1	vamos	ir	VERB	_	_	_	_	0:root	_
3	mar	mar	NOUN	_	_	2	dep	1:obl	Gloss=sea|NER=O

"""
    assert found.output == annotated + "# only a comment\n\n" + annotated

    rows = [line.split("\t") for line in annotate(TREEBANK, "in.conllu").output.splitlines() if "\t" in line]
    given = [line.split("\t") for line in TREEBANK.splitlines() if "\t" in line]
    assert [row[:9] for row in rows] == [row[:9] for row in given], "trees stay where only entities are found"


def test_conllu_to_json_lines_has_the_words_and_the_comments(annotate: Annotate) -> None:
    (record,) = annotate(TREEBANK, "in.conllu", "--output-format=jsonl").records
    assert record["tokens"] == ["Vamos", "nos", "mar"]
    assert record["comments"] == TREEBANK.splitlines()[:3]


@pytest.mark.parametrize(
    ("block", "line", "wrong"),
    [
        ("1\tZyzzyva\n", 6, "2 columns"),
        ("# a\n1\tZyzzyva" + "\t_" * 8 + "\n# Zyzzyva\n", 8, "a comment inside"),
        ("1\ta" + "\t_" * 8 + "\n3\tZyzzyva" + "\t_" * 8 + "\n", 7, "the id is not the next; expected 2"),
        ("1\ta" + "\t_" * 8 + "\nZyzzyva\tb" + "\t_" * 8 + "\n", 7, "the id is not the next"),
        ("1\ta" + "\t_" * 8 + "\n" + "9" * 1000 + "\tb" + "\t_" * 8 + "\n", 7, "the id is not the next"),
        ("2-3\tZyzzyva" + "\t_" * 8 + "\n1\ta" + "\t_" * 8 + "\n", 6, "a range that does not fit"),
        ("1-2\tZyzzyva" + "\t_" * 8 + "\n1\ta" + "\t_" * 8 + "\n", 7, "expected 2, as a range says"),
        ("# a\n1\ta" + "\t_" * 8 + "\n2\t" + "\t_" * 8 + "\n", 8, "token 2 is empty"),
        ("1\tZyz\x00zyva" + "\t_" * 8 + "\n", 6, "control character"),
        ("# Zyzzyva\n1\tZyzzyva\udcff" + "\t_" * 8 + "\n", 7, "not UTF-8"),
        ("# " + "Z" * 3000 + "\n1\ta" + "\t_" * 8 + "\n", 6, "the line is too long"),
        (("# " + "Z" * 500 + "\n") * 9 + "1\ta" + "\t_" * 8 + "\n", 6, "the sentence is too long"),
    ],
)
def test_a_bad_sentence_of_conllu_is_reported_and_a_comment_in_its_place(
    annotate: Annotate, block: str, line: int, wrong: str
) -> None:
    good = "1\tAda" + "\t_" * 8 + "\n\n"
    content = "# first\n" + good + "\n\n" + block + "\n" + good  # the block begins at line 6
    found = annotate(content.encode("utf-8", "surrogateescape"), "in.conllu", "--max-line-bytes=2000")
    assert found.status == 1
    report = found.errors.splitlines()[0]
    assert report.startswith(f"in.conllu:{line}: ")
    assert wrong in report
    assert SECRET not in found.errors + found.output
    first, bad, last, end = found.output.split("\n\n")
    assert first.endswith("NER=S-NAME")
    assert last.endswith("NER=S-NAME")
    assert bad == f"# error = line {line}: {report.split(': ', 1)[1]}"
    assert end == ""


def test_raw_text_as_conllu_says_where_it_comes_from_and_where_no_space_was(annotate: Annotate) -> None:
    found = annotate(
        '{"id": 7, "text": "Ada left. Why?"}\n{"text": " "}\n', "in.jsonl", "--output-format=conllu"
    )
    assert found.output == (
        '# newdoc id = line-1\n# carried = {"id":7}\n# sent_id = line-1-1\n# text = Ada left.\n'
        "1\tAda\t_\t_\t_\t_\t_\t_\t_\tNER=S-NAME\n"
        "2\tleft\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No|NER=O\n"
        "3\t.\t_\t_\t_\t_\t_\t_\t_\tNER=O\n\n"
        "# sent_id = line-1-2\n# text = Why?\n"
        "1\tWhy\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No|NER=S-NAME\n"
        "2\t?\t_\t_\t_\t_\t_\t_\t_\tNER=O\n\n"
        "# newdoc id = line-2\n\n"
    )


def test_text_output_is_a_sentence_a_line_with_tags(annotate: Annotate) -> None:
    found = annotate("Ada met Bo. Why?\n\n\xff".encode("latin-1"), "in.txt", "--output-format=text")
    assert found.output == "Ada/S-NAME met/O Bo/S-NAME ./O\nWhy/S-NAME ?/O\n\n\n"
    assert found.errors.startswith("in.txt:3: byte 1 of the line is not UTF-8")


@pytest.mark.parametrize("window", [1, 7, 100_000])
@pytest.mark.parametrize("name", ["in.jsonl", "in.txt", "in.conllu"])
def test_the_order_is_that_of_the_input_whatever_the_windows(
    annotate: Annotate, window: int, name: str
) -> None:
    sentences = [["w"] * (i * 7 % 11) + [f"n{i}"] for i in range(80)]
    if name == "in.conllu":
        rows = [[f"{i}\t{word}" + "\t_" * 8 for i, word in enumerate(each, 1)] for each in sentences]
        content = "".join("\n".join(each) + "\n\n" for each in rows)
    elif name == "in.txt":
        content = "".join(" ".join(each) + "\n" for each in sentences)
    else:
        content = "".join(json.dumps({"tokens": each}) + "\n" for each in sentences)
    options = (f"--window-tokens={window}", "--output-format=jsonl")
    found = annotate(content, name, *options, tasks=["parse"])
    assert [record["tokens"] for record in found.records] == sentences
    assert found.records[-1]["heads"] == list(range(len(sentences[-1])))


class Endless(io.RawIOBase):
    """The same bytes again and again, up to a size if there is one."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self._data = data
        self._size = size
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), len(self._data))
        if self._size is not None:
            size = min(size, self._size - self.given)
        buffer[:size] = self._data[:size]
        self.given += size
        return size


@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("text", b"Ada met Bo.\n"),
        ("text", b"\n"),
        ("tokens", b"Ada\n"),
        ("jsonl", b'{"tokens": ["Ada"]}\n'),
        ("jsonl", b"bad\n"),
        ("conllu", b"1\tAda" + b"\t_" * 8 + b"\n\n"),
        ("conllu", b"# " + b"c" * 5000 + b"\n\n"),
    ],
)
def test_no_more_than_a_window_is_read_ahead(format: str, data: bytes) -> None:
    stream = Endless(data)
    lines = Lines(io.BufferedReader(stream), max_bytes=10_000)
    reading = ReaderSettings(language="en", sentence_tokens=512, block_bytes=10_000)
    found = list(islice(windows(READERS[format](lines, reading), lines, tokens=500), 3))
    assert len(found) == 3
    assert stream.given < 400_000


@pytest.mark.parametrize("format", ["tokens", "conllu"])
def test_a_line_or_sentence_without_an_end_is_never_held_whole(format: str) -> None:
    size = 64 << 20
    data = b"x" * 8000 if format == "tokens" else b"# " + b"x" * 8000 + b"\n"
    lines = Lines(io.BufferedReader(Endless(data, size)), max_bytes=100_000)
    reading = ReaderSettings(language="en", sentence_tokens=512, block_bytes=100_000)
    tracemalloc.start()
    (bad,) = READERS[format](lines, reading)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(bad, BadRecord)
    assert "too long" in bad.message
    assert lines.bytes == size
    assert peak < 8 << 20


def test_a_file_that_is_no_conllu_is_one_sentence_that_is_too_long() -> None:
    lines = Lines(io.BufferedReader(Endless(b"\xff\n", 200_000)), max_bytes=100_000)
    reading = ReaderSettings(language="en", sentence_tokens=512, block_bytes=100_000)
    (bad,) = READERS["conllu"](lines, reading)
    assert isinstance(bad, BadRecord)
    assert bad.line == 1
    assert "the sentence is too long" in bad.message


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_the_longest_allowed_line_is_read(end: str, last: bool) -> None:
    data = ("a" * 10 + end + "b" * 11 + end + "c" * 10 + (end if last else "")).encode()
    found = list(Lines(io.BytesIO(data), max_bytes=10))
    assert [line.text for line in found] == ["a" * 10, "", "c" * 10]
    assert [bool(line.fault) for line in found] == [False, True, False]


@pytest.mark.parametrize(
    ("name", "options", "tasks", "wrong"),
    [
        ("in.csv", (), ["ner"], "--input-format"),
        ("in.jsonl", ("--output-format=text",), ["parse"], "room for entities only"),
        ("in.jsonl", ("--output-format=text",), ["ner", "parse"], "room for entities only"),
        ("in.jsonl", (), ["ner", "ner"], "a second bundle for 'ner'"),
        ("in.jsonl", (), ["ner en", "parse he"], "several languages: ['en', 'he']"),
        ("in.jsonl", ("--resume", "--output=-"), ["ner"], "--resume needs --output FILE"),
        ("in.jsonl", ("--input=missing.jsonl",), ["ner"], "missing.jsonl: cannot be read"),
        ("in.jsonl", ("--output=missing/out",), ["ner"], "missing/out: cannot be written"),
        ("in.jsonl", ("--output=/dev/null",), ["ner"], "/dev/null: not a file"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(
    annotate: Annotate, name: str, options: tuple[str, ...], tasks: list[str], wrong: str
) -> None:
    found = annotate('{"tokens": ["a"]}', name, *options, tasks=tasks)
    assert found.status == 2
    assert wrong in found.errors
    assert found.output == ""


@pytest.mark.usefixtures("fakes")
def test_the_input_is_never_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "in.jsonl"
    given.write_text('{"tokens": ["a"]}')
    (tmp_path / "link.jsonl").symlink_to(given)
    folder = fake_bundle(tmp_path / "bundle", "ner")
    for output in (given, tmp_path / "link.jsonl"):
        options = ["--bundle", str(folder), "--input", str(given), "--output", str(output)]
        assert main(["annotate", *options]) == 2
        assert "the input itself, which would be lost" in capsys.readouterr().err
        assert given.read_text() == '{"tokens": ["a"]}'


@pytest.mark.parametrize(
    "option", ["--threads=0", "--window-tokens=-1", "--max-line-bytes=x", "--device=tpu"]
)
def test_wrong_values_of_options_are_usage_errors(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["annotate", "--bundle", "b", option])
    assert stopped.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err


def test_a_folder_that_is_no_bundle_is_an_error_with_advice(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "structural_kd", "annotate", "--bundle", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input="", check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("annotate: ")
    assert "manifest.json" in found.stderr
    assert found.stdout == ""


def test_spacy_is_imported_where_a_raw_text_is_read_and_torch_never(tmp_path: Path) -> None:
    folder = fake_bundle(tmp_path / "ner", "ner")
    code = """
import sys
import structural_kd
from structural_kd.__main__ import main
from tests.structural_kd.annotation_fakes import load
structural_kd.load = load
assert "spacy" not in sys.modules
folder, tokens, text = sys.argv[1:]
assert main(["annotate", "--bundle", folder, "--input", tokens]) == 0
assert "spacy" not in sys.modules
assert main(["annotate", "--bundle", folder, "--input", text]) == 0
assert "spacy" in sys.modules
assert not {"torch", "fastapi", "tokenizers"} & set(sys.modules)
"""
    (tmp_path / "tokens.jsonl").write_text('{"tokens": ["a"]}\n')
    (tmp_path / "text.jsonl").write_text('{"text": "a"}\n')
    files = [str(folder), str(tmp_path / "tokens.jsonl"), str(tmp_path / "text.jsonl")]
    subprocess.run([sys.executable, "-c", code, *files], cwd=ROOT, check=True, capture_output=True)


def test_bundles_annotate_from_stdin_to_stdout(tmp_path: Path) -> None:
    bundle_of(tmp_path / "ner", "crf")
    bundle_of(tmp_path / "parse", "biaffine")
    command = [sys.executable, "-m", "structural_kd", "annotate"]
    command += ["--bundle", str(tmp_path / "ner"), "--bundle", str(tmp_path / "parse")]
    lines = [{"id": i, "tokens": ["sola", "luna"] * (i % 3)} for i in range(50)]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found = subprocess.run(command, cwd=ROOT, input=content, capture_output=True, check=True)
    assert found.stderr == b""
    records = [json.loads(line) for line in found.stdout.splitlines()]
    assert [{key: record[key] for key in ("id", "tokens")} for record in records] == lines
    assert all(len(record["heads"]) == len(record["tokens"]) for record in records)
    assert all(record["heads"].count(0) == bool(record["tokens"]) for record in records)
