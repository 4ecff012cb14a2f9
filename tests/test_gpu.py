"""Every stage on a GPU: in fp32 the processor's numbers, the same bits each time, and nothing waited for.

Skipped where there is no GPU. By hand: python -m pytest tests/test_gpu.py
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
from hmnet_pipe import FeatureCache
from hmnet_pipe.manifests.fingerprint import digest_file
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.stages.base.tools import SILENT, Tools
from hmnet_pipe.stages.evaluate.evaluation import evaluate
from hmnet_pipe.stages.learning.loop import Trainer, _LossSum
from hmnet_pipe.stages.learning.replay import recorder_on
from safetensors.torch import load_file

from .running import (
    Demos,
    bring_up_to_date,
    configure,
    finetuned_of,
    hmnet,
    made_by,
    model_of,
    stage_of,
)

pytestmark = pytest.mark.usefixtures("gpu")

SIZES = {"train": 40, "valid": 12, "test": 12}
FP32: dict[str, Any] = {"precision": "fp32"}
HMNET, TEXT, PAIRS = Trial("hmnet"), Trial("bert-crf"), Trial("mtb")
# All that a fine-tuned backbone may do: every part learns, with augmentation.
EVERYTHING: dict[str, Any] = {"unfreeze": 5, "augment": True, "batch_norm": True}


@pytest.fixture(scope="module", params=["ner", "re"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, task: str) -> Path:
    """Return a run that is ready to train, its boxes and its features the processor's, in fp32."""
    cpu: Any = {"device": "cpu", **FP32}
    made = demos.run(task, SIZES, detect=cpu, extract={**cpu, "dtype": "float32"})
    run = Path(shutil.copytree(made, tmp_path_factory.mktemp("gpu") / "run"))
    small: dict[str, Any] = {"epochs": 3, "first_evaluation": 1, "batch_size": 4}
    configure(run, "train", encoder=str(tiny_encoder), device="cuda", **FP32, **small)
    return run


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_detections_in_fp32_are_the_processors(copy: Path) -> None:
    before = pq.read_table(RunFolder(copy).detections).to_pylist()
    RunFolder(copy).record("detect").unlink()
    shutil.rmtree(RunFolder(copy).work("detect"), ignore_errors=True)
    bring_up_to_date(copy, "detect", device="cuda", **FP32)
    after = pq.read_table(RunFolder(copy).detections).to_pylist()
    assert [(row["image_key"], row["label"]) for row in after] == [
        (row["image_key"], row["label"]) for row in before
    ]
    for name, distance in (("x0", 0.01), ("y0", 0.01), ("x1", 0.01), ("y1", 0.01), ("score", 1e-4)):
        one, other = (np.array([row[name] for row in rows]) for rows in (before, after))
        np.testing.assert_allclose(one, other, rtol=0, atol=distance)


def features_of(run: Path) -> tuple[FeatureCache, Any]:
    cache = FeatureCache(RunFolder(run).features())
    return cache, cache.gather(sorted(cache))[0].astype(np.float32)


