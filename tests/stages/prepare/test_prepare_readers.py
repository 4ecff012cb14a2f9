"""Texts become rows of samples, or one sentence that names the file, the line and the remedy."""

import json
import random
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.prepare.formats.rows import Reading, number_repeats, open_mentions
from hmnet_pipe.stages.prepare.readers import SampleRow, find_texts, read_samples
from hmnet_pipe.stages.text.words import WORD_RULES, split_words
from seqeval.metrics.sequence_labeling import get_entities

TWEET = "IMGID:7\nAda\tB-PER\nis\tO\nhere\tO\n\n"
PAIR = {
    "token": ["Ada", "of", "London"],
    "h": {"name": "Ada", "pos": [0, 1]},
    "t": {"name": "London", "pos": [2, 3]},
    "img_id": "twitter_1.jpg",
    "relation": "/per/loc/place_of_residence",
}
WORDS = {"tokens": ["Ada", "of", "London"]}


def write(folder: Path, **texts: str | bytes) -> Path:
    """Write train.txt for `train="..."`, and train.jsonl for `train_jsonl="..."`."""
    for name, text in texts.items():
        path = folder / (name.replace("_jsonl", ".jsonl") if name.endswith("_jsonl") else f"{name}.txt")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def literals(*records: Any) -> str:
    return "".join(f"{record!r}\n" for record in records)


def error_of(folder: Path, task: str, format: str = "auto", reading: Reading | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_samples(folder, task, format, reading)
    message = str(caught.value)
    assert "\n" not in message
    return message


def one(folder: Path, task: str) -> SampleRow:
    samples, problems = read_samples(folder, task)
    assert len(samples) == 1
    assert problems == []
    return samples[0]


# Files


def test_a_wrong_folder_is_named_with_what_it_should_hold(tmp_path: Path) -> None:
    assert "nowhere is not a folder; give the folder that holds train.txt" in error_of(
        tmp_path / "nowhere", "ner"
    )
    write(tmp_path, train=TWEET)
    assert "train.txt is not a folder" in error_of(tmp_path / "train.txt", "ner")
    (tmp_path / "empty").mkdir()
    assert "holds no training file; add train.txt, mnre_train.txt or train.jsonl" in error_of(
        tmp_path / "empty", "ner"
    )


@pytest.mark.parametrize(("task", "format"), [("nre", "auto"), ("ner", "conll")])
def test_unknown_tasks_and_formats_are_errors(tmp_path: Path, task: str, format: str) -> None:
    assert "is unknown; expected one of" in error_of(write(tmp_path, train=TWEET), task, format)


def test_a_format_of_the_other_task_is_an_error(tmp_path: Path) -> None:
    assert "are for the task ner, not re" in error_of(write(tmp_path, train=TWEET), "re", "twitter")
    assert "are for the task ner, not re" not in error_of(tmp_path, "re")  # a plain .txt of task re is MNRE
    (tmp_path / "mnre").mkdir()
    assert "are for the task re, not ner" in error_of(
        write(tmp_path / "mnre", mnre_train=literals(PAIR)), "ner"
    )


@pytest.mark.parametrize("alias", ["valid", "val", "dev"])
def test_the_validation_split_goes_by_three_names(tmp_path: Path, alias: str) -> None:
    folder = write(tmp_path, train=TWEET, **{alias: TWEET})
    assert list(find_texts(folder, "ner").files) == ["train", "valid"]


def test_a_missing_validation_or_test_file_is_fine_a_missing_training_file_is_not(tmp_path: Path) -> None:
    assert [sample.split for sample in read_samples(write(tmp_path, train=TWEET), "ner")[0]] == ["train"]
    (tmp_path / "train.txt").rename(tmp_path / "test.txt")
    assert "holds no training file" in error_of(tmp_path, "ner")


def test_two_files_for_one_split_are_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path, train=TWEET, valid=TWEET, dev=TWEET)
    assert "two files for the split valid, 'dev.txt' and 'valid.txt'; remove one" in error_of(folder, "ner")


def test_mnre_and_its_plain_twin_are_two_files_for_one_split(tmp_path: Path) -> None:
    folder = write(tmp_path, train=literals(PAIR), mnre_train=literals(PAIR))
    assert "two files for the split train" in error_of(folder, "re")


def test_files_of_two_formats_need_a_word_which(tmp_path: Path) -> None:
    folder = write(tmp_path, train=TWEET, train_jsonl=lines({"tokens": ["a"], "tags": ["O"]}))
    assert "holds files of the formats jsonl and twitter; say which" in error_of(folder, "ner")
    assert read_samples(folder, "ner", "jsonl")[0][0].tokens == ["a"]
    assert read_samples(folder, "ner", "twitter")[0][0].tokens == ["Ada", "is", "here"]


def test_the_published_name_with_a_space_is_found(tmp_path: Path) -> None:
    write(tmp_path, mnre_train=literals(PAIR))
    (tmp_path / "mnre_val .txt").write_text(literals(PAIR))
    texts = find_texts(tmp_path, "re")
    assert texts.format == "mnre"
    assert [path.name for path in texts.files.values()] == ["mnre_train.txt", "mnre_val .txt"]


@pytest.mark.parametrize("content", ["", "\n\n", "  \n", "\u3000\n"])
@pytest.mark.parametrize(("name", "task"), [("train", "ner"), ("train", "re"), ("train_jsonl", "ner")])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, task: str, content: str) -> None:
    assert " is empty" in error_of(write(tmp_path, **{name: content}), task)


def test_a_file_that_is_not_utf_8_is_named_with_the_line(tmp_path: Path) -> None:
    content = TWEET.encode() + "IMGID:8\ncaf\u00e9\tO\n".encode("latin-1")
    assert "train.txt line 7: byte 0xe9 is not UTF-8; save the file as UTF-8" in error_of(
        write(tmp_path, train=content), "ner"
    )


def test_lines_that_end_at_carriage_returns_alone_are_an_error(tmp_path: Path) -> None:
    assert "train.txt: its lines end at carriage returns alone; save it with line feeds" in error_of(
        write(tmp_path, train=TWEET.replace("\n", "\r")), "ner"
    )


