"""Raw text in the files that people have it in."""

import gzip
import json
import sys
from pathlib import Path

import pytest

from structural_kd.extras import MissingExtraError
from train.corpora import CorpusError, CorpusWarning, read_text
from train.corpora.raw_text import TEXT_CHARACTERS, RawText, find_files, read_raw_text

PROSE = "A wrapped\r\nparagraph.\n \u00a0\nAnother one."
PARAGRAPHS = [RawText(1, "A wrapped\r\nparagraph.\n"), RawText(4, "Another one.")]


def test_a_paragraph_of_a_txt_is_a_text_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + PROSE.encode())
    assert list(read_raw_text(path)) == PARAGRAPHS


def test_gzip_is_read_as_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(PROSE.encode()))
    assert list(read_raw_text(path)) == PARAGRAPHS


def test_json_lines_are_prose_or_tokens_and_may_have_other_keys(tmp_path: Path) -> None:
    rows = [{"id": 7, "text": "Ada left.\n\nShe ran."}, {"tokens": ["Ada", "left"], "text": "Ada left"}]
    path = tmp_path / "a.JSONL"
    path.write_text("\n\n".join(map(json.dumps, rows)))
    assert list(read_raw_text(path)) == [RawText(1, "Ada left.\n\nShe ran."), RawText(3, ("Ada", "left"))]


@pytest.mark.parametrize(
    ("column", "values", "contents"),
    [("text", ["Ada left.", ""], ["Ada left.", ""]), ("tokens", [["Ada", "left"]], [("Ada", "left")])],
)
def test_parquet_has_a_column_of_texts_or_of_tokens(
    tmp_path: Path, column: str, values: list, contents: list
) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"id": list(range(len(values))), column: values})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    found = list(read_raw_text(tmp_path / "a.parquet"))
    assert found == [RawText(row, content) for row, content in enumerate(contents, start=1)]


def test_parquet_without_a_text_or_that_is_none_is_an_error(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(arrow.table({"body": ["Ada"]}), path)
    with pytest.raises(CorpusError, match=r"a\.parquet: the columns body; expected text or tokens"):
        list(read_raw_text(path))
    path.write_text("no Parquet at all")
    with pytest.raises(CorpusError, match=r"a\.parquet.*Parquet"):
        list(read_raw_text(path))


def test_parquet_without_its_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"a\.parquet.*pyarrow"):
        list(read_raw_text(tmp_path / "a.parquet"))


