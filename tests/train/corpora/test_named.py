import contextlib
import http.server
import re
import threading
from dataclasses import replace

import pytest

from tests.train.wheels import install
from train.corpora import CORPORA, CorpusError, CorpusWarning, Sentence, load_corpus, named, universal_ner


def row(identifier, form, head, deprel, misc="_"):
    return f"{identifier}\t{form}\t_\t_\t_\t_\t{head}\t{deprel}\t_\t{misc}\n"


HEBREW_ROWS = (
    row("1-2", "בתל", "_", "_")
    + row(1, "ב", 2, "case", "biose=O|x=y")
    + row(2, "תל", 0, "root", "biose=B-GPE")
    + row(3, "אביב", 2, "flat", "biose=E-GPE")
    + "\n"
)


def hebrew(split, text="בתל אביב"):
    return f"# text = {text}\n# tokens = בתל אביב\n# set = {split}\n{HEBREW_ROWS}"


MERGED = Sentence(("בתל", "אביב"), ("B-GPE", "E-GPE"), (0, 1), ("root", "flat"), "בתל אביב")


@pytest.fixture
def he_htb(tmp_path, monkeypatch):
    """Loads the corpus from a wheel with this content."""

    def load(content, **options):
        file = CORPORA["he_htb"].file
        file = install(tmp_path / "site", monkeypatch, file.package, file.file, content.encode())
        monkeypatch.setitem(CORPORA, "he_htb", replace(CORPORA["he_htb"], file=file))
        return load_corpus("he_htb", data_root=tmp_path, **options)

    return load


def test_he_htb_is_split_by_its_comments_and_merged(he_htb):
    corpus = he_htb(hebrew("dev") + hebrew("train") + hebrew("test") + hebrew("train"))
    assert (corpus.name, corpus.language) == ("he_htb", "he")
    assert (corpus.train, corpus.dev, corpus.test) == ((MERGED, MERGED), (MERGED,), (MERGED,))


def test_he_htb_over_its_syntactic_words(he_htb):
    corpus = he_htb(hebrew("train"), merge_subtokens=False)
    assert corpus.train[0].words == ("ב", "תל", "אביב")
    assert corpus.train[0].tags == ("O", "B-GPE", "E-GPE")


def test_he_htb_leaves_out_a_text_that_is_not_that_of_the_tokens(he_htb):
    corpus = he_htb(hebrew("train", "בתל 05"))
    assert corpus.train[0].words == MERGED.words
    assert corpus.train[0].text is None


def test_he_htb_repairs_an_entity_without_its_end_and_says_so(he_htb):
    with pytest.warns(CorpusWarning, match="1 misplaced entity tags"):
        corpus = he_htb(hebrew("train") + hebrew("train").replace("E-GPE", "S-GPE"))
    assert corpus.train[1].tags == ("S-GPE", "S-GPE")


@pytest.mark.parametrize("name", ["he_htb", "pt_petrogold"])
def test_a_corpus_from_a_wheel_is_checked_and_says_how_to_install_it(tmp_path, monkeypatch, name):
    file = CORPORA[name].file
    missing = replace(file, file="no/such/file")
    monkeypatch.setitem(CORPORA, name, replace(CORPORA[name], file=missing))
    with pytest.raises(CorpusError, match=rf"{name}: no/such/file is not installed; .*{file.install}"):
        load_corpus(name, data_root=tmp_path)
    changed = install(tmp_path / "site", monkeypatch, file.package, file.file, b"another text")
    monkeypatch.setitem(CORPORA, name, replace(CORPORA[name], file=replace(changed, sha256=file.sha256)))
    with pytest.raises(CorpusError, match=f"SHA-256 is {changed.sha256}, expected {file.sha256}"):
        load_corpus(name, data_root=tmp_path)


def test_petrogold_holds_out_whole_texts(tmp_path, monkeypatch):
    path = tmp_path / "annotated.conllu"
    texts = ["20-x-1", "25-x-1", "241-x-1", "77-x-1", "119-x-1"]
    path.write_text("".join(f"# sent_id = {name}\n{row(1, name, 0, 'root')}\n" for name in texts))
    monkeypatch.setattr(named.WheelFile, "find", lambda file: path)
    corpus = load_corpus("pt_petrogold", data_root=tmp_path)
    splits = [[s.words[0] for s in split] for split in (corpus.train, corpus.dev, corpus.test)]
    assert splits == [["20-x-1", "119-x-1"], ["241-x-1"], ["25-x-1", "77-x-1"]]


CONLLU = row(1, "a", 0, "root", "NER=B-X") + "\n"
FOLDERS = [
    ("conllu", CONLLU, Sentence(("a",), ("S-X",), (0,), ("root",))),
    ("conllu", row(1, "a", 0, "root"), Sentence(("a",), None, (0,), ("root",))),
    ("conll", "a O I-X\n", Sentence(("a",), ("S-X",))),
    ("iob2", "# text = a\n1\ta\tB-X\t-\t-\n", Sentence(("a",), ("S-X",), text="a")),
    ("txt", "a b\n", Sentence(("a", "b"))),
]


