"""End to end: pixels and the cache say the same, only what should learn learns, and the refreshed features
are the new backbone's.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hmnet_pipe import FeatureCache, HMNeT
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.fingerprint import digest_file
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.freshness import why_changed
from hmnet_pipe.pipeline.run.refresh import refresh_features
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.evaluate.evaluation import evaluate
from hmnet_pipe.stages.finetune.settings import FinetuneSettings
from hmnet_pipe.stages.learning.batches import batches
from hmnet_pipe.stages.learning.fit import labels_of
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.splits import encode_split
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.end_to_end import EndToEnd
from hmnet_pipe.stages.text.encoders.bert import load_tokenizer
from hmnet_pipe.stages.text.limits import MARKERS
from hmnet_pipe.stages.text.subwords import Subwords
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.demo import DEMO_WEIGHTS
from hmnet_pipe.stages.vision.pixels import Pixels
from hmnet_pipe.stages.vision.pooling import pooled_and_joined
from hmnet_pipe.stages.vision.views import normalise
from safetensors.torch import load_file
from torch import nn

from ...running import (
    Command,
    Demos,
    begin,
    bring_up_to_date,
    configure,
    finetuned_of,
    model_of,
    said_by,
    small_corpus,
    stage_of,
    text_of,
    wait_until,
)

VISUAL = ("hmnet", "hmnet-single", "hmnet-flat", "hmnet-1v3", "hmnet-onlyobj", "hmnet-onlyglobal")


SIZES = {"train": 24, "valid": 8, "test": 8}


def make_run(demos: Demos, folder: Path, task: str, encoder: Path) -> Path:
    """Return a run that is prepared, detected, and extracted in single precision."""
    made = demos.run(task, SIZES, extract={"dtype": "float32", "precision": "fp32"})
    run = Path(shutil.copytree(made, folder / "run"))
    config = RunConfig.read(RunFolder(run).config)
    config = replace(config, tables={**config.tables, "finetune": FinetuneSettings()})
    config.write(RunFolder(run).config)
    small: dict[str, Any] = {"epochs": 2, "first_evaluation": 1, "batch_size": 4}
    configure(run, "train", precision="fp32", encoder=str(encoder), **small)
    return run


@pytest.fixture(scope="module")
def run(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    return make_run(demos, tmp_path_factory.mktemp("ner"), "ner", tiny_encoder)


@pytest.fixture(scope="module")
def relations(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    return make_run(demos, tmp_path_factory.mktemp("re"), "re", tiny_encoder)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def scores_both_ways(
    run: Path, system: str, features: Path
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores of the training split by one model: on the cache, on pixels, and without images.

    The model has random weights.
    """
    folder, config = RunFolder(run), RunConfig.read(RunFolder(run).config)
    tokenizer = load_tokenizer(Path(config.of(TrainSettings).encoder))
    if config.task == "re":
        tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    split = encode_split(
        read_table(folder.samples, SAMPLES), "train", Subwords(tokenizer), task=config.task, max_length=64
    )
    cache = FeatureCache(features)
    labels = labels_of(split, config.task)
    torch.manual_seed(0)
    made = ModelConfig(system, config.task, labels, cache.spec.levels, "markers", 64, {}, None)
    model = new_system(Path(config.of(TrainSettings).encoder), made)
    for parameter in model.fusion.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    extraction = stage_of(folder.path, "extract")
    end_to_end = EndToEnd(model, build_backbone("demo_resnet", "default"), 2).eval()
    model.eval()
    pixels = Pixels(extraction.images(), transform=extraction.spec().transform, views=4, decoders=2)
    order = [list(range(start, start + 4)) for start in range(0, 24, 4)]
    arguments = {"task": config.task, "pad_id": tokenizer.pad_token_id, "label_ids": None}
    found: tuple[list[torch.Tensor], ...] = [], [], []
    with torch.inference_mode():
        for cached, on_pixels in zip(
            batches(split, order, visuals=cache, **arguments),
            batches(split, order, visuals=pixels, **arguments),
            strict=True,
        ):
            assert torch.equal(cached.view_mask, on_pixels.view_mask)
            found[0].append(model(cached))
            found[1].append(end_to_end(on_pixels))
            check_scored(end_to_end, on_pixels)
            cached.view_mask[:] = False
            found[2].append(model(cached))
    first, second, third = (torch.cat([part.flatten() for part in parts]) for parts in found)
    return first, second, third


