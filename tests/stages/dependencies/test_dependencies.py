"""The dependencies stage: the chain, trees in CoNLL-U with every fault they can have, and parsers."""

import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hmnet_pipe.manifests.errors import HmnetPipeError, InputError, WeightsError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DEPENDENCIES, PROBLEMS, SAMPLES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.pipeline.run.runner import Report, run_stage
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.dependencies.settings import DependencySettings
from hmnet_pipe.stages.dependencies.stage import Dependencies
from hmnet_pipe.stages.dependencies.trees import chain, fault_of

TEXTS = {"one": ["Ada", "saw", "London", "."], "two": ["Hi", "!"], "three": ["Don't", "go"]}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "run")
    rows = [{"id": name, "split": "train", "task": "re", "tokens": words} for name, words in TEXTS.items()]
    write_table(found.samples, table_of(SAMPLES, rows))
    return found


def made(run: RunFolder, parser: str = "chain", model: Path | str = "") -> tuple[Report, dict[str, Any]]:
    report = run_stage(Dependencies(run, DependencySettings(parser, str(model))), Tools())
    return report, {row["id"]: row for row in read_table(run.dependencies, DEPENDENCIES).to_pylist()}


def sentence(sample: str, words: Iterable[str], heads: Iterable[Any], comment: str = "sample_id") -> str:
    lines = [f"# {comment} = {sample}"]
    for number, (word, head) in enumerate(zip(words, heads, strict=True), start=1):
        lines.append(f"{number}\t{word}\t_\t_\t_\t_\t{head}\tdep{number}\t_\t_")
    return "\n".join(lines) + "\n\n"


ONE = sentence("one", TEXTS["one"], [2, 0, 2, 2])


def written(folder: Path, text: str) -> Path:
    path = folder / "trees.conllu"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_chain_links_each_word_to_the_next_and_says_that_it_is_one(run: RunFolder) -> None:
    report, rows = made(run)
    assert rows["one"]["head"] == [-1, 0, 1, 2]
    assert rows["one"]["words"] == TEXTS["one"]
    assert {row["tool"] for row in rows.values()} == {"chain"}
    assert (report.done, report.failed) == (3, 0)
    assert made(run)[0].state == "fresh"
    assert fault_of(chain(1).heads) is None


def test_trees_in_conllu_are_joined_by_sample(run: RunFolder, tmp_path: Path) -> None:
    two = sentence("two", ["Hi"], [0], "sent_id") + sentence("two", ["!"], [0], "sent_id")
    text = "# newdoc\n" + ONE + two + sentence("of another corpus", ["x"], [0])
    report, rows = made(run, "conllu", written(tmp_path, text))
    assert rows["one"]["head"] == [1, -1, 1, 1]
    assert rows["one"]["deprel"] == ["dep1", "dep2", "dep3", "dep4"]
    assert rows["two"]["head"] == [-1, -1]
    assert (rows["two"]["tool"], rows["two"]["model"]) == ("conllu", "trees.conllu")
    assert (report.done, report.failed) == (2, 1)
    [problem] = read_table(run.outcomes("dependencies"), PROBLEMS).to_pylist()
    assert (problem["sample"], problem["reason"]) == ("three", "no tree of it was given")


def test_heads_of_a_later_sentence_count_from_its_own_first_word(run: RunFolder, tmp_path: Path) -> None:
    text = sentence("one", ["Ada", "saw"], [2, 0]) + sentence("one", ["London", "."], [0, 1])
    assert made(run, "conllu", written(tmp_path, text))[1]["one"]["head"] == [1, -1, -1, 2]


def test_empty_nodes_are_skipped_and_sample_id_counts_before_sent_id(run: RunFolder, tmp_path: Path) -> None:
    text = ONE.replace("# sample_id = one", "# sample_id = one\n# sent_id = 7")
    text = text.replace("3\tLondon", "2.1\tgone" + "\t_" * 8 + "\n3\tLondon")
    assert made(run, "conllu", written(tmp_path, text))[1]["one"]["head"] == [1, -1, 1, 1]