@pytest.mark.parametrize(("suffix", "content", "sentence"), FOLDERS)
def test_a_folder_is_a_corpus_whatever_the_format_of_its_splits(tmp_path, suffix, content, sentence):
    folder = tmp_path / "da_mine"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        (folder / f"{split}.{suffix}").write_text(content)
    corpus = load_corpus(str(folder))
    assert (corpus.name, corpus.language) == ("da_mine", "da")
    assert corpus.train == corpus.dev == corpus.test == (sentence,)
    assert load_corpus("da_mine", data_root=tmp_path, language="no").language == "no"


def test_a_folder_of_a_corpus_goes_before_its_wheel_and_its_download(tmp_path):
    for name in ("en_ewt", "he_htb"):
        (tmp_path / name).mkdir()
        for split in ("train", "dev", "test"):
            (tmp_path / name / f"{split}.conllu").write_text(CONLLU)
        corpus = load_corpus(name, data_root=tmp_path)
        assert (corpus.name, corpus.language) == (name, CORPORA[name].language)
        assert corpus.train[0].tags == ("S-X",)


def test_a_missing_dev_or_test_split_is_empty_with_a_warning(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    with pytest.warns(CorpusWarning, match="split is empty") as caught:
        corpus = load_corpus(str(tmp_path), language="en")
    assert len(caught) == 2
    assert (len(corpus.train), corpus.dev, corpus.test) == (1, (), ())


def test_folders_that_are_no_corpus_are_errors(tmp_path):
    with pytest.raises(CorpusError, match=r"expected train\.conllu or train\.conll"):
        load_corpus(str(tmp_path))
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "train.conll").write_text("a O\n")
    with pytest.raises(CorpusError, match=r"both train\.conll and train\.txt"):
        load_corpus(str(tmp_path))
    with pytest.raises(CorpusError, match="da_ddt, en_ewt, he_htb, hr_set, pt_petrogold, sr_set"):
        load_corpus("nothing", data_root=tmp_path)


