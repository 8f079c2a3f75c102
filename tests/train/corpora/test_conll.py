import pytest

from train.corpora import CorpusError, CorpusWarning, Sentence, read_conll, read_jsonl


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "corpus.conll"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_space_columns_have_document_marks_and_no_comments(file):
    path = file("-DOCSTART- -X- O\n\nEU NNP I-ORG\n# SYM O\n\n\nBonn NNP I-LOC\r\n")
    assert read_conll(path) == [
        Sentence(("EU", "#"), ("S-ORG", "O")),
        Sentence(("Bonn",), ("S-LOC",)),
    ]


def test_a_document_mark_ends_a_sentence(file):
    assert [s.words for s in read_conll(file("a O\n-DOCSTART- O\nb O\n"))] == [("a",), ("b",)]


def test_tab_columns_have_comments_and_words_with_spaces(file):
    path = file("# sent_id = 1\n# text = New York #\nNew York\tB-LOC\n#\tO\n")
    assert read_conll(path) == [Sentence(("New York", "#"), ("S-LOC", "O"), text="New York #")]


def test_iob2_files_have_ids_whose_ranges_and_empty_nodes_are_no_tokens(file):
    path = file("1-2\tim\tO\n1\tin\tO\n2\tdem\tO\n2.1\tx\tO\n3\tHaus\tB-LOC\n")
    sentences = read_conll(path, id_column=0, word_column=1)
    assert sentences == [Sentence(("in", "dem", "Haus"), ("O", "O", "S-LOC"))]


@pytest.mark.parametrize(
    ("content", "tags"),
    [
        ("a I-X\nb I-X\nc B-X\n", ("B-X", "E-X", "S-X")),
        ("a B-X\nb I-X\nc B-X\n", ("B-X", "E-X", "S-X")),
        ("a O\nb O\nc O\n", ("O", "O", "O")),
        ("a B-X\nb E-X\nc S-X\n", ("B-X", "E-X", "S-X")),
    ],
)
def test_the_scheme_is_found_by_how_entities_begin_and_end(file, content, tags):
    assert read_conll(file(content))[0].tags == tags


def test_any_column_can_hold_the_words_and_the_tags(file):
    path = file("x B-X a\ny O b\n")
    assert read_conll(path, word_column=2, column=1) == [Sentence(("a", "b"), ("S-X", "O"))]


@pytest.mark.parametrize(
    ("content", "options", "line", "message"),
    [
        ("", {}, None, "empty"),
        ("\n \n", {}, None, "empty"),
        ("-DOCSTART- O\n", {}, None, "no sentence"),
        ("a O\nb\n", {}, 2, "1 columns; expected 2"),
        ("a\tO\nb O\n", {}, 2, "1 columns; expected 2"),
        ("a O\nb x O\n", {}, 2, "3 columns; expected 2"),
        ("a O\n", {"column": 2}, 1, "2 columns"),
        ("a O\n", {"word_column": 2}, 1, "2 columns"),
        ("a\tO\n\tO\n", {}, 2, "not empty"),
        ("a\tO\n\u00a0\tO\n", {}, 2, "not empty"),
        ("a O\nb X\n", {}, 2, "unknown tag 'X'"),
        ("a O\nb M-X\n", {}, 2, "unknown tag 'M-X'"),
        ("a O\nb I-X\n\nc B-X\n", {}, 2, "line 4"),
        ("a O\n\nb I-X\n", {"scheme": "iob2"}, 3, "I-X after O continues no entity"),
        ("a O\nb B-X\n", {"scheme": "bioes"}, 2, "end of the sentence"),
        ("a O\nb B-X\n", {"scheme": "iob1"}, 2, "B-X after O"),
        ("1\ta\tO\n3\tb\tO\n", {"id_column": 0, "word_column": 1}, 2, "id '3'; expected 2"),
        ("1\ta\tO\nx\tb\tO\n", {"id_column": 0, "word_column": 1}, 2, "id 'x'; expected 2"),
        (b"a O\n\xff O\n", {}, 2, "expected UTF-8"),
    ],
)
def test_a_bad_line_is_an_error_with_its_number_and_what_was_expected(file, content, options, line, message):
    path = file(content)
    with pytest.raises(CorpusError) as caught:
        read_conll(path, **options)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert message in str(caught.value)
    assert caught.value.line == line


def test_an_unknown_scheme_and_a_missing_file_are_errors(file, tmp_path):
    with pytest.raises(ValueError, match="auto, iob1, iob2, bioes"):
        read_conll(file("a O\n"), scheme="bilou")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_conll(tmp_path / "none.conll")


def test_repair_reads_misplaced_tags_and_says_how_many_and_where(file):
    path = file("a O\nb I-X\n\nc B-X\nd I-Y\n")
    with pytest.warns(CorpusWarning, match=r"2 misplaced entity tags .* at the lines 2, 5"):
        sentences = read_conll(path, repair=True)
    assert [sentence.tags for sentence in sentences] == [("O", "S-X"), ("S-X", "S-Y")]


def test_json_lines_are_read_with_the_labels_they_have(file):
    path = file('{"tokens": ["a", "b"], "tags": ["B-X", "I-X"]}\n\n{"tokens": ["c"], "heads": [0]}\n')
    assert read_jsonl(path) == [Sentence(("a", "b"), ("B-X", "E-X")), Sentence(("c",), heads=(0,))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[1]", "object"),
        ("{", "JSON"),
        ("[" * 9999, "JSON"),
        ('{"words": ["a"]}', "tokens: "),
        ('{"tokens": ["a"], "tag": ["O"]}', "tag: "),
        ('{"tokens": null}', "tokens: "),
        ('{"tokens": "a"}', "tokens: "),
        ('{"tokens": ["a", 3]}', "tokens.1: "),
        ('{"tokens": []}', "no words"),
        ('{"tokens": [""]}', "word 1"),
        ('{"tokens": ["a"], "tags": ["O", "O"]}', "2 tags for 1 words"),
        ('{"tokens": ["a"], "tags": ["I-X"], "heads": [true]}', "heads.0: "),
        ('{"tokens": ["a", "b"], "tags": ["O", "E-X"]}', "continues no entity"),
        ('{"tokens": ["a", "b"], "heads": [2, 1]}', "no root"),
        ('{"tokens": ["a"], "deprels": ["root"]}', "without heads"),
        ('{"tokens": ["a"], "text": 3}', "text: "),
    ],
)
def test_a_bad_json_line_is_an_error_with_its_number(file, row, message):
    path = file('{"tokens": ["ok"]}\n' + row + "\n")
    with pytest.raises(CorpusError) as caught:
        read_jsonl(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
