"""Whole runs on backbones of other libraries: what is cached, and what systems and predict make of it."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hmnet_pipe import FeatureCache, Predictor
from hmnet_pipe.cache.spec import FeatureSpec
from hmnet_pipe.manifests.errors import HmnetPipeError, InputError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, PREDICTIONS, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.run.evaluate import evaluate_trial
from hmnet_pipe.stages.learning.calibration import judged_in
from hmnet_pipe.stages.learning.opened import open_model, open_visuals
from hmnet_pipe.stages.learning.splits import encode_split
from hmnet_pipe.stages.vision import sets
from hmnet_pipe.stages.vision.backbones import backbone_info
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.pooling import pooled_and_joined
from hmnet_pipe.stages.vision.views import normalise, read_views

from ...backbones import save_backbone, save_timm
from ...running import HMNET, begin, bring_up_to_date, configure, small_corpus, stage_of

RECIPE = {"epochs": 30, "first_evaluation": 10, "precision": "fp32", "learning_rate": 5e-3, "batch_size": 4}
SIZES = {"train": 20, "valid": 6, "test": 6}


WHOLE_RUNS = [
    "hf:dinov2",
    "timm:swin_tiny_patch4_window7_224",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("hf:resnet", "timm:test_convnext")),
]


@pytest.fixture(scope="module", params=WHOLE_RUNS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path
) -> Iterator[tuple[RunFolder, str, Path]]:
    """Yield a trained run, and the name and the folder of its backbone: of three levels, or of four."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("run")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield trained(folder, request.param, tiny_encoder)


def trained(folder: Path, kind: str, tiny_encoder: Path) -> tuple[RunFolder, str, Path]:
    corpus = small_corpus(folder / "corpus", sizes=SIZES)
    library, _, own = kind.partition(":")
    three: dict[str, Any] = {"out_features": ["stage2", "stage5", "stage8"]} if own == "dinov2" else {}
    eyes = save_backbone(folder / own, own, **three) if library == "hf" else save_timm(folder / own, own)
    name = f"{library}:{eyes}"
    run = begin(
        folder / "run",
        corpus,
        extract={"backbone": name, "size": 0, "dtype": "float32"},
        train={"encoder": str(tiny_encoder), **RECIPE},
    )
    for stage in ("prepare", "detect", "extract", "train"):
        report = bring_up_to_date(run, stage)
        if stage == "extract":
            assert report.details["computed"].startswith("in fp32 by torch's own kernels")
    return RunFolder(run), name, eyes


def test_the_cache_holds_what_the_backbone_gives_of_the_models_own_pixels(
    place: tuple[RunFolder, str, Path],
) -> None:
    run, name, _ = place
    cache, plan = FeatureCache(run.features("pyramid")), stage_of(run.path, "extract").plan()
    assert (cache.spec.transform.size, cache.spec.transform.mean) == (64, (0.5, 0.4, 0.3))
    backbone = build_backbone(name, "default")
    assert cache.spec.levels == backbone.info.levels
    for image in list(plan.images)[:3]:
        transform = cache.spec.transform
        views = torch.from_numpy(read_views(image, transform))
        with torch.inference_mode():
            maps = backbone(normalise(views, transform.mean, transform.std))
            expected = pooled_and_joined(maps, cache.spec.pooled).numpy()
        found, mask = cache.gather([image.key])
        assert np.array_equal(found[0][mask[0]], expected)


def test_where_a_backbone_lies_is_no_cause_and_its_files_are_one(
    place: tuple[RunFolder, str, Path], tmp_path: Path
) -> None:
    run, name, eyes = place
    moved = RunFolder(Path(shutil.copytree(run.path, tmp_path / "run")))
    prefix = name.partition(":")[0]
    other = Path(shutil.copytree(eyes, tmp_path / "elsewhere"))
    configure(moved.path, "extract", backbone=f"{prefix}:{other}")
    assert bring_up_to_date(moved.path, "extract").state == "fresh"
    configure(moved.path, "extract", backbone=f"{prefix}:{tmp_path}/gone", weights=str(other))
    assert bring_up_to_date(moved.path, "extract").state == "fresh"
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "note": "another"}))
    assert bring_up_to_date(moved.path, "extract").state == "done"
    record = StageRecord.read(moved.record("extract"))
    assert record is not None
    assert record.parameters["backbone"].partition(":")[0] == prefix