@pytest.mark.parametrize(
    ("text", "line", "wrong"),
    [
        (sentence("one", TEXTS["one"], [2, 3, 1, 0]), 2, "no tree: its heads form a cycle at word 1"),
        (sentence("one", TEXTS["one"], [2, 0, 3, 2]), 2, "no tree: its heads form a cycle at word 3"),
        (sentence("one", TEXTS["one"], [2, 0, 9, 2]), 2, "the head of word 3 is word 9, and there are 4"),
        (sentence("one", TEXTS["one"][:3], [2, 0, 2]), 2, "has 4 words, and its tree 3"),
        (ONE.replace("London", "Paris"), 2, "word 3 of sample 'one' is 'London', and in its tree 'Paris'"),
        (ONE.replace("\n3\t", "\n3-4\tx" + "\t_" * 8 + "\n3\t"), 4, "3-4 (x) is one word of the text"),
        (ONE.replace("\t_\t_\n3", "\n3"), 3, "a word has 10 columns with tabs between them, not 8"),
        (ONE.replace("\n3\t", "\n5\t"), 4, "word 3 is expected, not '5'"),
        (ONE.replace("\t0\t", "\t_\t"), 3, "the head of 'saw' must be a number, not '_'"),
        (ONE.replace("\t0\t", "\t-1\t"), 3, "the head of 'saw' must be a number, not '-1'"),
        (ONE.replace("# sample_id = one\n", ""), 1, "does not say which sample it is of"),
        (ONE + sentence("two", TEXTS["two"], [0, 1]) + ONE, 12, "has a tree further up"),
    ],
)  # fmt: skip
def test_a_fault_is_one_sentence_with_file_and_line(
    run: RunFolder, tmp_path: Path, text: str, line: int, wrong: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        made(run, "conllu", path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert wrong in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not run.dependencies.exists()


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"", b"# sample_id = other\n"])
def test_a_file_of_no_use_is_refused(run: RunFolder, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "trees.conllu"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"trees\.conllu"):
        made(run, "conllu", path)