def test_a_file_that_may_be_meant_as_the_training_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "project-1.json").touch()
    assert "; project-1.json is there: is it a training file under another name?" in error_of(tmp_path, "ner")
    (tmp_path / "train_data.csv").touch()
    assert "; train_data.csv is there: is it a training file under another name?" in error_of(tmp_path, "ner")
    (tmp_path / "train.json").write_text("[]")
    assert "; train.json is there, which --format jsonl reads" in error_of(tmp_path, "ner", "twitter")


def test_a_bom_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    expected = one(write(tmp_path, train=TWEET), "ner")
    write(tmp_path, train=b"\xef\xbb\xbf" + TWEET.replace("\n", "\r\n").encode())
    assert one(tmp_path, "ner") == expected


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    odd = ["a\u2028b", "\x85", "c\x0bd", "\u00a0"]
    tweet = "IMGID:7\n" + "".join(f"{token}\tO\n" for token in odd)
    assert one(write(tmp_path, train=tweet), "ner").tokens == odd
    write(tmp_path, train_jsonl=json.dumps({"tokens": odd, "tags": ["O"] * 4}, ensure_ascii=False))
    assert read_samples(tmp_path, "ner", "jsonl")[0][0].tokens == odd


# Twitter


def test_a_tweet_becomes_a_sample(tmp_path: Path) -> None:
    assert one(write(tmp_path, train=TWEET), "ner") == SampleRow(
        id="7",
        split="train",
        task="ner",
        tokens=["Ada", "is", "here"],
        tags=["B-PER", "O", "O"],
        image="7.jpg",
    )


def test_other_and_misc_are_one_type(tmp_path: Path) -> None:
    assert one(write(tmp_path, train="IMGID:1\nCup\tB-OTHER\nFinal\tI-MISC\n"), "ner").tags == [
        "B-MISC",
        "I-MISC",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IMGID:7\nAda\n", "train.txt line 2: expected \"token<TAB>label\", found 'Ada'"),
        (
            "IMGID:7\nAda\tx\tO\n",
            "train.txt line 2: found 3 columns; say which holds the labels, such as --column 3 for 'O'",
        ),
        ("IMGID:7\n\tO\n", 'train.txt line 2: expected "token<TAB>label"'),
        ("IMGID:7\nAda\tX-PER\n", "train.txt line 2: expected the label O"),
        ("IMGID:7\nAda\tB-\n", "train.txt line 2: expected the label O"),
        ("IMGID:7\nAda\tB\n", "train.txt line 2: expected the label O"),
        ("IMGID:7\nAda\t\n", 'train.txt line 2: expected "token<TAB>label"'),
        ("Ada\tO\n\nIMGID:7\nis\tO\n", 'train.txt line 1: expected "IMGID:<image id>" before the first'),
        ("IMGID:7\nAda\tO\n\nis\tO\n", 'train.txt line 4: expected "IMGID:<image id>" before the first word'),
        ("IMGID:\nAda\tO\n", 'train.txt line 1: expected "IMGID:<image id>", found no id'),
        ("IMGID:7\n\nIMGID:8\nAda\tO\n", "train.txt line 1: tweet 7 has no words"),
        ("IMGID:7\nAda\tO\n\nIMGID:8\n", "train.txt line 4: tweet 8 has no words"),
    ],
)
def test_a_bad_line_of_a_tweet_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert message in error_of(write(tmp_path, train=text), "ner")


def test_tweets_that_share_an_image_have_ids_of_their_own(tmp_path: Path) -> None:
    other = TWEET.replace("here", "there")
    samples, _ = read_samples(write(tmp_path, train=TWEET + other + TWEET + TWEET, valid=TWEET), "ner")
    ids = [sample.id for sample in samples if sample.split == "train"]
    twice = next(sample.id for sample in samples if sample.tokens[2] == "here" and sample.split == "train")
    assert len(set(ids)) == 4
    assert all(name.startswith("7-") for name in ids)
    assert {twice, f"{twice}-2", f"{twice}-3"} < set(ids)
    assert [sample.id for sample in samples if sample.split == "valid"] == ["7"]
    assert {sample.image for sample in samples} == {"7.jpg"}


def test_an_orphan_tag_is_repaired_and_told(tmp_path: Path) -> None:
    tags = ["I-PER", "I-PER", "O", "B-LOC", "I-ORG", "I-ORG", "B-ORG", "I-LOC"]
    tweet = "IMGID:7\n" + "".join(f"w\t{tag}\n" for tag in tags)
    samples, problems = read_samples(write(tmp_path, train=tweet), "ner")
    assert samples[0].tags == ["B-PER", "I-PER", "O", "B-LOC", "B-ORG", "I-ORG", "B-ORG", "B-LOC"]
    assert [(problem.kind, problem.sample, problem.where) for problem in problems] == [
        ("tag", "7", "train.txt:2"),
        ("tag", "7", "train.txt:6"),
        ("tag", "7", "train.txt:9"),
    ]
    assert problems[1].reason == "word 4: I-ORG continues no mention, read as B-ORG"


def test_a_repair_never_changes_the_mentions_that_seqeval_counts() -> None:
    dice = random.Random(0)
    for _ in range(2000):
        tags = dice.choices(["O", "B-A", "I-A", "B-B", "I-B", "B-B-C", "I-B-C"], k=dice.randrange(1, 9))
        opened, reasons = open_mentions(tags)
        assert get_entities(opened) == get_entities(tags)
        assert sum(tag.startswith("B-") for tag in opened) == len(get_entities(tags))
        assert sum(one != other for one, other in zip(tags, opened, strict=True)) == len(reasons)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("Ada B-PER\nLee  I-PER\n\nis O \n", 0),
        ("Ada\tB-PER\t\nLee\tI-PER\t\t\n \t\nis\tO\t\n", 0),
        ("-DOCSTART- -X- O O\n\nAda NNP B-NP B-PER\nLee NNP I-NP I-PER\n\t\nis VBZ B-VP O\n", 4),
        ("-DOCSTART-\tO\n\nAda\tB-PER\tB-actor\nLee\tI-PER\tI-actor\n\u3000\nis\tO\tO\n", 2),
        ("IMGID:1\nAda\tB-PER\tB-actor\nLee\tI-PER\tI-actor\n\nIMGID:2\nis\tO\tO\n", 2),
    ],
)
def test_columns_are_parted_by_tabs_or_spaces_with_or_without_images(
    tmp_path: Path, text: str, column: int
) -> None:
    samples, problems = read_samples(write(tmp_path, train=text), "ner", reading=Reading(column=column))
    assert problems == []
    assert {(*sample.tokens, *(sample.tags or ())) for sample in samples} == {
        ("Ada", "Lee", "B-PER", "I-PER"),
        ("is", "O"),
    }
    images = {"1.jpg", "2.jpg"} if "IMGID" in text else {None}
    assert {sample.image for sample in samples} == images


