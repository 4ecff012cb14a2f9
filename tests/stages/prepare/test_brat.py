"""Folders of BRAT become samples, a document each, and a document that is none is a problem."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.prepare.formats.brat import BratFolder
from hmnet_pipe.stages.prepare.readers import find_texts, read_samples

from ...spoilers import SPOILERS

TEXT = "\N{GRINNING FACE} Ada of\nZu\N{COMBINING DIAERESIS}rich\n"
ANN = "T1\tPER 2 5\tAda\nT2\tLOC 9 16\tZu\N{COMBINING DIAERESIS}rich\n#1\tNote T1\tx\nA1\tSure T1\nE1\tx:T1\n"
RELATION = "R1\tlives Arg1:T1 Arg2:T2\t\n*\tEquiv T1 T2\n"


def write(folder: Path, **documents: tuple[str | bytes | None, str | bytes | None]) -> Path:
    """Write NAME.txt and NAME.ann into the folder train."""
    (folder / "train").mkdir(exist_ok=True)
    for name, contents in documents.items():
        for suffix, content in zip((".txt", ".ann"), contents, strict=True):
            if content is not None:
                path = folder / "train" / (name + suffix)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def test_a_document_is_a_sample_with_its_image(tmp_path: Path) -> None:
    samples, problems = read_samples(write(tmp_path, a=(TEXT, ANN), b=("nothing here", "")), "ner")
    assert find_texts(tmp_path, "ner").format == "brat"
    assert problems == []
    assert {one.id: (one.image, one.tags) for one in samples} == {
        "a": ("a.jpg", ["O", "B-PER", "O", "B-LOC"]),
        "b": ("b.jpg", ["O", "O"]),
    }
    [sample], _ = read_samples(write(tmp_path, a=(TEXT, ANN + RELATION)), "re")
    assert (sample.head, sample.tail, sample.relation) == ([1, 2], [3, 4], "lives")


@pytest.mark.parametrize(
    ("text", "annotations", "reason"),
    [
        (TEXT, None, "there is no .ann file of this name of at most 8 MB"),
        (None, ANN, "there is no .txt file of this name of at most 8 MB"),
        (TEXT, "T1\tPER 2 3;4 5\tA a\n", "T1 is of several pieces"),
        (TEXT, "T1\tPER 2\tAda\n", "expected TYPE START END behind T1, found 'PER 2'"),
        (TEXT, "T1\tPER 3 6\tAda\n", "T1 has the text 'Ada', found 'da ' there"),
        (TEXT, "T1\tPER 2 5\tAda\nT2\tPER 2 5\tAda\n", "spans[0] and spans[1] overlap"),
        (TEXT, "T1\tPER 2 5\tAda\nT1\tLOC 6 8\tof\n", "T1 is there twice"),
        (TEXT.encode("utf-16"), ANN, "it or its text is not UTF-8"),
    ],
)
def test_a_document_that_is_no_sample_is_a_problem(
    tmp_path: Path, text: str | bytes | None, annotations: str | None, reason: str
) -> None:
    samples, [problem] = read_samples(write(tmp_path, good=(TEXT, ANN), bad=(text, annotations)), "ner")
    assert [sample.id for sample in samples] == ["good"]
    assert (problem.kind, problem.where) == ("row", f"bad.{'txt' if annotations is None else 'ann'}:1")
    assert reason in problem.reason


def test_relations_of_what_is_not_there_are_problems(tmp_path: Path) -> None:
    write(tmp_path, good=(TEXT, ANN + RELATION), bad=(TEXT, ANN + "R1\tlives Arg1:T1 Arg2:T9\n"))
    write(tmp_path, worse=(TEXT, ANN + "R1\tlives T1 T2\n"), none=(TEXT, ANN))
    samples, problems = read_samples(tmp_path, "re")
    assert len(samples) == 1
    assert {one.where: one.reason.split(",")[0] for one in problems} == {
        "bad.ann:1": "a relation is of 'T9'",
        "none.ann:1": "it has no relation",
        "worse.ann:1": "expected RELATION Arg1:T1 Arg2:T2 behind R1",
    }


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("suffix", [".txt", ".ann"])
def test_a_spoilt_document_costs_itself_alone_or_names_the_file(
    tmp_path: Path, suffix: str, spoil: Callable[[Path], None]
) -> None:
    write(tmp_path, a=(TEXT, ANN), b=(TEXT, ANN))
    spoil(tmp_path / "train" / f"b{suffix}")
    samples, _ = read_samples(tmp_path, "ner")
    assert "a" in {sample.id for sample in samples}


def test_a_change_of_any_file_changes_the_digest_and_a_folder_of_images_is_no_split(tmp_path: Path) -> None:
    before = BratFolder.read(write(tmp_path, a=(TEXT, ANN)) / "train").digest
    assert BratFolder.read(write(tmp_path, a=(TEXT, ANN + "#")) / "train").digest != before
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.jpg").write_bytes(b"")
    assert list(find_texts(tmp_path, "ner").files) == ["train"]


def test_documents_beside_each_other_are_said_to_want_a_folder(tmp_path: Path) -> None:
    for name, content in (("1.txt", TEXT), ("1.ann", ANN)):
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=r"its \.ann files are BRAT's: put .* into a folder train"):
        find_texts(tmp_path, "ner")


def test_only_line_feeds_end_a_line_of_annotations(tmp_path: Path) -> None:
    """BRAT leaves what other tools take for the end of a line within a mention."""
    text, ann = "Ada\u2028Lee sat", "T1\tPER 0 7\tAda\u2028Lee\r\n"
    [sample], problems = read_samples(write(tmp_path, a=(text, ann)), "ner")
    assert (sample.tags, problems) == (["B-PER", "I-PER", "O"], [])