def check_scored(model: EndToEnd, batch: Batch) -> None:
    found, expected = model.scored(batch, 2.0), model.system.scored(model.with_features(batch), 2.0)
    assert found.labels == expected.labels == model.predict(batch)
    if found.chain is not None and expected.chain is not None:
        torch.testing.assert_close(found.chain.tags(), expected.chain.tags(), rtol=0, atol=0)
    else:
        torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ner", "re"])
@pytest.mark.parametrize("system", VISUAL)
def test_pixels_and_the_cache_give_the_same_scores(
    request: pytest.FixtureRequest, system: str, task: str, tmp_path: Path
) -> None:
    folder = request.getfixturevalue({"ner": "run", "re": "relations"}[task])
    cached, on_pixels, blind = scores_both_ways(folder, system, RunFolder(folder).features())
    assert (cached - on_pixels).abs().max() < 1e-5
    # A hundred times what may differ: one view alone moves less than several.
    assert (cached - blind).abs().max() > 1e-3, "the images change nothing here: the comparison says nothing"
    half = Path(shutil.copytree(folder, tmp_path / "half"))
    bring_up_to_date(half, "extract", dtype="float16")
    cached, on_pixels, _ = scores_both_ways(half, system, RunFolder(half).features())
    assert 0 < (cached - on_pixels).abs().max() < 5e-3


@pytest.mark.slow
def test_with_the_backbone_frozen_training_from_pixels_is_training_on_the_cache(copy: Path) -> None:
    bring_up_to_date(copy, "train")
    bring_up_to_date(copy, "finetune", unfreeze=0)
    histories = [pq.read_table(path / "history.parquet") for path in (model_of(copy), finetuned_of(copy))]
    for column in ("loss", "valid_f1", "learning_rate"):
        cached, on_pixels = (history.column(column).to_pylist() for history in histories)
        np.testing.assert_allclose(cached, on_pixels, rtol=1e-3)
    weights = [load_file(path / "model.safetensors") for path in (model_of(copy), finetuned_of(copy))]
    assert set(weights[0]) == set(weights[1])
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