def test_tokenised_text_has_a_sentence_a_line_whose_spaces_split_tokens(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("The  jury\u00a0said so .\r\n\n# 2 .\n")
    sentences = [RawText(1, ("The", "jury\u00a0said", "so", ".")), RawText(3, ("#", "2", "."))]
    assert list(read_raw_text(path, tokenised=True)) == sentences
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Ada left ."}\n')
    assert list(read_raw_text(path, tokenised=True)) == [RawText(1, ("Ada", "left", "."))]


def test_a_paragraph_without_an_end_comes_in_parts(tmp_path: Path) -> None:
    line = "x" * (TEXT_CHARACTERS // 3) + "\n"
    (tmp_path / "a.txt").write_text(line * 7)
    found = [text.content for text in read_raw_text(tmp_path / "a.txt")]
    assert "".join(map(str, found)) == line * 7
    assert max(map(len, found)) <= TEXT_CHARACTERS + len(line)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_what_is_reported_adds_up_to_the_size_of_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = b'{"text": "a"}\n\n' * 9000
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    reported: list[int] = []
    assert len(list(read_raw_text(path, report=reported.append))) == 9000
    assert sum(reported) == path.stat().st_size
    assert min(reported) >= 0


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"ok\nb\xe9\n", r"a\.txt:2: byte 0xe9; expected UTF-8"),
        ("a.txt", "ok".encode("utf-16"), r"a\.txt:1: byte 0xff; expected UTF-8"),
        ("a.txt", "ok".encode("utf-16-le"), r"a\.txt:1: .*NUL.*UTF-8"),
        ("a.txt.gz", gzip.compress(b"Ada left.\n" * 99)[:-9], r"a\.txt\.gz: cannot be read"),
        ("a.txt.gz", b"no gzip at all", r"a\.txt\.gz: cannot be read"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a\.jsonl:2: no JSON"),
        ("a.jsonl", b"[" * 9999, r"a\.jsonl:1: no JSON"),
        ("a.jsonl", b'["a"]', r"a\.jsonl:1: .*text.*tokens"),
        ("a.jsonl", b'{"body": "a"}', r"a\.jsonl:1: .*text.*tokens"),
        ("a.jsonl", b'{"text": null}', r"a\.jsonl:1: the text is None"),
        ("a.jsonl", b'{"text": "\\ud800"}', r"a\.jsonl:1: .*surrogate"),
        ("a.jsonl", b'{"text": "a", "text": "b"}', r"a\.jsonl:1: .*twice"),
        ("a.jsonl", b'{"tokens": ["a", 3]}', r"a\.jsonl:1: tokens\.1"),
        ("a.jsonl", b'{"tokens": ["a", " "]}', r"a\.jsonl:1: the token"),
        ("a.jsonl", b'{"tokens": []}', r"a\.jsonl:1: .*no words"),
        ("a.csv", b"text\na\n", r"a\.csv: .*\.jsonl"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_file_and_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusError, match=message):
        list(read_raw_text(tmp_path / name))


def test_a_tab_inside_a_given_token_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ada left .\nAda\tleft .\n")
    with pytest.raises(CorpusError, match=r"a\.txt:2: the token"):
        list(read_raw_text(tmp_path / "a.txt", tokenised=True))


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        ("Ada NNP B-NP B-PER\nleft VBD B-VP O\n\nIt PRP B-NP O\n", r"\.conll\b"),
        ("Ada\tB-PER\nleft\tO\n.\tO\n", r"\.conll\b"),
        ("# id = 1\n" + "1\tAda\t_\t_\t_\t_\t0\troot\t_\t_\n" * 3, r"\.conllu"),
    ],
)
def test_columns_in_a_txt_are_refused_by_name(tmp_path: Path, data: str, advice: str) -> None:
    (tmp_path / "a.txt").write_text(data)
    for read in (read_raw_text, read_text):
        with pytest.raises(CorpusError, match=rf"a\.txt: .*columns.*{advice}"):
            list(read(tmp_path / "a.txt"))


def test_prose_with_tabs_or_a_last_word_like_a_tag_has_no_columns(tmp_path: Path) -> None:
    text = "Dr. Stone\tlives in Haifa .\nHer blood type is O\nso is B-lymphocyte\n"
    (tmp_path / "a.txt").write_text(text)
    assert list(read_raw_text(tmp_path / "a.txt")) == [RawText(1, text)]


def test_a_path_names_a_file_a_folder_or_a_glob(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl", "more/c.txt.gz", ".hidden.txt", ".git/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    everything = [tmp_path / name for name in ("a.jsonl", "b.txt", "more/c.txt.gz")]
    assert find_files(str(tmp_path)) == everything
    assert find_files(str(tmp_path / "**" / "*.txt*")) == everything[1:]
    assert find_files(str(tmp_path / "*")) == everything
    assert find_files(str(tmp_path / "b.txt")) == [tmp_path / "b.txt"]
    (tmp_path / "[x].txt").touch()
    assert find_files(str(tmp_path / "[x].txt")) == [tmp_path / "[x].txt"]


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="none: no such file"):
        find_files(str(tmp_path / "none"))
    (tmp_path / "README.md").touch()
    for path in (tmp_path, tmp_path / "*"):
        with pytest.raises(CorpusError, match="no raw text"):
            find_files(str(path))
    (tmp_path / "a.txt").touch()
    with pytest.warns(CorpusWarning, match=r"1 files .*: README\.md"):
        assert find_files(str(tmp_path)) == [tmp_path / "a.txt"]
