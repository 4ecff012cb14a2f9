"""A data set is known by its content: whatever lies around it, and nothing else."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.prepare.identity import UNKNOWN, compare_with_paper, identify
from hmnet_pipe.stages.prepare.readers import read_samples
from hmnet_pipe.stages.prepare.settings import PrepareSettings
from hmnet_pipe.stages.prepare.stage import Prepare

PAIR = {
    "token": ["Ada", "of", "London"],
    "h": {"pos": [0, 1]},
    "t": {"pos": [2, 3]},
    "img_id": "1.jpg",
    "relation": "/per/loc/x",
}


def identity_of(folder: Path, task: str = "ner") -> dict[str, Any]:
    return identify(map(vars, read_samples(folder, task)[0]))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    tweets = [f"IMGID:{number}\nAda\tB-PER\nis\tO\nword{number}\tB-OTHER\n\n" for number in (1, 2, 3)]
    (tmp_path / "text" / "train.txt").write_text("".join(tweets))
    (tmp_path / "text" / "valid.txt").write_text(tweets[0])
    return tmp_path / "text"


def test_a_digest_is_that_of_the_sorted_digests_of_the_samples(texts: Path) -> None:
    """Computed apart: the sha256 of every sample's canonical JSON, sorted, and that list again."""
    contents = [
        json.dumps(
            [["Ada", "is", f"word{number}"], ["B-PER", "O", "B-MISC"], None, None, None, f"{number}.jpg"],
            separators=(",", ":"),
        )
        for number in (1, 2, 3)
    ]
    digests = sorted(hashlib.sha256(content.encode()).hexdigest() for content in contents)
    expected = hashlib.sha256(json.dumps(digests, separators=(",", ":")).encode()).hexdigest()
    assert identity_of(texts)["train"].digest == expected
    assert identity_of(texts)["train"].samples == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\n".join(reversed(text.split("\n\n"))).strip() + "\n",
        lambda text: text.replace("OTHER", "MISC"),
        lambda text: text.replace("\n", "\r\n"),
    ],
    ids=["order of tweets", "another name of one type", "line ends"],
)
def test_what_is_no_content_changes_no_digest(texts: Path, change: Callable[[str], str]) -> None:
    before = identity_of(texts)
    file = texts / "train.txt"
    changed = change(file.read_text())
    assert changed != file.read_text()
    file.write_bytes(changed.encode())
    assert identity_of(texts) == before
    assert identity_of(Path(shutil.copytree(texts, texts.parent / "elsewhere"))) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("word2", "word4"),
        ("word2\tB-OTHER", "word2\tO"),
        ("IMGID:2", "IMGID:4"),
        ("word3\tB-OTHER", "word3\tB-ORG"),
    ],
)
def test_each_change_of_a_split_changes_its_digest_and_no_other(texts: Path, old: str, new: str) -> None:
    before = identity_of(texts)
    file = texts / "train.txt"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    after = identity_of(texts)
    assert after["train"].digest != before["train"].digest
    assert after["valid"] == before["valid"]


def test_a_pairs_places_and_its_relation_are_content(tmp_path: Path) -> None:
    digests = set()
    changes: list[dict[str, Any]] = [
        {},
        {"h": {"pos": [0, 2]}},
        {"t": {"pos": [1, 2]}},
        {"relation": "None"},
        {"img_id": "2.jpg"},
    ]
    for number, change in enumerate(changes):
        (folder := tmp_path / str(number)).mkdir()
        (folder / "mnre_train.txt").write_text(f"{PAIR | change!r}\n")
        digests.add(identity_of(folder, "re")["train"].digest)
    assert len(digests) == len(changes)