def test_a_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    found = error_of(write(tmp_path, train=TWEET), "ner", reading=Reading(column=3))
    assert "train.txt line 2: expected at least 3 columns, found 2" in found
    for column in (-1, 1):
        with pytest.raises(InputError, match="column must be 2 or more, or 0"):
            Reading(column=column)


def test_labels_belong_to_the_data(tmp_path: Path) -> None:
    """OTHER is MISC where all labels of all splits are Twitter's, and otherwise whatever the data say."""
    other = "IMGID:1\nCup\tB-OTHER\n"
    write(tmp_path, train=other, test="IMGID:2\nflu\tB-Disease\n")

    def tags(labels: str) -> dict[str, Any]:
        samples, _ = read_samples(tmp_path, "ner", reading=Reading(labels=labels))
        return {sample.split: sample.tags for sample in samples}

    assert tags("auto") == tags("written") == {"test": ["B-Disease"], "train": ["B-OTHER"]}
    assert "test.txt line 2: expected the label O, or B- or I- with one of PER, LOC, ORG, MISC, OTHER" in (
        error_of(tmp_path, "ner", reading=Reading(labels="twitter"))
    )
    (tmp_path / "test.txt").unlink()
    assert tags("auto") == tags("twitter") == {"train": ["B-MISC"]}
    assert tags("written") == {"train": ["B-OTHER"]}
    with pytest.raises(InputError, match="labels must be one of auto, twitter, written"):
        Reading(labels="any")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("B-A E-A O S-B", "B-A I-A O B-B"),
        ("B-A I-A L-A U-A U-B", "B-A I-A I-A B-A B-B"),
        ("B-A M-A E-A B-A E-A", "B-A I-A I-A B-A I-A"),
    ],
)
def test_other_schemes_become_bio_and_each_sample_is_a_problem(
    tmp_path: Path, written: str, read: str
) -> None:
    tags = written.split()
    write(tmp_path, train="".join(f"w\t{tag}\n" for tag in tags))
    (other := tmp_path / "json").mkdir()
    write(other, train_jsonl=lines({"tokens": ["w"] * len(tags), "tags": tags}))
    for folder in (tmp_path, other):
        samples, problems = read_samples(folder, "ner")
        assert samples[0].tags == read.split()
        assert [(problem.kind, problem.reason) for problem in problems] == [
            ("scheme", "tags of BIOES or BILOU, read as BIO")
        ]


@pytest.mark.parametrize(
    ("written", "read", "scheme"),
    [
        ("I-A I-A B-A O I-B", "B-A I-A B-A O B-B", "IOB1"),
        ("A A O B-side", "B-A I-A O B-B-side", None),
        ("A A O B", "B-A I-A O B-B", "types alone"),
        ("OTHER O PER PER", "B-MISC O B-PER I-PER", "types alone"),
    ],
)
def test_schemes_of_all_splits_together_are_read_as_bio(
    tmp_path: Path, written: str, read: str, scheme: str | None
) -> None:
    """No single tag says which it is. A label of another scheme among types alone is an error."""
    write(tmp_path, train="".join(f"w\t{tag}\n" for tag in written.split()), test="w\tO\n")
    if scheme is None:
        assert "line 1: expected the label O, or B- or I- with a type, found 'A'" in error_of(tmp_path, "ner")
        return
    samples, problems = read_samples(tmp_path, "ner")
    assert {sample.split: sample.tags for sample in samples} == {"train": read.split(), "test": ["O"]}
    assert [(problem.kind, problem.where, problem.reason) for problem in problems] == [
        ("scheme", "train.txt:1", f"tags of {scheme}, read as BIO")
    ]


def test_a_column_without_o_is_not_taken_for_types_alone(tmp_path: Path) -> None:
    text = "Ada NNP B-NP B-PER\nsleeps VBZ B-VP O\n"
    assert "found 'NNP'" in error_of(write(tmp_path, train=text), "ner", reading=Reading(column=2))


def test_a_line_may_name_an_image_with_its_suffix_and_comments_are_skipped(tmp_path: Path) -> None:
    text = "# sent_id = 1\n# image = cats/7.png\n# text = Ada is\nAda\tB-PER\n#\tO\n\n# image=8.webp\n# O\n"
    samples, problems = read_samples(write(tmp_path, train=text), "ner")
    assert problems == []
    assert {sample.id: (sample.image, *sample.tokens) for sample in samples} == {
        "7": ("cats/7.png", "Ada", "#"),
        "8": ("8.webp", "#"),
    }


def test_what_follows_a_closed_mention_opens_another(tmp_path: Path) -> None:
    opened, reasons = open_mentions(["S-A", "E-A", "I-A", "E-B", "O", "L-A"])
    assert opened == ["B-A", "B-A", "B-A", "B-B", "O", "B-A"]
    assert list(reasons) == [1, 2, 3, 5]


# MNRE


def test_a_literal_line_becomes_a_pair(tmp_path: Path) -> None:
    sample = one(write(tmp_path, train=literals(PAIR)), "re")
    assert sample.id.startswith("twitter_1-")
    assert replace(sample, id="") == SampleRow(
        id="",
        split="train",
        task="re",
        tokens=PAIR["token"],  # type: ignore[arg-type]
        head=[0, 1],
        tail=[2, 3],
        relation="/per/loc/place_of_residence",
        image="twitter_1.jpg",
    )


