"""Images that have nothing to do with their texts: dealt out by a seed, in the share that is asked for."""

from itertools import pairwise
from pathlib import Path

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, PROBLEMS, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.learning.card import card_of
from hmnet_pipe.stages.prepare.dealing import dealt
from hmnet_pipe.stages.systems.batch import ModelConfig

from ...running import Demos, begin

NAMES: list[str | None] = [f"own-{number}.jpg" for number in range(300)] + [None] * 50


def folder_of(folder: Path, count: int = 7) -> Path:
    (folder / "deep").mkdir()
    for number in range(count):
        (folder / "deep" / f"{number}.JPG").touch()
    (folder / "notes.txt").touch()
    return folder


def test_a_seed_deals_the_same_images_and_a_larger_share_to_more_samples(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    given = [dealt(NAMES, folder, 1, share) for share in (0.0, 0.25, 0.5, 1.0)]
    assert given[0] == NAMES
    assert set(given[-1]) == {f"deep/{number}.JPG" for number in range(7)}, "samples without an image too"
    for fewer, more in pairwise(given):
        moved = [(a, b) for a, b, own in zip(fewer, more, NAMES, strict=True) if a != own]
        assert all(a == b for a, b in moved)
    assert sum(a != b for a, b in zip(given[1], NAMES, strict=True)) == pytest.approx(350 / 4, abs=25)
    assert dealt(NAMES, folder, 1, 0.5) == given[2] != dealt(NAMES, folder, 2, 0.5)


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no image to deal out"):
        dealt(NAMES, folder_of(tmp_path, 0), 1, 1.0)


def test_a_run_of_dealt_images_keeps_its_texts_and_their_digest(demos: Demos, tmp_path: Path) -> None:
    corpus = demos.corpus()
    details, keys, problems = {}, {}, {}
    for name, own in (
        ("own", {}),
        ("half", {"deal_images": 1, "deal_share": 0.5}),
        ("all", {"deal_images": 1}),
        ("other", {"deal_images": 2}),
    ):
        run = RunFolder(begin(tmp_path / name, corpus, prepare=own))
        stage = RunConfig.read(run.config).stage("prepare", run)
        details[name] = run_stage(stage, SILENT).details
        rows = read_table(run.samples, SAMPLES).to_pylist()
        keys[name] = [row["image_key"] for row in rows]
        assert [row["image"] for row in rows] == [f"{row['id']}.jpg" for row in rows]
        problems[name] = read_table(run.problems, PROBLEMS).num_rows
        assert {*keys[name]} - {None} <= {row["key"] for row in read_table(run.images, IMAGES).to_pylist()}
        parameters = stage.parameters()
        assert ("deal_images" in parameters) == bool(own)
        assert run_stage(stage, SILENT).state == "fresh"
    assert len({str(one["data"]) for one in details.values()}) == 1
    assert (problems["own"], problems["all"]) == (2, 0), "a dealt image is there"
    assert keys["own"] != keys["half"] != keys["all"] != keys["other"]
    moved = [one for one in zip(keys["own"], keys["half"], keys["all"], strict=True) if one[0] != one[1]]
    assert all(half == whole for _, half, whole in moved)
    assert "samples with a random image" not in details["own"]
    record = StageRecord.read(RunFolder(tmp_path / "all").record("prepare"))
    config = ModelConfig("bert-crf", "ner", ("O", "B-PER", "I-PER"), (), "markers", 16, {}, None)
    card = card_of(
        "a model", config, {"valid": None, "test": None, "best_epoch": 1}, {"encoder": "./x"}, record
    )
    random = details["all"]["samples with a random image"]
    assert f"Of the samples, {random} were dealt a random image in place of their own." in card
    # A random image is the sample's own now and then.
    assert len(keys["own"]) - 3 <= details["all"]["samples with a random image"] <= len(keys["own"])