def test_a_folder_is_strict_unless_repair_is_asked_for(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.iob2").write_text("1\ta\tO\n2\tb\tI-X\n")
    with pytest.raises(CorpusError, match=r"train\.iob2:2: I-X after O"):
        load_corpus(str(tmp_path))
    with pytest.warns(CorpusWarning, match="1 misplaced"):
        assert load_corpus(str(tmp_path), repair=True).test[0].tags == ("O", "S-X")


@contextlib.contextmanager
def web(files):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = files.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


TREES = (
    "# newdoc id = d\n# sent_id = s1\n# text = Ann won't go\n"
    + row(1, "Ann", 4, "nsubj", "A=b")
    + row("2-3", "won't", "_", "_")
    + row(2, "wo", 4, "aux")
    + row(3, "n't", 4, "advmod")
    + row(4, "go", 0, "root")
    + row("4.1", "x", "_", "_")
    + "\n# sent_id = s2\n"
    + row(1, "Iraqi", 2, "amod")
    + row(2, "Bonn", 0, "root")
    + "\n"
)
ENTITIES = (
    "# sent_id = s2\n1\tIraqi\tB-OTH\t-\tx\n2\tBonn\tB-LOC\t-\tx\n\n"
    "# sent_id = s1\n# text = Ann won't go\n1\tAnn\tB-PER\t-\tx\n2\two\tO\n3\tn't\tB-O\t-\tx\n4\tgo\tO\n"
)


def served(trees=TREES, entities=ENTITIES):
    files = {}
    for split, commit in CORPORA["en_ewt"].entities.items():
        files[f"/{CORPORA['en_ewt'].trees}/en_ewt-ud-{split}.conllu"] = trees
        files[f"/{commit}/en_ewt-ud-{split}.iob2"] = entities
    return files


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STRUCTURAL_KD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpora" / "en_ewt"


def test_en_ewt_is_downloaded_merged_and_cached(tmp_path, cache, monkeypatch):
    with web(served()) as address:
        monkeypatch.setattr(universal_ner, "HOME", address)
        first = load_corpus("en_ewt", data_root=tmp_path)
    assert first.train == first.dev == first.test
    assert first.train[0] == Sentence(
        words=("Ann", "wo", "n't", "go"),
        tags=("S-PER", "O", "O", "O"),
        heads=(4, 4, 4, 0),
        deprels=("nsubj", "aux", "advmod", "root"),
        text="Ann won't go",
    )
    assert first.train[1].tags == ("O", "S-LOC")
    assert sorted(path.name for path in cache.iterdir()) == ["dev.conllu", "test.conllu", "train.conllu"]
    assert load_corpus("en_ewt", data_root=tmp_path).digest == first.digest
    merged = load_corpus("en_ewt", data_root=tmp_path, merge_subtokens=True)
    assert merged.train[0].words == ("Ann", "won't", "go")


@pytest.mark.parametrize(
    ("name", "suffix", "source"),
    [("en_ewt", "conllu", "UNER_English-EWT"), ("sr_set", "iob2", "UNER_Serbian-SET")],
)
def test_without_a_network_the_error_says_which_files_to_put_where(
    tmp_path, cache, monkeypatch, name, suffix, source
):
    kept = cache.parent / name
    with web({}) as address:
        monkeypatch.setattr(universal_ner, "HOME", address)
        with pytest.raises(CorpusError) as caught:
            load_corpus(name, data_root=tmp_path)
    files = f"train.{suffix}, dev.{suffix} and test.{suffix}"
    for part in (str(kept), address, "cannot be downloaded", files, source):
        assert part in str(caught.value)
    assert list(kept.iterdir()) == []


def test_a_download_whose_words_differ_is_an_error(tmp_path, cache, monkeypatch):
    with web(served(entities=ENTITIES.replace("Bonn", "Berlin"))) as address:
        monkeypatch.setattr(universal_ner, "HOME", address)
        with pytest.raises(CorpusError, match="1 of 2 sentences have other words"):
            load_corpus("en_ewt", data_root=tmp_path)
    assert not (cache / "train.conllu").exists()


UNER = (
    "# newdoc id = d\n# sent_id = s1\n# text = U Splitu FIFA\n"
    "1\tU\tO\tO\t-\n2\tSplitu\tB-LOC\tB-LOC\t-\n3\tFIFA\tB-OTH\tB-OTH\t-\n\n"
    "# sent_id = s2\n1\tAna\tI-PER\tI-PER\t-\n2\tBan\tI-PER\tI-PER\t-\n\n"
)
OLDER = "# sent_id = s1\n1\tU\t_\n2\tSplitu\tB-LOC\n3\tFIFA\tB-OTH\n\n"


@pytest.mark.parametrize(("name", "language"), [("da_ddt", "da"), ("hr_set", "hr"), ("sr_set", "sr")])
def test_a_universal_ner_corpus_is_downloaded_with_the_types_common_to_all_and_cached(
    tmp_path, cache, monkeypatch, name, language
):
    splits = {"train": UNER, "dev": OLDER, "test": OLDER}
    homes = CORPORA[name].entities
    files = {f"/{homes[split]}/{name}-ud-{split}.iob2": text for split, text in splits.items()}
    with web(files) as address:
        monkeypatch.setattr(universal_ner, "HOME", address)
        with pytest.warns(CorpusWarning, match="1 misplaced entity tags were repaired"):
            first = load_corpus(name, data_root=tmp_path)
    assert (first.name, first.language) == (name, language)
    assert first.train == (
        Sentence(("U", "Splitu", "FIFA"), ("O", "S-LOC", "O"), text="U Splitu FIFA"),
        Sentence(("Ana", "Ban"), ("B-PER", "E-PER")),
    )
    assert first.dev == first.test == (Sentence(("U", "Splitu", "FIFA"), ("O", "S-LOC", "O")),)
    kept = tmp_path / "cache" / "corpora" / name
    assert sorted(path.name for path in kept.iterdir()) == ["dev.iob2", "test.iob2", "train.iob2"]
    with pytest.warns(CorpusWarning, match="1 misplaced"):
        assert load_corpus(name, data_root=tmp_path).digest == first.digest


def test_every_split_of_a_universal_ner_corpus_is_pinned_to_a_commit():
    for name in ("da_ddt", "en_ewt", "hr_set", "sr_set"):
        splits = CORPORA[name].entities
        assert list(splits) == ["train", "dev", "test"]
        for home in splits.values():
            assert re.fullmatch(r"UniversalNER/UNER_[A-Za-z]+-[A-Z]+/[0-9a-f]{40}", home)


def test_a_folder_with_the_name_of_a_universal_ner_corpus_is_repaired_too(tmp_path):
    (tmp_path / "hr_set").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "hr_set" / f"{split}.iob2").write_text("1\tAna\tI-PER\n")
    with pytest.warns(CorpusWarning, match="1 misplaced"):
        assert load_corpus("hr_set", data_root=tmp_path).train[0].tags == ("S-PER",)


def test_a_download_that_is_no_table_is_an_error_with_its_line(tmp_path):
    (tmp_path / "page").write_text("# sent_id = s1\n1\tU\n")
    with pytest.raises(CorpusError, match="page:2: 2 columns; expected id, word and tag"):
        universal_ner.write_core_entities(tmp_path / "page", tmp_path / "train.iob2")
    assert not (tmp_path / "train.iob2").exists()


def test_a_few_differing_sentences_are_left_out_and_counted(tmp_path):
    trees, entities, target = tmp_path / "trees", tmp_path / "entities", tmp_path / "merged"
    trees.write_text("".join(f"# sent_id = {i}\n{row(1, 'a', 0, 'root')}\n" for i in range(200)))
    entities.write_text("".join(f"# sent_id = {i}\n1\t{'b' if i == 7 else 'a'}\tO\n\n" for i in range(200)))
    with pytest.warns(CorpusWarning, match="1 of 200 sentences were left out"):
        universal_ner.write_merged(trees, entities, target)
    assert target.read_text().count("# sent_id") == 199