def test_pairs_of_one_image_have_ids_of_their_own(tmp_path: Path) -> None:
    turned = {**PAIR, "h": PAIR["t"], "t": PAIR["h"]}
    samples, _ = read_samples(write(tmp_path, train=literals(PAIR, turned, PAIR)), "re")
    assert len({sample.id for sample in samples}) == 3


def test_the_first_version_of_mnre_is_found_by_name_and_its_negative_relation_is_that_of_the_second(
    tmp_path: Path,
) -> None:
    negative = {**PAIR, "relation": "None"}
    (second := tmp_path / "2").mkdir()
    expected, none = read_samples(
        write(second, mnre_train=literals(negative, PAIR), mnre_val=literals(PAIR)), "re"
    )
    (first := tmp_path / "1").mkdir()
    write(first, mnre_org_train=literals({**PAIR, "relation": "none"}, PAIR), mnre_org_val=literals(PAIR))
    samples, problems = read_samples(first, "re")
    assert samples == expected
    assert none == []
    assert [(problem.kind, problem.where) for problem in problems] == [("relation", "mnre_org_train.txt:1")]
    assert problems[0].reason == "relation none is the negative relation, read as None"


def test_the_first_version_of_mnre_is_read_as_published(tmp_path: Path) -> None:
    """Its files with all three splits are called ours_*.txt, and some rows have a number for an image."""
    files = {f"ours_{split}": literals(PAIR, {**PAIR, "img_id": 71000}) for split in ("train", "val", "test")}
    samples, problems = read_samples(write(tmp_path, **files), "re")
    assert problems == []
    assert [(sample.split, sample.image) for sample in samples] == [
        (split, image) for split in ("test", "train", "valid") for image in ("71000", "twitter_1.jpg")
    ]
    assert samples[0].id.startswith("71000-")
    for wrong in (True, 1.5, None):
        write(tmp_path, ours_train=literals({**PAIR, "img_id": wrong}))
        assert f'"img_id" must be a non-empty string of valid Unicode, found {wrong}' in error_of(
            tmp_path, "re"
        )


def test_a_file_of_another_format_is_called_what_it_looks_like(tmp_path: Path) -> None:
    for text in (lines(NER), literals(PAIR), lines([NER])):
        assert (
            "train.txt line 1: looks like JSON or MNRE, not like words with labels; give JSON the suffix"
            in (error_of(write(tmp_path, train=text), "ner"))
        )
    for text in (TWEET, "Ada\tO\n"):
        assert "train.txt line 1: looks like words with labels, which are for entities; give --task ner" in (
            error_of(write(tmp_path, train=text), "re")
        )


def test_a_row_of_opennre_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    row = {name: value for name, value in PAIR.items() if name != "img_id"}
    assert "line 1: 'img_id' is missing, as in OpenNRE's format; give --format opennre" in (
        error_of(write(tmp_path, train=json.dumps(row)), "re", "mnre")
    )


def test_both_versions_of_mnre_are_two_files_for_one_split(tmp_path: Path) -> None:
    folder = write(tmp_path, mnre_train=literals(PAIR), mnre_org_train=literals(PAIR))
    assert "two files for the split train" in error_of(folder, "re")


def test_a_relation_of_the_users_own_that_is_called_none_stays_what_it_is(tmp_path: Path) -> None:
    record = {"tokens": ["a", "b"], "head": [0, 1], "tail": [1, 2], "relation": "none"}
    assert one(write(tmp_path, train_jsonl=lines(record)), "re").relation == "none"


def test_arguments_may_overlap_as_they_do_in_the_published_data(tmp_path: Path) -> None:
    sample = one(write(tmp_path, train=literals({**PAIR, "h": {"pos": [0, 3]}})), "re")
    assert (sample.head, sample.tail) == ([0, 3], [2, 3])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {**PAIR, "h": {"pos": [0, 4]}},
            '"h pos" must be [start, end) with 0 <= start < end <= 3, the number of words, found [0, 4]',
        ),
        ({**PAIR, "t": {"pos": [-1, 1]}}, '"t pos" must be'),
        ({**PAIR, "t": {"pos": [1, 1]}}, '"t pos" must be'),
        ({**PAIR, "t": {"pos": [2, 1]}}, '"t pos" must be'),
        ({**PAIR, "t": {"pos": [1]}}, '"t pos" must be'),
        ({**PAIR, "t": {"pos": "12"}}, '"t pos" must be'),
        ({**PAIR, "t": {"pos": [False, True]}}, "found [False, True]"),
        ({**PAIR, "t": {"pos": [0.0, 1.0]}}, "found [0.0, 1.0]"),
        ({**PAIR, "t": [0, 1]}, "\"t\" must be a dictionary with the key 'pos'"),
        ({**PAIR, "token": []}, '"token" must be a list of at least one word, found []'),
        ({**PAIR, "token": "Ada"}, '"token" must be a list of strings'),
        (
            {**PAIR, "token": ["Ada", 3, "x"]},
            '"token[1]" must be a non-empty string of valid Unicode, found 3',
        ),
        ({**PAIR, "token": ["Ada", "", "x"]}, '"token[1]" must be a non-empty string'),
        ({**PAIR, "token": ["Ada", "\ud83d", "x"]}, '"token[1]" must be a non-empty string of valid Unicode'),
        ({**PAIR, "relation": None}, '"relation" must be a non-empty string'),
        ({**PAIR, "img_id": ""}, '"img_id" must be a non-empty string'),
        ({"token": ["Ada"]}, "expected a dictionary with the keys token, h, t, img_id, relation"),
        ([1, 2], "expected a dictionary with the keys"),
    ],
)
def test_a_bad_pair_is_named(tmp_path: Path, record: Any, message: str) -> None:
    found = error_of(write(tmp_path, train=literals(PAIR, record)), "re")
    assert "train.txt line 2: " in found
    assert message in found


@pytest.mark.parametrize(
    "line",
    [
        "{'token': ",
        "__import__('os').getcwd()",
        "{[]: 1}",
        "(" * 100_000,
        "-" * 50_000 + "1",
        "{'a': 1}\0",
        "0" * 9,
        "1" * 5000,
    ],
)
def test_a_hostile_line_is_neither_run_nor_a_crash(tmp_path: Path, line: str) -> None:
    assert "train.txt line 1: expected a" in error_of(write(tmp_path, train=line + "\n"), "re")