PARTS = {
    0: (),
    1: ("layer4",),
    3: ("layer4", "layer3", "layer2"),
    5: ("layer4", "layer3", "layer2", "layer1", "conv1", "bn1"),
}


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("unfreeze", PARTS)
def test_what_is_unfrozen_learns_and_nothing_else(copy: Path, unfreeze: Any, batch_norm: bool) -> None:
    report = bring_up_to_date(
        copy, "finetune", unfreeze=unfreeze, batch_norm=batch_norm, epochs=1, backbone_learning_rate=1e-3
    )
    assert report.failed == 0
    folder = finetuned_of(copy)
    before = {
        name: value.clone()
        for name, value in build_backbone("demo_resnet", "default").network.state_dict().items()
    }
    after = load_file(folder / "backbone.safetensors")
    assert set(before) == set(after)
    for name, value in after.items():
        learns = name.split(".")[0] in PARTS[unfreeze]
        statistics = "running" in name or "num_batches" in name
        assert torch.equal(value, before[name]) != (learns and (batch_norm or not statistics)), name
    groups = {
        group["name"]: group
        for group in json.loads((folder / "metrics.json").read_text())["parameter_groups"]
    }
    held = sum(group["parameters"] for name, group in groups.items() if name.startswith("backbone"))
    wanted = sum(
        value.numel()
        for name, value in after.items()
        if name.split(".")[0] in PARTS[unfreeze] and "running" not in name and "num_" not in name
    )
    assert held == wanted
    assert all(
        group["learning_rate"] == 1e-3 for name, group in groups.items() if name.startswith("backbone")
    )
    encoder = load_file(
        Path(RunConfig.read(RunFolder(copy).config).of(TrainSettings).encoder) / "model.safetensors"
    )
    moved = load_file(folder / "model.safetensors")
    assert not torch.equal(
        moved["encoder.encoder.layer.0.output.dense.weight"], encoder["encoder.layer.0.output.dense.weight"]
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_reach_the_first_unfrozen_convolution(run: Path, recompute: bool) -> None:
    folder, config = RunFolder(run), RunConfig.read(RunFolder(run).config)
    tokenizer = load_tokenizer(Path(config.of(TrainSettings).encoder))
    split = encode_split(
        read_table(folder.samples, SAMPLES), "train", Subwords(tokenizer), task="ner", max_length=64
    )
    labels = labels_of(split, "ner")
    spec = FeatureCache(folder.features()).spec
    extraction = stage_of(folder.path, "extract")
    pixels = Pixels(extraction.images(), transform=spec.transform, views=4, decoders=1)
    label_ids = {label: number for number, label in enumerate(labels)}
    batch = next(
        iter(batches(split, [[0, 1, 2, 3]], task="ner", pad_id=0, label_ids=label_ids, visuals=pixels))
    )
    for unfreeze, first in ((1, "layer4"), (2, "layer3"), (4, "layer1"), (5, "conv1")):
        torch.manual_seed(0)
        made = ModelConfig("hmnet", "ner", labels, spec.levels, "markers", 64, {}, None)
        backbone = build_backbone("demo_resnet", "default", recompute=recompute)
        model = EndToEnd(
            new_system(Path(config.of(TrainSettings).encoder), made), backbone, 2, unfreeze=unfreeze
        ).train()
        model.loss(batch).backward()
        part = getattr(backbone.network, first)
        convolution = part if isinstance(part, nn.Conv2d) else part[0].conv1
        assert convolution.weight.grad.abs().max() > 0
        with_gradient = {
            name.split(".")[0]
            for name, parameter in backbone.network.named_parameters()
            if parameter.grad is not None
        }
        assert with_gradient == {
            name.split(".")[0]
            for name, parameter in backbone.network.named_parameters()
            if parameter.requires_grad
        }
        assert not any(module.training for module in backbone.modules())


@pytest.mark.slow
def test_recomputing_activations_changes_nothing_but_memory(copy: Path, run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    for folder, recompute in ((copy, False), (other, True)):
        bring_up_to_date(folder, "finetune", unfreeze=4, epochs=1, recompute=recompute)
    files = [[(finetuned_of(folder) / name).read_bytes() for name in FILES] for folder in (copy, other)]
    assert files[0] == files[1]


FILES = ("model.safetensors", "backbone.safetensors", "metrics.json", "predictions.parquet")


@pytest.mark.slow
def test_augmented_training_is_another_one_and_the_same_twice(copy: Path, run: Path, tmp_path: Path) -> None:
    folders = [copy, *(Path(shutil.copytree(run, tmp_path / name)) for name in "ab")]
    for folder, augment in zip(folders, (False, True, True), strict=True):
        bring_up_to_date(folder, "finetune", epochs=1, augment=augment)
    digests = [digest_file(finetuned_of(folder) / "model.safetensors") for folder in folders]
    assert digests[1] == digests[2] != digests[0]


@pytest.mark.slow
def test_status_knows_finetune_and_a_changed_setting_is_named(copy: Path) -> None:
    bring_up_to_date(copy, "finetune", epochs=1)
    assert {row.stage: row.state for row in run_status(RunFolder(copy)).stages}[
        "finetune-hmnet-seed-1"
    ] == "fresh"
    assert bring_up_to_date(copy, "finetune").state == "fresh"
    said = said_by(copy, "finetune", unfreeze=2)
    assert any("unfreeze: 1 -> 2" in line for line in said)


@pytest.mark.slow
def test_finetune_killed_resumes_to_the_same_model(copy: Path, run: Path, tmp_path: Path) -> None:
    undisturbed = Path(shutil.copytree(run, tmp_path / "undisturbed"))
    options: dict[str, Any] = {"augment": True, "batch_norm": True, "epochs": 3}
    bring_up_to_date(undisturbed, "finetune", **options)
    arguments = ["finetune", str(copy), "--augment", "--batch-norm", "--epochs", "3"]
    arguments += ["--checkpoint-seconds", "0"]

    def within_an_epoch() -> bool:
        """Return whether it is past the first epoch and not at the end of one."""
        found = [text_of(path) for path in (copy / "stages").glob("finetune-*.parts/*/progress.json")]
        state = json.loads(found[0]) if found and found[0] else {}
        return bool(state.get("epoch") and state["step"] % 6)

    with Command(*arguments) as command:
        wait_until(lambda: within_an_epoch() or command.over)
        assert not command.over, command.said()
        command.kill_group()
    assert not (finetuned_of(copy) / "model.safetensors").exists()
    said = said_by(copy, "finetune")
    assert any("resuming after" in line for line in said)
    for name in FILES:
        assert (finetuned_of(copy) / name).read_bytes() == (finetuned_of(undisturbed) / name).read_bytes()


def test_it_starts_from_what_train_made_and_refuses_what_does_not_fit(copy: Path) -> None:
    with pytest.raises(InputError, match=r"holds no trained model; run `hmnet-pipe train"):
        bring_up_to_date(copy, "finetune", start="train")
    bring_up_to_date(copy, "train", epochs=1)
    still: dict[str, Any] = {"learning_rate": 0.0, "head_learning_rate": 0.0, "fusion_learning_rate": 0.0}
    trained = load_file(model_of(copy) / "model.safetensors")
    kept = Path(shutil.copytree(model_of(copy), copy / "kept"))
    configure(copy, "train", **still)
    bring_up_to_date(copy, "finetune", start=str(kept), epochs=1, backbone_learning_rate=0.0)
    started = load_file(finetuned_of(copy) / "model.safetensors")
    assert all(torch.equal(value, trained[name]) for name, value in started.items())
    with pytest.raises(StageError, match="was trained with system 'hmnet'"):
        bring_up_to_date(copy, "finetune", trial=Trial("hmnet-flat"))
    with pytest.raises(InputError, match="reads no images"):
        bring_up_to_date(copy, "finetune", trial=Trial("bert-crf"), start="pretrained")


@pytest.mark.slow
def test_refreshed_features_are_the_new_backbones_beside_the_old_ones(copy: Path) -> None:
    bring_up_to_date(copy, "finetune", epochs=1, unfreeze=4, backbone_learning_rate=1e-3)
    folder = RunFolder(copy)
    config = RunConfig.read(folder.config)
    old = FeatureCache(folder.features()).digest()
    trial = Trial("hmnet", start=config.of(FinetuneSettings).token())
    refresh_features(config, folder, trial, SILENT)
    assert FeatureCache(folder.features()).digest() == old
    new = RunFolder(folder.refreshed(trial))
    assert {row.stage: row.state for row in run_status(new).stages} == {
        "prepare": "fresh",
        "detect": "fresh",
        "extract": "fresh",
    }
    assert FeatureCache(new.features()).spec.weights == digest_file(
        finetuned_of(copy) / "backbone.safetensors"
    )
    # What finetune's model sees in pixels is what the new cache holds: both ways give one score and the same
    # predictions.
    extraction = stage_of(folder.path, "extract")
    from_pixels = evaluate(finetuned_of(copy), folder, plan=extraction.plan())[0]
    scored = json.loads((finetuned_of(copy) / "metrics.json").read_text())["test"]
    assert {**from_pixels, "errors": None} == {**scored, "errors": None}
    model, cache = EndToEnd.from_pretrained(finetuned_of(copy)), FeatureCache(new.features())
    images = extraction.images()
    pixels, mask = Pixels(images, transform=extraction.spec().transform, views=4, decoders=1).gather(
        [image.key for image in images]
    )
    text = HMNeT.from_pretrained(finetuned_of(copy))
    assert text.config.features == json.loads(json.dumps(cache.spec.identity))
    cached, cached_mask = cache.gather([image.key for image in images])
    assert np.array_equal(mask, cached_mask)
    with torch.inference_mode():
        for number, image in enumerate(images):
            views = torch.from_numpy(pixels[number][mask[number]])
            pooled = pooled_and_joined(model.backbone(normalise(views, IMAGENET_MEAN, IMAGENET_STD)), 2)
            np.testing.assert_allclose(
                pooled.numpy(), cached[number][mask[number]], atol=1e-4, err_msg=image.key
            )
    assert bring_up_to_date(new.path, "train", epochs=1).state == "done"
    before = load_file(DEMO_WEIGHTS)
    network: Any = model.backbone.network
    assert not np.allclose(
        before["backbone.body.layer4.0.conv1.weight"].numpy(),
        network.layer4[0].conv1.weight.detach().numpy(),
    )


@pytest.mark.slow
def test_an_image_that_goes_bad_is_one_row_and_the_rest_is_trained_on(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    corpus = small_corpus(tmp_path / "corpus", sizes=SIZES)
    training = {"encoder": str(tiny_encoder), "first_evaluation": 1, "batch_size": 4}
    run = begin(tmp_path / "run", corpus, train=training, finetune={"start": "pretrained"})
    for stage in ("prepare", "detect", "extract"):
        bring_up_to_date(run, stage)
    images = pq.read_table(RunFolder(run).images).to_pylist()
    gone = Path(images[0]["path"])
    sound = gone.read_bytes()
    gone.write_bytes(b"no image any more")
    report = bring_up_to_date(run, "finetune", epochs=1)
    assert report.failed == 1
    assert report.details["trained again with, once readable"] == 1
    table = RunFolder(run).outcomes("finetune-hmnet-seed-1")
    rows = {row["image_key"]: row for row in pq.read_table(table).to_pylist()}
    assert rows[images[0]["key"]]["status"] == "missed"
    assert "changed since prepare read it" in rows[images[0]["key"]]["reason"]
    assert sum(row["status"] != "done" for row in rows.values()) == 1
    # While the image is as it was then, another training would give the same model.
    assert bring_up_to_date(run, "finetune").state == "fresh"
    gone.unlink()
    assert bring_up_to_date(run, "finetune").state == "fresh"
    assert "fresh" in [
        row.state for row in run_status(RunFolder(run)).stages if row.stage.startswith("finetune")
    ]
    gone.write_bytes(sound)
    assert why_changed(stage_of(run, "finetune")) == "1 image could not be read"
    said = said_by(run, "finetune")
    assert any(
        "runs again because of 1 image that could not be read (changed since prepare read it when it ran, "
        "readable now: 1)" in line
        for line in said
    ), said
    assert all(row["status"] == "done" for row in pq.read_table(table).to_pylist())
    assert bring_up_to_date(run, "finetune").state == "fresh"


def test_settings_out_of_range_are_refused() -> None:
    wrongs: list[dict[str, Any]] = [{"unfreeze": 6}, {"unfreeze": -1}, {"decoders": 0}, {"epochs": -1}]
    for wrong in wrongs:
        with pytest.raises(InputError):
            FinetuneSettings(**wrong)
