"""What holds for every system of the registry, on batches of a run of the demonstration.

A system that is added is tested here without a word: its entry says what it reads.
"""

import copy
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hmnet_pipe import FeatureCache
from hmnet_pipe.cache.spec import FeatureSpec
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.graph import stage_named
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.arithmetic import autocast, exactly
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.learning.batches import batches
from hmnet_pipe.stages.learning.checkpoint import Checkpoints
from hmnet_pipe.stages.learning.fit import Data, config_of, read_data
from hmnet_pipe.stages.learning.inputs import makers
from hmnet_pipe.stages.learning.loop import Task, Trainer
from hmnet_pipe.stages.learning.optimizer import parameter_groups
from hmnet_pipe.stages.learning.ranks import Ranks
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.replay import Recorder, Replays, recorder_on
from hmnet_pipe.stages.systems.batch import Batch
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.registry import SUBWORDS, SYSTEMS
from hmnet_pipe.stages.systems.system import System
from torch import Tensor, nn

from ...meta import META, check_step
from ...running import Demos, stage_of
from ...taped import taped

EVERY = [(name, task) for name, info in SYSTEMS.items() for task in info.tasks]
SIZES = {"train": 12, "valid": 4, "test": 4}
FEW = 6


@dataclass(frozen=True)
class Read:
    """A system with random weights in float64, what it was made from, and a batch that it reads."""

    model: System
    data: Data
    spec: FeatureSpec | None
    cache: FeatureCache | None

    def batch(self, members: list[int]) -> Batch:
        labels = {label: number for number, label in enumerate(self.model.config.labels)}
        made = batches(
            self.data.splits["train"],
            [members],
            task=self.model.config.task,
            pad_id=self.data.reader.pad_id,
            label_ids=labels,
            visuals=self.cache,
        )
        return in_doubles(next(iter(made)))

    def scores(self, batch: Batch) -> Tensor:
        """Return what the head says of every word, or of every pair, with zeros for padding."""
        with torch.no_grad():
            scores = self.model(batch)
        if self.model.config.task == "re":
            return scores
        return torch.where(batch.position_mask[..., None], scores, 0.0)


def in_doubles(batch: Batch) -> Batch:
    found: dict[str, Any] = {
        field.name: value.double()
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor) and value.is_floating_point()
    }
    return replace(batch, **found)