def test_a_backslash_in_a_tweet_prints_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert one(write(tmp_path, train=repr(PAIR).replace("Ada", r"A\_da")), "re").tokens[0] == r"A\_da"


# JSON lines


def test_words_with_tags_become_a_sample(tmp_path: Path) -> None:
    record = {
        "id": "a",
        **WORDS,
        "tags": ["B-person", "O", "B-geo-political"],
        "image": "x.png",
        "groups": ["easy", "hard"],
    }
    assert one(write(tmp_path, train_jsonl=lines(record)), "ner") == SampleRow(
        id="a",
        split="train",
        task="ner",
        tokens=["Ada", "of", "London"],
        tags=["B-person", "O", "B-geo-political"],
        groups=["easy", "hard"],
        image="x.png",
    )


def test_a_text_with_spans_becomes_words_with_tags(tmp_path: Path) -> None:
    text = "Hi @ada_l, in New York!"
    spans = [{"start": 14, "end": 22, "type": "LOC"}, {"start": 4, "end": 9, "type": "PER"}]
    sample = one(
        write(tmp_path, train_jsonl=lines({"text": text, "spans": spans, "groups": ["second", "first"]})),
        "ner",
    )
    assert sample.tokens == ["Hi", "@", "ada_l", ",", "in", "New", "York", "!"]
    assert sample.tags == ["O", "O", "B-PER", "O", "O", "B-LOC", "I-LOC", "O"]
    assert sample.groups == ["first", "second"]


def spans_of(*bounds: tuple[int, int], kind: str = "T") -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "type": kind} for start, end in bounds]


def test_a_span_inside_a_word_is_moved_to_the_word_and_is_a_problem(tmp_path: Path) -> None:
    record = {"id": "a", "text": "We saw Oslofjord today", "spans": spans_of((7, 11))}
    samples, problems = read_samples(write(tmp_path, train_jsonl=lines(record)), "ner")
    assert samples[0].tokens == ["We", "saw", "Oslofjord", "today"]
    assert samples[0].tags == ["O", "O", "B-T", "O"]
    assert [(problem.kind, problem.sample, problem.where) for problem in problems] == [
        ("span", "a", "train.jsonl:1")
    ]
    assert problems[0].reason == "spans[0] [7, 11] 'Oslo' is not whole words; moved to [7, 16] 'Oslofjord'"


def test_of_two_spans_inside_one_word_the_second_is_dropped_with_its_group_and_is_a_problem(
    tmp_path: Path,
) -> None:
    spans = spans_of((9, 12), (1, 4), (4, 8))
    record = {"text": "#NewYork now", "spans": spans, "groups": ["now", "new", "york"]}
    samples, problems = read_samples(write(tmp_path, train_jsonl=lines(record)), "ner")
    assert (samples[0].tokens, samples[0].tags) == (["#", "NewYork", "now"], ["O", "B-T", "B-T"])
    assert samples[0].groups == ["new", "now"]
    assert [problem.reason for problem in problems] == [
        "spans[1] [1, 4] 'New' is not whole words; moved to [1, 8] 'NewYork'",
        "spans[2] [4, 8] 'York' is not whole words; dropped, as another span has that word",
    ]


def test_strict_spans_are_refused_with_both_ways_out(tmp_path: Path) -> None:
    strict = Reading(strict_spans=True)
    whole = {"text": "We saw Oslo", "spans": spans_of((7, 11))}
    assert read_samples(write(tmp_path, train_jsonl=lines(whole)), "ner", reading=strict)[1] == []
    write(tmp_path, train_jsonl=lines(whole, {"text": "We saw Oslofjord", "spans": spans_of((7, 11))}))
    assert (
        "train.jsonl line 2: spans[0] [7, 11] 'Oslo' is not whole words; correct it, or prepare with "
        "--no-strict-spans" in error_of(tmp_path, "ner", reading=strict)
    )


def test_white_space_at_the_ends_of_a_span_is_left_out_and_is_a_problem(tmp_path: Path) -> None:
    record = {"text": "to Rome .", "spans": spans_of((2, 8), kind="LOC")}
    samples, problems = read_samples(write(tmp_path, train_jsonl=lines(record)), "ner")
    assert samples[0].tags == ["O", "B-LOC", "O"]
    assert [problem.reason for problem in problems] == [
        "spans[0] [2, 8] ' Rome ' is not whole words; moved to [3, 7] 'Rome'"
    ]


@pytest.mark.parametrize("rule", WORD_RULES)
@pytest.mark.parametrize("task", ["ner", "re"])
def test_the_gold_annotation_does_not_shape_the_words(tmp_path: Path, task: str, rule: str) -> None:
    """Texts with gold at random places, with other gold, and (for entities) with none have equal words."""
    dice = random.Random(0)
    letters = "ab_ .,#\u00e9\u094d\U0001f600\u6211\u4eac\u30a2\u0e01\uc11c"
    texts = ["".join(dice.choices(letters, k=20)) + "x" for _ in range(100)]

    def records(gold: bool) -> list[dict[str, Any]]:
        made = []
        for number, text in enumerate(texts):
            while True:
                bounds = sorted(dice.sample(range(len(text) + 1), 4))
                spans = [(bounds[0], bounds[1]), (bounds[2], bounds[3])]
                if all(text[slice(*span)].strip() for span in spans):
                    break
            (head, tail), relation = spans, dice.choice("rs")
            labels: dict[str, Any] = {"head": list(head), "tail": list(tail), "relation": relation}
            if task == "ner":
                labels = {"spans": spans_of(*spans, kind=dice.choice("TU")) if gold else []}
            made.append({"id": f"{number:03}", "text": text, **labels})
        return made

    reading = Reading(words=rule)
    seen = []
    for gold in (True, True, task == "re"):
        samples, problems = read_samples(
            write(
                tmp_path, train_jsonl=lines(*records(gold)), test_jsonl=lines({**records(gold)[0], "id": "x"})
            ),
            task,
            reading=reading,
        )
        seen.append([(sample.id, sample.tokens) for sample in samples])
        assert any(problem.kind == "span" for problem in problems) or not gold or rule == "characters"
    expected = [[text[slice(*word)] for word in split_words(text, rule)] for text in texts]
    assert seen[0] == seen[1] == seen[2]
    assert sorted(tokens for _, tokens in seen[0]) == sorted([*expected, expected[0]])