@pytest.mark.parametrize(
    ("parser", "model", "words"),
    [
        ("spacy", "", "parser = spacy needs a model"),
        ("chain", "x", "is of no use to parser = chain"),
        ("corenlp", "x", "not one of chain, conllu, spacy, stanza"),
    ],
)
def test_settings_that_cannot_be_are_refused(parser: str, model: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        DependencySettings(parser, model)


def test_random_heads_are_a_tree_exactly_where_every_word_reaches_a_root() -> None:
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(500):
        heads = random.integers(-1, 6, 6).tolist()

        def reaches(word: int, heads: list[int] = heads) -> bool:
            for _ in range(6):
                word = heads[word]
                if word == -1:
                    return True
            return False

        sound = all(map(reaches, range(6)))
        assert (fault_of(heads) is None) == sound
        seen.add(sound)
    assert seen == {True, False}


class StandIn:
    """What the stage asks of spaCy, for where it is not installed: Docs of given words, and a pipeline."""

    class Doc:
        def __init__(self, vocab: Any, words: list[str]) -> None:
            self.tokens = [
                SimpleNamespace(i=i, text=word, head=None, dep_="") for i, word in enumerate(words)
            ]
            self.parsed = False

        def __iter__(self) -> Iterator[Any]:
            return iter(self.tokens)

        def has_annotation(self, name: str) -> bool:
            return name == "DEP" and self.parsed

    def __init__(self, parses: bool) -> None:
        self.parses, self.vocab = parses, object()
        self.meta = {"lang": "en", "name": "pipeline", "version": "0.0.0"}
        self.pipe_names = ["to_the_last"] if parses else []

    def pipe(self, docs: Iterable[Any], batch_size: int) -> Iterator[Any]:
        for doc in docs:
            if self.parses:
                for token in doc.tokens:
                    token.head, token.dep_ = doc.tokens[-1], "x"
                doc.parsed = True
            yield doc


def spacy_model(folder: Path, parses: bool, monkeypatch: pytest.MonkeyPatch, kind: str) -> Path:
    """Return the folder of a pipeline whose parser, if it has one, makes the last word every word's head."""
    if kind == "stand-in":
        folder.mkdir()
        (folder / "meta.json").write_text("{}")
        stand_in, tokens = ModuleType("spacy"), ModuleType("spacy.tokens")
        stand_in.__dict__.update(load=lambda path: StandIn(parses), __version__="0")
        tokens.__dict__["Doc"] = StandIn.Doc
        monkeypatch.setitem(sys.modules, "spacy", stand_in)
        monkeypatch.setitem(sys.modules, "spacy.tokens", tokens)
        return folder
    import spacy
    from spacy.language import Language

    def to_the_last(doc: Any) -> Any:
        for token in doc:
            token.head, token.dep_ = doc[-1], "x"
        return doc

    Language.component("to_the_last", func=to_the_last)
    nlp = spacy.blank("en")
    if parses:
        nlp.add_pipe("to_the_last")
    nlp.to_disk(folder)
    return folder


KINDS = ["stand-in", *(["spacy"] if find_spec("spacy") else [])]


@pytest.mark.parametrize("kind", KINDS)
def test_spacy_parses_the_words_as_they_are(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    model = spacy_model(tmp_path / "model", True, monkeypatch, kind)
    report, rows = made(run, "spacy", model)
    assert rows["one"]["head"] == [3, 3, 3, -1]
    # spaCy's own tokenizer would make two words of the first.
    assert rows["three"]["words"] == ["Don't", "go"]
    assert rows["three"]["head"] == [1, -1]
    assert (rows["three"]["tool"], rows["three"]["model"]) == ("spacy", "en_pipeline 0.0.0")
    assert report.done == 3
    record = StageRecord.read(run.record("dependencies"))
    assert set(record.weights) == {"parser"}
    (model / "more").write_text("other weights")
    assert made(run, "spacy", model)[0].state == "done"


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_without_a_parser_is_refused(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with pytest.raises(InputError, match=r"\(empty\) has no parser"):
        made(run, "spacy", spacy_model(tmp_path / "model", False, monkeypatch, kind))


def test_stanza_is_given_words_by_sentence(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Pipeline:
        def __init__(self, language: str, **options: Any) -> None:
            asked.append((language, options))

        def __call__(self, texts: list[list[str]]) -> Any:
            words = [
                [SimpleNamespace(head=i, deprel="x") for i in range(len(text))] for text in texts
            ]  # each word's head is the one before it
            return SimpleNamespace(sentences=[SimpleNamespace(words=own) for own in words])

    stanza = ModuleType("stanza")
    stanza.__dict__.update(Pipeline=Pipeline, __version__="1")
    monkeypatch.setitem(sys.modules, "stanza", stanza)
    model = tmp_path / "resources" / "en"
    model.mkdir(parents=True)
    (model / "weights.pt").write_bytes(b"1")
    rows = made(run, "stanza", model)[1]
    assert rows["one"]["head"] == [-1, 0, 1, 2]
    [(language, options)] = asked
    assert (language, options["dir"]) == ("en", str(model.parent))
    assert options["tokenize_pretokenized"] is True
    assert options["download_method"] is None


def test_a_parser_that_is_not_there_or_has_no_model_is_one_sentence(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "stanza", None)
    (tmp_path / "en").mkdir()
    with pytest.raises(WeightsError, match="holds no model of stanza"):
        made(run, "stanza", tmp_path / "en")
    (tmp_path / "en" / "x").write_text("x")
    with pytest.raises(InputError, match=r"pip install 'hmnet-pipe\[stanza\]'"):
        made(run, "stanza", tmp_path / "en")
    with pytest.raises(HmnetPipeError, match="is no folder"):
        made(run, "stanza", tmp_path / "nowhere")


def test_computed_again_it_is_equal(run: RunFolder, tmp_path: Path) -> None:
    stage = Dependencies(run, DependencySettings())
    run_stage(stage, Tools())
    scratch = RunFolder(tmp_path / "scratch")
    scratch.outcomes("dependencies").parent.mkdir(parents=True)
    record = StageRecord.read(run.record("dependencies"))
    assert stage.again(record, 1.0, False, scratch, Tools()).verdict == "equal"