@pytest.fixture(scope="module")
def runs(demos: Demos, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes the run of a task, with everything that any system reads."""
    base = tmp_path_factory.mktemp("every")

    def made(task: str) -> Path:
        folder = base / task
        if folder.exists():
            return folder
        shared = demos.run(task, SIZES, train={"encoder": str(tiny_encoder), "precision": "fp32"})
        shutil.copytree(shared, folder)
        config, run = RunConfig.read(RunFolder(folder).config), RunFolder(folder)
        infos = [info for info in SYSTEMS.values() if task in info.tasks]
        for name in sorted({name for info in infos for name in makers(info, info.feature_set())}):
            run_stage(stage_named(config, run, name), SILENT)
        return folder

    return made


@pytest.fixture
def read(runs: Callable[[str], Path], request: pytest.FixtureRequest) -> Read:
    name, task = request.param
    folder = runs(task)
    stage = stage_of(folder, "train", Trial(name))
    job = stage.job(stage.settings, stage.settings.rates, stage.causes(SILENT), SILENT)
    feature_set = SYSTEMS[name].feature_set()
    cache = FeatureCache(RunFolder(folder).features(feature_set)) if feature_set is not None else None
    spec = cache.spec if cache is not None else None
    torch.manual_seed(1)
    data = read_data(job, cache, SILENT, spec)
    model = new_system(job.encoder, config_of(job, data, spec), data.reader).double().eval()
    return Read(model, data, spec, cache)


every_system = pytest.mark.parametrize("read", EVERY, indirect=True, ids=[f"{n}-{t}" for n, t in EVERY])


@every_system
def test_every_parameter_is_in_one_group_and_learns(read: Read) -> None:
    model = read.model.train()
    groups = parameter_groups(model, stage_rates(read), 0.01)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(grouped) == sorted(map(id, learning.values()))
    for members in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]):
        model.loss(read.batch(members)).backward()
    untouched = [name for name, p in learning.items() if p.grad is None]
    assert not untouched
    # A bias of keys moves no softmax; everything else must move.
    still = [name for name, p in learning.items() if p.grad is not None and not p.grad.any()]
    assert not [name for name in still if "key" not in name and "bias" not in name]


def stage_rates(read: Read) -> dict[str, float]:
    return dict.fromkeys({read.model.part_of(name) for name, _ in read.model.named_parameters()}, 1e-3)


def noise_where(value: Tensor, absent: Tensor, most: int) -> Tensor:
    """Return `value` with anything in the places where `absent`, which covers its first axes, is true."""
    absent = absent.reshape(*absent.shape, *[1] * (value.ndim - absent.ndim)).expand_as(value)
    if value.is_floating_point():
        return torch.where(absent, torch.full_like(value, float("nan")), value)
    return torch.where(absent, torch.randint_like(value, most), value)


@every_system
def test_what_is_absent_or_padding_has_no_influence(read: Read) -> None:
    batch = read.batch(list(range(FEW)))
    batch = with_absent_images(batch)
    changed: dict[str, Any] = {
        "input_ids": noise_where(batch.input_ids, ~batch.attention_mask, 5),
        "positions": noise_where(batch.positions, ~batch.position_mask, 2),
    }
    if batch.views is not None and batch.view_mask is not None:
        changed["views"] = noise_where(batch.views, ~batch.view_mask, 0)
    if batch.object_mask is not None:
        for name in ("object_labels", "object_geometry", "object_edges", "structure"):
            if (value := getattr(batch, name)) is not None:
                changed[name] = noise_where(value, ~batch.object_mask, 2)
        if batch.object_edges is not None:
            columns = noise_where(changed["object_edges"].transpose(1, 2), ~batch.object_mask, 2)
            changed["object_edges"] = columns.transpose(1, 2)
    if batch.characters is not None:
        changed["characters"] = noise_where(batch.characters, ~batch.attention_mask, 2)
    if batch.structure is not None:
        spoilt = noise_where(changed["structure"].transpose(1, 2), ~batch.attention_mask, 0)
        changed["structure"] = spoilt.transpose(1, 2)
    expected, found = read.scores(batch), read.scores(replace(batch, **changed))
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@every_system
def test_labels_have_the_probabilities_of_their_scores(read: Read) -> None:
    batch = with_absent_images(read.batch(list(range(FEW))))
    for temperature in (1.0, 2.0):
        found = read.model.scored(batch, temperature)
        assert found.labels == read.model.predict(batch)
        scores = read.scores(batch)
        if read.model.config.task == "re":
            assert found.probabilities is not None
            expected = (scores / temperature).exp() / (scores / temperature).exp().sum(dim=1, keepdim=True)
            torch.testing.assert_close(found.probabilities, expected, rtol=0, atol=1e-9)
        else:
            assert found.chain is not None
            numbers = [[read.model.config.labels.index(tag) for tag in tags] for tags in found.labels]
            words = batch.position_mask.shape[1]
            tags = torch.tensor([[*row, *[0] * (words - len(row))] for row in numbers])
            by_crf = read.model.crf(scores, tags, mask=batch.position_mask, reduction="none")
            if temperature == 1:
                torch.testing.assert_close(found.chain.likelihoods(tags), by_crf, rtol=0, atol=1e-9)
            else:
                assert (found.chain.likelihoods(tags) < by_crf).all()  # of the best, it takes away


def with_absent_images(batch: Batch) -> Batch:
    """Return the batch with one sample that has no image, and one that lacks its last object."""
    changed: dict[str, Any] = {}
    for name in ("view_mask", "object_mask"):
        if (mask := getattr(batch, name)) is not None:
            changed[name] = mask.clone()
            changed[name][0] = False
            changed[name][1, -1] = False
    return replace(batch, **changed)


@every_system
def test_a_text_says_the_same_alone_as_beside_longer_ones(read: Read) -> None:
    together = read.scores(read.batch(list(range(FEW))))
    for number in range(FEW):
        alone = read.scores(read.batch([number]))
        if alone.ndim == 3:
            beyond = together[number : number + 1, alone.shape[1] :]
            assert not beyond.any()
        beside = together[number : number + 1]
        beside = beside[:, : alone.shape[1]] if alone.ndim == 3 else beside
        torch.testing.assert_close(alone, beside, rtol=0, atol=1e-9)


@every_system
def test_what_has_no_order_may_come_in_any(read: Read) -> None:
    batch = read.batch(list(range(FEW)))
    changed: dict[str, Any] = {}
    if batch.views is not None and batch.view_mask is not None:
        order = turned(batch.views.shape[1], first=1 if shows_image(read) else 0)
        changed = {"views": batch.views[:, order], "view_mask": batch.view_mask[:, order]}
        if SYSTEMS[read.model.config.system].feature_set() == "grid":
            places = torch.randperm(batch.views.shape[-1] ** 2)
            cells = batch.views.flatten(-2)[..., places]
            changed["views"] = cells.reshape(batch.views.shape)
    if batch.object_mask is not None:
        order = turned(batch.object_mask.shape[1])
        for name in ("object_mask", "object_labels", "object_geometry", "structure"):
            if (value := getattr(batch, name)) is not None:
                changed[name] = value[:, order]
        if batch.object_edges is not None:
            changed["object_edges"] = batch.object_edges[:, order][:, :, order]
    expected, found = read.scores(batch), read.scores(replace(batch, **changed))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def shows_image(read: Read) -> bool:
    return read.spec is not None and read.spec.regions != "objects"


def turned(count: int, first: int = 0) -> list[int]:
    """Return the numbers below `count`, those from `first` on backwards."""
    return [*range(first), *reversed(range(first, count))]


@every_system
def test_a_system_that_reads_images_is_moved_by_them(read: Read) -> None:
    info = SYSTEMS[read.model.config.system]
    members = list(range(FEW))
    split = read.data.splits["train"]
    without = replace(split, image_keys=[None] * len(split))
    blind = replace(read, data=replace(read.data, splits={**read.data.splits, "train": without}))
    moved = (read.scores(read.batch(members)) - blind.scores(blind.batch(members))).abs().amax()
    assert (moved > 1e-6) == info.is_visual


@every_system
def test_a_training_step_waits_for_nothing_of_a_gpu(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(epochs=1, first_evaluation=1, batch_size=4, accumulate=1, precision="fp32")
    task = Task(
        "x",
        settings,
        1,
        read.data.splits,
        read.cache,
        read.data.reader.pad_id,
        stage_rates(read),
        None,
    )
    model = read.model.float().to(META)
    check_step(Trainer(task, model, Checkpoints(tmp_path, every=math.inf), Ranks()), monkeypatch)


def alike(read: Read) -> list[Batch]:
    """Return batches of one shape and different samples, of which some have no image."""
    texts = read.data.splits["train"].texts
    longest = max(range(len(texts)), key=lambda i: (len(texts[i].input_ids), len(texts[i].positions)))
    others = [i for i in range(len(texts)) if i != longest]
    made = [read.batch([longest, *others[i : i + 3]]) for i in range(0, 9, 3)]
    made = [*made, with_absent_images(made[0]), with_absent_images(made[1])]
    for batch in made:  # of single precision, as they come
        vars(batch).update({n: v.float() for n, v in vars(batch).items() if _is_double(v)})
    return made


def _is_double(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float64


def trained_on(
    model: System, made: list[Batch], record: Recorder | None, precision: str
) -> tuple[list[float], dict[str, Tensor], int]:
    """Return the losses, the weights and the number of recordings of a training on batches."""
    device = next(model.parameters()).device
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)

    def passes(batch: Batch, weight: float) -> Tensor:
        with autocast(device, precision):
            loss = model.loss(batch)
        torch.autograd.backward(loss * weight)
        return loss.detach()

    replays = Replays(model, passes, record) if record is not None else None
    losses = []
    for batch in made:
        with exactly(device, gradients=True):
            loss = passes(batch.to(device), 1.0) if replays is None else replays(batch, 1.0)
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses, model.state_dict(), 0 if replays is None else replays.count


def check_replays(read: Read, record: Recorder, device: str, precision: str = "fp32") -> None:
    """Check that a training with replays is the training without, to the last bit."""
    model = read.model.float().to(device)
    again, made = copy.deepcopy(model), alike(read)
    losses, weights, _ = trained_on(model, made, None, precision)
    replayed, others, count = trained_on(again, made, record, precision)
    assert count > 0
    assert replayed == losses
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []


# Words and characters are counted and packed on a processor, which a GPU would have to be waited for.
ON_SUBWORDS = [(name, task) for name, task in EVERY if SYSTEMS[name].text == SUBWORDS]


@pytest.mark.parametrize("read", ON_SUBWORDS, indirect=True, ids=[f"{n}-{t}" for n, t in ON_SUBWORDS])
def test_a_step_repeats_the_same_operations_whatever_the_numbers(read: Read) -> None:
    """What Python decides by the numbers of a batch would stay as it was recorded."""
    check_replays(read, taped, "cpu")


@every_system
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_is_the_same_as_a_cuda_graph(read: Read, precision: str) -> None:
    record = recorder_on(torch.device("cuda"))
    assert record is not None
    check_replays(read, record, "cuda", precision)