def test_a_mention_is_the_smallest_words_that_cover_its_span(tmp_path: Path) -> None:
    dice = random.Random(1)
    for _ in range(100):
        text = "".join(dice.choices("ab .#\u6211\u0301", k=12)) + "x"
        start, end = sorted(dice.sample(range(len(text) + 1), 2))
        if not text[start:end].strip():
            continue
        record = {"text": text, "spans": spans_of((start, end))}
        samples, problems = read_samples(write(tmp_path, train_jsonl=lines(record)), "ner")
        words = split_words(text)
        wanted = {at for at in range(start, end) if not text[at].isspace()}
        inside = [index for index, tag in enumerate(samples[0].tags or []) if tag != "O"]
        for index in (inside[0], inside[-1]):
            assert wanted & set(range(*words[index]))
        assert wanted <= {at for index in inside for at in range(*words[index])}
        assert inside == list(range(inside[0], inside[-1] + 1))
        assert bool(problems) == ([words[inside[0]][0], words[inside[-1]][1]] != [start, end])


def test_a_text_without_spaces_is_read_by_the_rule_that_the_user_names(tmp_path: Path) -> None:
    write(tmp_path, train_jsonl=lines({"text": "\u6211ab", "spans": spans_of((1, 2))}))
    found = {rule: read_samples(tmp_path, "ner", reading=Reading(words=rule))[0][0] for rule in WORD_RULES}
    assert {rule: sample.tokens for rule, sample in found.items()} == {
        "space": ["\u6211ab"],
        "punctuation": ["\u6211ab"],
        "simple": ["\u6211", "ab"],
        "tweet": ["\u6211", "ab"],
        "characters": ["\u6211", "a", "b"],
    }
    assert found["characters"].tags == ["O", "B-T", "O"]
    with pytest.raises(InputError, match=f"words must be one of {', '.join(WORD_RULES)}, not 'jieba'"):
        Reading(words="jieba")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u6211\u7231\u5317\u4eac", ["\u6211", "\u7231", "\u5317", "\u4eac"]),
        ("\u65b0iPhone7\u304c\u30fc", ["\u65b0", "iPhone7", "\u304c", "\u30fc"]),
        ("\u0e01\u0e34\u0e19a", ["\u0e01\u0e34", "\u0e19", "a"]),
        ("\uc11c\uc6b8\uc740 \U00020000\U00020001", ["\uc11c\uc6b8\uc740", "\U00020000", "\U00020001"]),
        ("isn't it?", ["isn", "'", "t", "it", "?"]),
        ("  a\u00a0b\u2028c  ", ["a", "b", "c"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940!", ["\u0939\u093f\u0928\u094d\u0926\u0940", "!"]),
        ("ok\u2764\ufe0f2", ["ok", "\u2764\ufe0f", "2"]),
        ("\u0301a", ["\u0301a"]),
        (" ", []),
    ],
)
def test_words_end_at_white_space_and_punctuation_and_keep_their_marks(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in split_words(text)] == words


def test_a_relation_is_given_by_words_or_by_characters(tmp_path: Path) -> None:
    by_words = {**WORDS, "head": [0, 1], "tail": [2, 3], "relation": "lives", "groups": ["g"]}
    by_characters = {
        "text": "Ada of London",
        "head": [0, 3],
        "tail": [7, 13],
        "relation": "lives",
        "groups": ["g"],
        "image": None,
    }
    samples, _ = read_samples(write(tmp_path, train_jsonl=lines(by_words, by_characters)), "re")
    assert [
        (sample.text, sample.offsets) for sample in sorted(samples, key=lambda sample: sample.text or "")
    ] == [
        (None, None),
        ("Ada of London", [[0, 3], [4, 6], [7, 13]]),
    ]
    bare = [replace(sample, id="", text=None, offsets=None) for sample in samples]
    assert bare[0] == bare[1]
    assert (samples[0].tokens, samples[0].head, samples[0].tail, samples[0].groups) == (
        WORDS["tokens"],
        [0, 1],
        [2, 3],
        ["g"],
    )


def test_arguments_inside_words_are_moved_to_them_and_may_meet_there(tmp_path: Path) -> None:
    record = {"text": "#AdaLondon", "head": [1, 4], "tail": [4, 10], "relation": "lives"}
    samples, problems = read_samples(write(tmp_path, train_jsonl=lines(record)), "re")
    assert (samples[0].tokens, samples[0].head, samples[0].tail) == (["#", "AdaLondon"], [1, 2], [1, 2])
    assert [(problem.kind, problem.reason) for problem in problems] == [
        ("span", "head [1, 4] 'Ada' is not whole words; moved to [1, 10] 'AdaLondon'"),
        ("span", "tail [4, 10] 'London' is not whole words; moved to [1, 10] 'AdaLondon'"),
    ]


def test_an_orphan_tag_of_a_json_line_is_repaired_too(tmp_path: Path) -> None:
    samples, problems = read_samples(
        write(tmp_path, train_jsonl="\n" + lines({"id": "a", "tokens": ["x"], "tags": ["I-T"]})), "ner"
    )
    assert samples[0].tags == ["B-T"]
    assert [(problem.sample, problem.where) for problem in problems] == [("a", "train.jsonl:2")]


NER = {**WORDS, "tags": ["O", "O", "B-LOC"]}
SPAN = {"start": 0, "end": 3, "type": "PER"}
TEXT = {"text": "Ada of London", "spans": [SPAN]}
RE = {**WORDS, "head": [0, 1], "tail": [2, 3], "relation": "lives"}