def test_a_set_follows_from_another_only_where_its_bins_are_known_to_nest(
    place: tuple[RunFolder, str, Path],
) -> None:
    """The cache keeps the strides: no table has them. 14 does not divide 64, and 32 and 4 do."""
    run, name, _ = place
    held, info = FeatureCache(run.features("pyramid")).spec, backbone_info(name)
    assert held.strides == info.strides

    def wanted(one: sets.FeatureSet) -> FeatureSpec:
        return one.spec(info, 0, weights=held.weights, objects=3, dtype="float32", precision="fp32")

    assert sets.serves(held, wanted(replace(sets.PYRAMID, levels=(1,))))
    assert sets.serves(held, wanted(replace(sets.PYRAMID, levels=(1,), side=1))) == (info.strides[0] == 4)


def test_a_model_finds_in_pixels_what_it_found_in_the_cache_also_where_its_backbone_has_moved(
    place: tuple[RunFolder, str, Path], tmp_path: Path
) -> None:
    run, _, eyes = place
    _, path = evaluate_trial(run, HMNET, run)
    predictions = read_table(path.with_suffix(".parquet"), PREDICTIONS).to_pylist()
    rows = {row["id"]: row for row in read_table(run.samples, SAMPLES).to_pylist()}
    paths = {row["key"]: row["path"] for row in read_table(run.images, IMAGES).to_pylist()}
    images = [paths.get(rows[row["id"]]["image_key"]) for row in predictions]
    texts = [" ".join(row["tokens"]) for row in predictions]
    model = run.model(HMNET)
    here = Predictor.from_pretrained(model)(texts, image=images, explain=True)
    moved = Path(shutil.move(eyes, tmp_path / "moved"))
    try:
        with pytest.raises(HmnetPipeError, match=f"^{eyes} is not there, .* with --backbone-weights"):
            Predictor.from_pretrained(model)(texts[0], image=images[0])
        there = Predictor.from_pretrained(model, backbone_weights=str(moved))(
            texts, image=images, explain=True
        )
    finally:
        shutil.move(moved, eyes)
    assert here == there
    assert {one.image_status for one in here} >= {"used"}
    opened = open_model(model)
    split = encode_split(read_table(run.samples, SAMPLES), "test", opened.reader, task="ner", max_length=128)
    visuals = open_visuals(opened, run, None, "pyramid")
    judged, _ = judged_in(
        opened.model, split, None, visuals=visuals, pad_id=opened.reader.pad_id, precision=opened.precision
    )
    scores = [score for score in judged.judged()[0] if score]
    entities = [entity for one in here for entity in one.entities]
    assert len(entities) > 0
    assert sorted(entity.score for entity in entities) == pytest.approx(sorted(scores), abs=1e-5)


def test_explanations_and_the_report_have_as_many_levels_as_the_backbone(
    place: tuple[RunFolder, str, Path], tmp_path: Path
) -> None:
    run, name, _ = place
    levels = len(backbone_info(name).levels)
    evaluate_trial(run, HMNET, run, explain=True)
    page = tmp_path / "report.html"
    asked = CliRunner().invoke(main, ["report", str(run.path), "--output", str(page)])
    assert asked.exit_code == 0, asked.output
    shown = set(re.findall(r"level (\d+) [01]\.\d\d", page.read_text()))  # beside the gates of each sample
    assert shown == {str(level) for level in range(1, levels + 1)}


def test_finetune_refuses_it_with_a_sentence(place: tuple[RunFolder, str, Path]) -> None:
    run, name, _ = place
    with pytest.raises(
        InputError, match="is not trained end to end, as backbones of torchvision are"
    ) as error:
        stage_of(run.path, "finetune", Trial("hmnet")).causes()
    assert name in str(error.value)