def test_images_on_disk_and_the_folders_name_are_no_content_and_prepare_says_unknown(texts: Path) -> None:
    (images := texts.parent / "images").mkdir()
    (images / "1.jpg").write_bytes(b"not an image")
    said = []
    for name, folder in (("with", images), ("without", None)):
        prepare = Prepare(RunFolder(texts.parent / name), PrepareSettings(texts, "ner", folder))
        said.append(prepare.compute(prepare.causes(), Tools()).details["data"])
        assert identify(read_table(prepare.run.samples, SAMPLES).to_pylist()) == identity_of(texts)
    assert said[0] == said[1]
    assert said[0]["train"] == f"{UNKNOWN} [{identity_of(texts)['train'].digest[:12]}]"


@pytest.mark.slow
def test_the_published_splits_are_known_and_a_version_of_one_other_word_is_not(
    data: Path, tmp_path: Path
) -> None:
    assert [part.known_as for part in identity_of(data / "twitter2015").values()] == [
        f"Twitter-2015 {split} as published by Yu et al. (2020)" for split in ("train", "valid")
    ]
    assert all(
        "subset of Twitter-2015" in part.known_as for part in identity_of(data / "twitter2015_pairs").values()
    )
    assert all("subset of MNRE-2" in part.known_as for part in identity_of(data / "mnre", "re").values())
    rows = (data / "mnre" / "mnre_train.txt").read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(rows)
    (tmp_path / "mnre_train.txt").write_text("\n".join(rows), encoding="utf-8")
    assert identity_of(tmp_path, "re")["train"].known_as != UNKNOWN
    (tmp_path / "mnre_train.txt").write_text("\n".join(rows[1:]), encoding="utf-8")
    assert identity_of(tmp_path, "re")["train"].known_as == UNKNOWN


def test_counts_stand_beside_the_papers(data: Path) -> None:
    tweets = list(map(vars, read_samples(data / "twitter2015", "ner")[0]))
    assert compare_with_paper("twitter2015", tweets) == {
        "compared with the paper": {
            "train": "4000 samples (paper: 4000)",
            "valid": "1000 samples (paper: 1000)",
            "test": "0 samples (paper: 3257)",
        }
    }
    assert "3373" in compare_with_paper("twitter2017", tweets)["note"]
    assert compare_with_paper("custom", tweets) == {}


def test_the_comparison_is_with_the_preset_of_today_also_where_nothing_is_computed(texts: Path) -> None:
    def prepare(preset: str) -> str:
        options = ["--preset", preset, "--text", str(texts)]
        done = CliRunner().invoke(main, ["prepare", str(texts.parent / "run"), *options])
        assert done.exit_code == 0, done.output
        return done.output

    assert "train 3 samples (paper: 4290)" in prepare("twitter2017")
    assert "note: the paper counts the corpus of Lu et al." in prepare("twitter2017")
    again = prepare("twitter2015")
    assert "up to date" in again
    assert "train 3 samples (paper: 4000)" in again
    assert (
        "paper"
        not in CliRunner()
        .invoke(main, ["prepare", str(texts.parent / "own"), "--task", "ner", "--text", str(texts)])
        .output
    )


def test_mnre_is_counted_as_the_paper_counts_it(tmp_path: Path) -> None:
    """A sentence with two pairs is one sentence with one image, and four entities."""
    rows = [
        PAIR,
        {**PAIR, "h": PAIR["t"], "t": PAIR["h"], "relation": "None"},
        {**PAIR, "token": ["x", "y", "z"], "img_id": "2.jpg"},
    ]
    (tmp_path / "mnre_train.txt").write_text("".join(f"{row!r}\n" for row in rows))
    (tmp_path / "mnre_val.txt").write_text(f"{rows[0]!r}\n")
    found = compare_with_paper("mnre", map(vars, read_samples(tmp_path, "re")[0]))
    assert found["compared with the paper"] == {
        "sentences": "2 (paper: 14796)",
        "entities": "8 (paper: 20178)",
        "relations": "2 (paper: 31)",
        "images": "2 (paper: 10089)",
    }
    assert "first version" in found["note"]