@pytest.mark.parametrize(
    ("task", "record", "message"),
    [
        (
            "ner",
            {**NER, "tag": 1},
            "unknown key 'tag'; such a sample of the task ner may have boxes, groups, id, image, tags, to",
        ),
        ("ner", {**NER, "spans": []}, "unknown key 'spans'"),
        ("re", {**RE, "tags": ["O"] * 3}, "may have groups, head, id, image, relation, tail, tokens"),
        ("ner", {**NER, "text": "x"}, 'expected either "tokens" or "text"'),
        ("ner", {"tags": []}, 'expected either "tokens" or "text"'),
        ("ner", WORDS, '"tags" is missing'),
        ("ner", {"text": "x"}, '"spans" is missing'),
        ("re", {**WORDS, "head": [0, 1], "relation": "r"}, '"tail" is missing'),
        ("ner", {**NER, "tags": ["O"]}, "expected a tag for each of the 3 tokens, found 1 tags"),
        (
            "ner",
            {**NER, "tags": ["O", "O", "X-LOC"]},
            "\"tags[2]\" must be O, or B- or I- with a type, found 'X-LOC'",
        ),
        ("ner", {**NER, "tags": ["O", "O", "B-"]}, '"tags[2]" must be'),
        ("ner", {**NER, "tags": ["O", "O", "LOC"]}, '"tags[2]" must be'),
        ("ner", {"tokens": [], "tags": []}, '"tokens" must be a list of at least one word'),
        (
            "ner",
            {"tokens": ["a", 1], "tags": ["O", "O"]},
            '"tokens[1]" must be a non-empty string of valid Unicode, found 1',
        ),
        (
            "ner",
            {"tokens": ["a", "\ud83d"], "tags": ["O", "O"]},
            '"tokens[1]" must be a non-empty string of valid Unicode',
        ),
        ("ner", {**NER, "id": 1.5}, '"id" must be a non-empty string of valid Unicode, found 1.5'),
        ("ner", {**NER, "id": True}, '"id" must be a non-empty string of valid Unicode, found True'),
        ("ner", {"tokens": ["a"], "ner_tags": [0]}, "looks like a row of Hugging Face datasets; rename"),
        (
            "ner",
            {"text": "Ada", "tokens": ["Ada"], "label": ["O"], "image_id": "1.jpg"},
            'looks like a row of RiTUAL\'s multimodal_NER; rename "label" to "tags"',
        ),
        (
            "ner",
            {"text": "Ada", "label": [[0, 3, "T"]]},
            "doccano; give --format doccano",
        ),
        ("re", {"token": ["a"], "h": {}, "t": {}, "relation": "r"}, "give --format mnre"),
        ("ner", {"text": "Ada", "tokens": ["Ada"]}, 'it has both, remove "text" to keep the words'),
        ("ner", {**NER, "image": float("nan")}, '"image" must be a non-empty string'),
        ("ner", {**NER, "groups": ["a", "b"]}, 'expected 1 "groups", one for each mention, found 2'),
        ("re", {**RE, "groups": []}, 'expected 1 "groups", one for each relation, found 0'),
        ("ner", {**TEXT, "spans": [SPAN, {**SPAN, "start": 2, "end": 5}]}, "spans[0] and spans[1] overlap"),
        (
            "ner",
            {**TEXT, "spans": [{**SPAN, "end": 14}]},
            '"spans[0]" must be [start, end) with 0 <= start < end <= 13, the number of',
        ),
        ("ner", {**TEXT, "spans": [{**SPAN, "end": 0}]}, '"spans[0]" must be'),
        ("ner", {**TEXT, "spans": [{**SPAN, "end": True}]}, '"spans[0]" must be'),
        ("ner", {**TEXT, "spans": [{**SPAN, "type": ""}]}, '"spans[0] type" must be a non-empty string'),
        (
            "ner",
            {**TEXT, "spans": [{"start": 0, "end": 3}]},
            '"spans[0]" must be an object with the keys end, start, type',
        ),
        (
            "ner",
            {**TEXT, "spans": [{"start": 3, "end": 4, "type": "T"}]},
            '"spans[0]" covers white space only',
        ),
        ("ner", {**TEXT, "spans": SPAN}, '"spans" must be a list'),
        ("ner", {"text": " \n ", "spans": []}, '"text" must be more than white space'),
        (
            "re",
            {**RE, "head": [0, 4]},
            '"head" must be [start, end) with 0 <= start < end <= 3, the number of words, found [0, 4]',
        ),
        ("re", {**RE, "tail": [3, 3]}, '"tail" must be'),
        ("re", {**RE, "tail": [True, 2]}, '"tail" must be'),
        ("re", {**RE, "tail": ["0", "1"]}, '"tail" must be'),
        ("re", {**RE, "relation": ""}, '"relation" must be a non-empty string'),
        (
            "re",
            {"text": "Ada of London", "head": [3, 4], "tail": [7, 13], "relation": "r"},
            '"head" covers white space only',
        ),
        ("ner", ["a"], "expected one JSON object, found '[\"a\"]'"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, task: str, record: Any, message: str) -> None:
    first = {**(NER if task == "ner" else RE), "id": "first"}
    found = error_of(write(tmp_path, train_jsonl=lines(first, record)), task)
    assert "train.jsonl line 2: " in found
    assert message in found


@pytest.mark.parametrize(
    "line", ["{", '{"tokens": ["a"], "tags": ["O"], "tags": ["O"]}', "[" * 100_000, "1" * 5000, "{} {}"]
)
def test_a_line_that_is_not_one_json_object_is_named(tmp_path: Path, line: str) -> None:
    assert "train.jsonl line 1: expected one JSON object" in error_of(
        write(tmp_path, train_jsonl=line), "ner"
    )


def test_an_array_is_read_as_its_objects_are_line_by_line(tmp_path: Path) -> None:
    records = [{**NER, "id": "a"}, {**WORDS, "tags": ["I-T", "O", "O"], "id": "b"}, {**NER, "id": "c"}]
    (by_lines := tmp_path / "lines").mkdir()
    expected, repairs = read_samples(write(by_lines, train_jsonl=lines(*records)), "ner")
    for name in ("train.jsonl", "train.json"):
        for indent in (None, 1):
            (folder := tmp_path / f"{name}-{indent}").mkdir()
            (folder / name).write_text("\n" + json.dumps(records, indent=indent))
            samples, problems = read_samples(folder, "ner")
            assert samples == expected
            assert [problem.reason for problem in problems] == [problem.reason for problem in repairs]
            # Each object of three words and tags takes 13 lines, and begins two lines below the file's start.
            assert problems[0].where == f"{name}:{'2, object 2' if indent is None else 16}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "line 1: the array is empty"),
        ('[\n{"tokens": ["a"], "tags": ["O"]}\n{}]', 'line 3: expected "," or "]" after an object'),
        ('[{"tokens": ["a"], "tags": ["O"]},\n]', "line 2: expected one JSON object, found ']'"),
        ('[{"tokens": ["a"], "tags": ["O"]}', 'line 1: expected "," or "]" after an object'),
        ('[{"tokens": ["a"], "tags": ["O"]}]\nx', "line 1: expected nothing after the array, found 'x'"),
        ('[{"tokens": ["a"],\n"tags": ["O"]},\n3]', "line 3: expected one JSON object, found '3'"),
        ('[{"tokens": ["a"],\n"tags": ["O"]},\n{"tokens": []}]', 'line 3: "tags" is missing'),
    ],
)
def test_a_bad_array_is_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    assert f"train.jsonl {message}" in error_of(write(tmp_path, train_jsonl=text), "ner")