def test_features_in_fp32_are_the_processors_and_in_bf16_point_the_same_way(copy: Path) -> None:
    expected = features_of(copy)[1]
    for precision in ("fp32", "bf16"):
        bring_up_to_date(copy, "extract", device="cuda", precision=precision)
        cache, found = features_of(copy)
        mask = cache.gather(sorted(cache))[1]
        one, other = (values[mask].reshape(int(mask.sum()), -1) for values in (found, expected))
        if precision == "fp32":
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())
        cosine = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
        assert cosine.min() > (0.999999 if precision == "fp32" else 0.999)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["detect", "extract"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stage_makes_the_same_bits_again_whoever_runs_it(copy: Path, stage: str, precision: str) -> None:
    """Once in this process, and once by two workers who share the GPU."""
    made = []
    for workers in (0, 2):
        RunFolder(copy).record(stage).unlink()
        for folder in (RunFolder(copy).work(stage), *([RunFolder(copy).features()] * (stage == "extract"))):
            shutil.rmtree(folder, ignore_errors=True)
        if workers:
            done = hmnet(stage, copy, "--workers", workers)
            assert done.returncode == 0, done.stderr
        else:
            bring_up_to_date(copy, stage, device="cuda", precision=precision)
        made.append(made_by(stage, copy))
    assert made[0] == made[1]


def without_dropout(encoder: Path, folder: Path) -> Path:
    """Return a copy of the encoder whose training draws nothing at random."""
    copied = Path(shutil.copytree(encoder, folder / "encoder"))
    values = json.loads((copied / "config.json").read_text())
    values |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (copied / "config.json").write_text(json.dumps(values))
    return copied


def trials_of(task: str) -> tuple[Trial, Trial]:
    return HMNET, TEXT if task == "ner" else PAIRS


def test_losses_in_fp32_are_the_processors(copy: Path, task: str, tiny_encoder: Path, tmp_path: Path) -> None:
    encoder = str(without_dropout(tiny_encoder, tmp_path))
    for trial in trials_of(task):
        losses = []
        for device in ("cpu", "cuda"):
            bring_up_to_date(copy, "train", trial=trial, encoder=encoder, device=device)
            losses.append(pq.read_table(model_of(copy, trial) / "history.parquet")["loss"].to_pylist())
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_a_model_predicts_the_same_on_both(copy: Path) -> None:
    bring_up_to_date(copy, "train")
    folder, made = model_of(copy), []
    for device in ("cpu", "cuda"):
        evaluate(folder, RunFolder(copy), explain=True, device=device, **FP32)
        made.append(
            [
                pq.read_table(folder / f"{name}-test.parquet").to_pylist()
                for name in ("evaluation", "explanation")
            ]
        )
    (cpu, cpu_looks), (gpu, gpu_looks) = made
    assert [row["predicted"] for row in cpu] == [row["predicted"] for row in gpu]
    for one, other in zip(cpu_looks, gpu_looks, strict=True):
        for what in ("gates", "attention"):
            np.testing.assert_allclose(
                np.array(one[what], np.float32), np.array(other[what], np.float32), rtol=0, atol=1e-4
            )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", ["train", "finetune"])
def test_a_training_ends_with_the_same_bits_again_and_after_an_interruption(
    copy: Path, task: str, stage: str, precision: str, tmp_path: Path
) -> None:
    if stage == "finetune":
        configure(copy, "finetune", start="pretrained", **EVERYTHING)
    configure(copy, "train", precision=precision)
    for trial in trials_of(task)[: 2 if stage == "train" else 1]:
        digests: list[str] = []
        for interrupted, graphs in ((False, False), (False, False), (False, True), (True, True)):
            run = Path(shutil.copytree(copy, tmp_path / f"{trial.name}-{len(digests)}"))
            configure(run, "train", cuda_graphs=graphs)
            place = model_of(run, trial) if stage == "train" else finetuned_of(run, trial)
            if interrupted:
                with pytest.raises(KeyboardInterrupt):
                    bring_up_to_date(run, stage, Tools(bar=_Interrupting, checkpoint_seconds=0), trial=trial)
                assert not (place / "model.safetensors").exists()
                configure(run, "train", cuda_graphs=False)  # whoever resumes it need not record anything
            bring_up_to_date(run, stage, trial=trial)
            digests.append(digest_file(place / "model.safetensors"))
        assert len(set(digests)) == 1, f"{trial.name}: {digests}"


class _Interrupting:
    """A progress bar whose user loses patience in the middle of the second epoch."""

    def __init__(self, *_: object) -> None:
        self._seen = 0

    def update(self, n: int = 1) -> None:
        self._seen += n
        if self._seen > 1.5 * SIZES["train"]:
            raise KeyboardInterrupt

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...
    def close(self) -> None: ...


def test_a_graph_that_is_garbage_does_not_end_a_recording() -> None:
    """Python frees what refers to itself whenever it likes, and CUDA frees no graph during a recording."""
    record, numbers = recorder_on(torch.device("cuda")), torch.ones(8, device="cuda")
    assert record is not None
    numbers.sum()
    garbage: list[Any] = []
    garbage += [garbage, record(numbers.sum)]
    del garbage

    def collecting() -> torch.Tensor:
        assert [[] for _ in range(100_000)]
        return numbers.sum()

    replay, total = record(collecting)
    replay()
    assert total.item() == 8


def test_random_numbers_go_on_after_a_recording_that_failed() -> None:
    record = recorder_on(torch.device("cuda"))
    assert record is not None
    torch.manual_seed(3)
    expected = torch.rand(4, device="cuda")
    torch.manual_seed(3)
    with pytest.raises(RuntimeError):
        record(lambda: torch.rand(4, device="cuda").cpu())
    assert torch.equal(torch.rand(4, device="cuda"), expected)


@pytest.mark.parametrize("stage", ["train", "finetune"])
def test_no_step_waits_for_the_gpu(
    copy: Path, task: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any operator of torch that waits raises in the loop, but where it reads the losses."""
    train_epoch, read = Trainer.train_epoch, _LossSum.read
    entered: list[int] = []

    def watched(self: Trainer, *given: Any) -> int:
        entered.append(1)
        torch.cuda.set_sync_debug_mode("error" if len(entered) > 1 else "default")  # the first one warms up
        try:
            return train_epoch(self, *given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def reading(self: _LossSum) -> float:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        value = read(self)
        torch.cuda.set_sync_debug_mode(mode)
        return value

    monkeypatch.setattr(Trainer, "train_epoch", watched)
    monkeypatch.setattr(_LossSum, "read", reading)
    if stage == "finetune":
        configure(copy, "finetune", start="pretrained", **EVERYTHING)
    configure(copy, "train", cuda_graphs=False)  # to record a graph is to wait, once for each shape
    for trial in trials_of(task)[: 2 if stage == "train" else 1]:
        entered.clear()
        bring_up_to_date(copy, stage, SILENT, trial=trial)
        assert len(entered) > 1


def test_a_finetuned_model_is_opened_on_a_processor(copy: Path) -> None:
    configure(copy, "finetune", start="pretrained", **EVERYTHING)
    bring_up_to_date(copy, "finetune")
    folder, source = finetuned_of(copy), stage_of(copy, "finetune").source
    assert all(value.device.type == "cpu" for value in load_file(folder / "model.safetensors").values())
    scores = [
        evaluate(folder, RunFolder(copy), plan=replace(source).plan(), device=device, **FP32)[0]
        for device in ("cpu", "cuda")
    ]
    assert scores[0] == scores[1]