def test_ids_and_image_names_may_be_integers(tmp_path: Path) -> None:
    sample = one(write(tmp_path, train_jsonl=lines({**NER, "id": 17, "image": 3})), "ner")
    assert (sample.id, sample.image) == ("17", "3")
    write(tmp_path, train_jsonl=lines({**NER, "id": 17}, {**NER, "id": "17"}))
    assert "id '17' is already used" in error_of(tmp_path, "ner")


def test_a_given_id_is_unique_over_all_splits_and_both_places_are_named(tmp_path: Path) -> None:
    first, again = {**NER, "id": "a"}, {**NER, "id": "a"}
    found = error_of(write(tmp_path, train_jsonl=lines(NER, first), test_jsonl=lines(again)), "ner")
    assert "test.jsonl line 1: id 'a' is already used by " in found
    assert "train.jsonl line 2" in found


def test_samples_without_an_id_may_repeat(tmp_path: Path) -> None:
    samples, _ = read_samples(write(tmp_path, train_jsonl=lines(NER, NER), test_jsonl=lines(NER)), "ner")
    test, first, second = (sample.id for sample in samples)
    assert test == first
    assert len(first) == 12
    assert second == f"{first}-2"


# Order


def test_repeats_are_numbered_by_content_and_not_by_place() -> None:
    names, digests = ["a", "a", "b", "a"], ["3", "1", "2", "2"]
    assert number_repeats(names, digests) == ["a-3", "a", "b", "a-2"]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_lines_changes_no_sample(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    tweets = [
        f"IMGID:{dice.randrange(6)}\nw{dice.randrange(2)}\t{dice.choice(['O', 'B-PER', 'I-PER'])}\n\n"
        for _ in range(40)
    ]
    pairs = [
        repr({**PAIR, "h": {"pos": [0, dice.randrange(1, 4)]}, "img_id": f"{dice.randrange(4)}.jpg"}) + "\n"
        for _ in range(40)
    ]
    objects = [
        json.dumps({**RE, "head": [0, dice.randrange(1, 4)], "image": dice.choice([None, "x.jpg"])}) + "\n"
        for _ in range(40)
    ]
    for task, format, name, parts in (
        ("ner", "twitter", "train", tweets),
        ("re", "mnre", "train", pairs),
        ("re", "jsonl", "train_jsonl", objects),
    ):
        before, repairs_before = read_samples(write(tmp_path, **{name: "".join(parts)}), task, format)
        dice.shuffle(parts)
        after, repairs_after = read_samples(write(tmp_path, **{name: "".join(parts)}), task, format)
        assert len({sample.id for sample in before}) == 40
        assert after == before
        # A problem names its line, which is all that may change.
        assert [replace(row, where="") for row in repairs_after] == [
            replace(row, where="") for row in repairs_before
        ]


# Real data


def raw_tags(path: Path) -> list[list[str]]:
    """Return the tags as they stand in the file, read without the package, OTHER renamed."""
    tweets = path.read_text(encoding="utf-8").strip("\n").split("\n\n")
    return [
        [line.split("\t")[1].replace("OTHER", "MISC") for line in tweet.split("\n")[1:]] for tweet in tweets
    ]


@pytest.mark.slow
def test_twitter_2015_keeps_every_entity_that_seqeval_reads_from_the_raw_tags(data: Path) -> None:
    samples, problems = read_samples(data / "twitter2015", "ner")
    expected = {"train": (4000, 186), "valid": (1000, 53)}
    assert Counter(sample.split for sample in samples) == {
        split: number for split, (number, _) in expected.items()
    }
    for split, (_, orphans) in expected.items():
        raw = raw_tags(data / "twitter2015" / f"{split}.txt")
        mine = [sample for sample in samples if sample.split == split]
        before = Counter((len(tags), *get_entities(tags)) for tags in raw)
        assert Counter((len(sample.tokens), *get_entities(sample.tags)) for sample in mine) == before
        assert sum(problem.where.startswith(f"{split}.txt:") for problem in problems) == orphans
        assert sum(len(sample.tokens) for sample in mine) == sum(len(tags) for tags in raw)
    assert {tag[2:] for sample in samples for tag in sample.tags or []} == {"", "PER", "LOC", "ORG", "MISC"}
    assert any("\u00a0" in sample.tokens for sample in samples if sample.split == "valid")


def test_mnre_is_read_whole_and_under_its_published_name(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mnre_train.txt").symlink_to(data / "mnre" / "mnre_train.txt")
    (tmp_path / "mnre_val .txt").symlink_to(data / "mnre" / "mnre_val.txt")
    samples, problems = read_samples(tmp_path, "re")
    assert Counter(sample.split for sample in samples) == {"train": 2500, "valid": 400}
    assert problems == []
    assert len({(sample.split, sample.id) for sample in samples}) == 2900
    assert len({sample.relation for sample in samples}) == 23
    assert {(sample.split, sample.id) for sample in read_samples(data / "mnre", "re")[0]} == {
        (s.split, s.id) for s in samples
    }
