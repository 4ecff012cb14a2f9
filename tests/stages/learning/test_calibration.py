"""Calibration, against hand-written loops and the best of many temperatures."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.report.text import calibration_table
from hmnet_pipe.pipeline.run.evaluate import evaluate_trial
from hmnet_pipe.stages.learning.calibration import (
    Found,
    Judged,
    fit_temperature,
    reliability,
    temperature_of,
)
from hmnet_pipe.stages.learning.splits import Split
from hmnet_pipe.stages.systems.heads import best_tags, bio_crf
from hmnet_pipe.stages.systems.marginals import Chain, chain_of
from hmnet_pipe.stages.systems.registry import TEMPERATURE_FILE
from hmnet_pipe.stages.systems.system import Scored

from ...running import Demos, bring_up_to_date, configure, model_of

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
RELATIONS = ("None", "a", "b")
SAMPLES_OF_EACH = 40


def split_of(gold: list[list[str]]) -> Split:
    ids = [str(i) for i in range(len(gold))]
    return Split(
        "valid", ids, [["x"] * len(labels) for labels in gold], gold, [[]] * len(gold), [None] * len(gold)
    )


def relations(scale: float, seed: int = 0) -> Found:
    """Return relations drawn from their own softmax, of a model that says `scale` times their scores."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(SAMPLES_OF_EACH, len(RELATIONS), generator=generator, dtype=torch.float64)
    drawn = torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)[:, 0]
    gold = [[RELATIONS[i]] for i in drawn.tolist()]
    labels = [[RELATIONS[i]] for i in scores.argmax(dim=-1).tolist()]
    halves = [list(range(0, 15)), list(range(15, SAMPLES_OF_EACH))]
    probabilities = (scale * scores).softmax(dim=-1)
    batches = [(ids, Scored([labels[i] for i in ids], probabilities=probabilities[ids])) for ids in halves]
    return Found(RELATIONS, split_of(gold), batches)


def entities(scale: float) -> Found:
    """Return entities of random texts of 1 to 5 words, with gold tags that are right in every other text."""
    generator = torch.Generator().manual_seed(3)
    crf = bio_crf(TAGS).double()
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    lengths = torch.arange(SAMPLES_OF_EACH) % 5 + 1
    emissions = scale * torch.randn(SAMPLES_OF_EACH, 5, len(TAGS), generator=generator, dtype=torch.float64)
    mask = torch.arange(5)[None] < lengths[:, None]
    best = best_tags(crf, emissions, mask)
    labels = [[TAGS[i] for i in path] for path in best]
    gold = [tags if i % 2 else labels[i - 5 if i >= 5 else i][: len(tags)] for i, tags in enumerate(labels)]
    gold = [["B-PER"] * len(tags) if i % 6 == 0 else tags for i, tags in enumerate(gold)]
    chain = chain_of(crf, emissions, mask)
    return Found(TAGS, split_of(gold), [(list(range(SAMPLES_OF_EACH)), Scored(labels, chain=chain))])


def judge(found: Found, fitted_on: Found | None = None) -> Judged:
    """Return how sure the model is of what it found, batch by batch."""
    judged = Judged(found.names, found.split, fitted_on)
    for ids, scored in found.batches:
        judged.add(ids, scored)
    return judged


def loss_by_loop(found: Found, temperature: float) -> float:
    """Return the negative log-likelihood of the gold of relations, number by number."""
    total = 0.0
    for ids, scored in found.batches:
        assert scored.probabilities is not None
        for row, i in enumerate(ids):
            powers = [p ** (1 / temperature) for p in scored.probabilities[row].tolist()]
            total -= math.log(powers[RELATIONS.index(found.split.gold[i][0])] / sum(powers))
    return total


def entity_loss(found: Found, temperature: float) -> float:
    """Return the negative log-likelihood of gold tags, by pytorch-crf's own sums."""
    ((_, scored),) = found.batches
    assert scored.chain is not None
    chain = scored.chain
    crf = bio_crf(TAGS).double()
    with torch.no_grad():
        crf.parametrizations.transitions.original.copy_(chain.transitions / temperature)
        crf.parametrizations.start_transitions.original.copy_(chain.start / temperature)
        crf.end_transitions.copy_(chain.end / temperature)
    tags = torch.tensor([[*map(TAGS.index, row), *[0] * (5 - len(row))] for row in found.split.gold])
    return -crf(chain.emissions / temperature, tags, mask=chain.mask, reduction="sum").item()


def test_the_error_and_the_table_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    sure = [*torch.rand(500, generator=generator).double().tolist(), 0.0, 0.1, 0.2, 0.3, 1.0]
    right = (torch.rand(505, generator=generator) < 0.6).tolist()
    found = reliability(sure, right)
    error = 0.0
    for i, row in enumerate(found["bins"]):
        # An edge belongs to the bin below it; 0 to the first.
        members = [
            (s, r) for s, r in zip(sure, right, strict=True) if i < 10 * s <= i + 1 or (i == 0 and s == 0)
        ]
        assert row["count"] == len(members)
        confidence = sum(s for s, _ in members) / len(members)
        accuracy = sum(r for _, r in members) / len(members)
        assert row["confidence"] == pytest.approx(confidence, abs=1e-12)
        assert row["accuracy"] == pytest.approx(accuracy, abs=1e-12)
        error += len(members) * abs(confidence - accuracy)
    assert found["error"] == pytest.approx(error / 505, abs=1e-12)
    assert sum(row["count"] for row in found["bins"]) == found["count"] == 505


def test_a_bin_without_members_and_a_split_without_findings_have_no_accuracy() -> None:
    found = reliability([0.95], [True])
    assert [row["accuracy"] for row in found["bins"]] == [None] * 9 + [1.0]
    assert found["error"] == pytest.approx(0.05)
    nothing = reliability([], [])
    assert (nothing["error"], nothing["count"]) == (None, 0)
    report = {"as_it_is": nothing, "temperature": None, "with_temperature": None}
    assert calibration_table(report).endswith("there is no probability to judge")


@pytest.mark.parametrize("scale", [0.4, 1.0, 5.0])
def test_the_temperature_of_relations_is_the_best_of_many(scale: float) -> None:
    found = relations(scale)
    temperature = fit_temperature(found)
    assert temperature is not None
    grid = [0.06 * 1.02**step for step in range(290)]
    best = min(grid, key=lambda each: loss_by_loop(found, each))
    assert temperature == pytest.approx(best, rel=0.02)
    at_best = loss_by_loop(found, temperature)
    assert at_best <= min(loss_by_loop(found, temperature * near) for near in (0.999, 1.001))
    # A model that says five times its scores needs five times the temperature.
    honest = fit_temperature(relations(1.0))
    assert honest is not None
    assert temperature == pytest.approx(scale * honest, rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_temperature_of_entities_is_the_best_of_many(scale: float) -> None:
    found = entities(scale)
    temperature = fit_temperature(found)
    assert temperature is not None
    grid = [0.06 * 1.03**step for step in range(190)]
    best = min(grid, key=lambda each: entity_loss(found, each))
    assert temperature == pytest.approx(best, rel=0.03)
    at_best = entity_loss(found, temperature)
    assert at_best <= min(entity_loss(found, temperature * near) for near in (0.999, 1.001))


def test_a_sample_whose_gold_the_model_does_not_know_decides_no_temperature() -> None:
    found = relations(2.0)
    before = fit_temperature(found)
    found.split.gold = [*found.split.gold[:3], ["another"], *found.split.gold[4:]]
    assert fit_temperature(found) != before
    found.batches[0][1].probabilities[3] = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    unmoved = fit_temperature(found)
    found.batches[0][1].probabilities[3] = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    assert fit_temperature(found) == unmoved
    assert fit_temperature(Found(("x",), found.split, found.batches)) is None


def test_an_entity_is_right_where_its_span_and_type_are_in_gold() -> None:
    found = entities(2.0)
    ((_, scored),) = found.batches
    assert scored.chain is not None
    sure, right = judge(found).judged()
    chain, at = scored.chain, 0
    for text, (tags, gold) in enumerate(zip(scored.labels, found.split.gold, strict=True)):
        for first, tag in enumerate(tags):
            if not tag.startswith("B-"):
                continue
            last = first
            while last + 1 < len(tags) and tags[last + 1] == f"I-{tag[2:]}":
                last += 1
            ends = last + 1 == len(gold) or gold[last + 1] != f"I-{tag[2:]}"
            assert right[at] == (gold[first : last + 1] == tags[first : last + 1] and ends)
            spans = chain.spans(TAGS.index(tag), TAGS.index(tag) + 1)
            assert sure[at] == pytest.approx(spans[text, first, last].item(), abs=1e-12)
            at += 1
    assert at == len(sure) == len(right)
    assert 0 < sum(right) < len(right)


def test_each_sample_has_the_probabilities_of_what_was_found_in_it() -> None:
    """Batches in any order: a text is asked for by its number in the split."""
    found = entities(2.0)
    ((_, scored),) = found.batches
    assert scored.chain is not None
    plain, split = scored.chain, found.split
    judged = Judged(TAGS, split, None)
    for ids in ([*range(20, SAMPLES_OF_EACH)], [*range(20)]):
        part = chain_of_texts(plain, ids)
        judged.add(ids, Scored([scored.labels[i] for i in ids], chain=part))
    for i, known in enumerate(judged.probabilities(scored.labels, "ner")):
        for (kind, first, last), sure in known.items():
            spans = plain.spans(TAGS.index(f"B-{kind}"), TAGS.index(f"I-{kind}"))
            assert sure == pytest.approx(spans[i, first, last].item(), abs=1e-12)
    assert sum(map(len, judged.probabilities(scored.labels, "ner"))) == len(judged.judged()[0]) > 0
    tempered = judge(found, found).report()["with_temperature"]
    assert tempered == judge(at(found, fit_temperature(found))).report()["as_it_is"]


def chain_of_texts(chain: Chain, ids: list[int]) -> Chain:
    """Return the sums of some texts of a batch."""
    texts = {
        name: getattr(chain, name)[ids] for name in ("emissions", "mask", "forward", "backward", "total")
    }
    return replace(chain, **texts)


def at(found: Found, temperature: float | None) -> Found:
    """Return what was found as if the model's scores were divided by a temperature."""
    assert temperature is not None
    ((ids, scored),) = found.batches
    assert scored.chain is not None
    scored = replace(scored, chain=scored.chain.at(temperature))
    return replace(found, batches=[(ids, scored)])


def test_a_temperature_makes_an_overconfident_model_honest() -> None:
    report = judge(relations(6.0), relations(6.0, seed=1)).report()
    assert report["with_temperature"]["error"] < report["as_it_is"]["error"]
    assert report["with_temperature"]["accuracy"] == report["as_it_is"]["accuracy"]
    table = calibration_table(report)
    assert "0.9 to 1.0" in table
    assert f"temperature {report['temperature']:.3f}, fitted on valid (right half)" in table


@pytest.fixture(scope="module")
def run(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    run = Path(shutil.copytree(demos.run("re", {"train": 16, "valid": 6, "test": 6}), folder))
    configure(run, "train", encoder=str(tiny_encoder), epochs=1, first_evaluation=1)
    bring_up_to_date(run, "train", trial=TEXT)
    return run


TEXT = Trial("mtb", 1)


def test_evaluate_keeps_a_temperature_only_when_asked_and_changes_no_other_file(run: Path) -> None:
    model = model_of(run, TEXT)
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    folder = RunFolder(run)
    plain, path = evaluate_trial(folder, TEXT, folder)
    scores, _ = evaluate_trial(folder, TEXT, folder, calibrate=True)
    report = scores.pop("calibration")
    assert scores == plain
    assert report["as_it_is"]["accuracy"] == scores["accuracy"]
    assert json.loads(path.read_text())["scores"]["calibration"] == report
    assert not (model / TEMPERATURE_FILE).exists()
    assert temperature_of(model) == 1.0
    evaluate_trial(folder, TEXT, folder, calibrate=True, keep=True)
    assert temperature_of(model) == report["temperature"] != 1.0
    assert {name: (model / name).read_bytes() for name in before} == before
    with pytest.raises(StageError, match=r"temperature\.json was fitted to another model\.safetensors"):
        temperature_of(of_another(model))
    (model / TEMPERATURE_FILE).write_text('{"temperature": -1, "model": ""}')
    with pytest.raises(StageError, match=r"-1\.0 is no temperature.*delete it"):
        temperature_of(model)
    bring_up_to_date(run, "train", trial=TEXT, learning_rate=1e-4)
    assert temperature_of(model) == 1.0, "the model that it was fitted to is no more"


def of_another(model: Path) -> Path:
    other = Path(shutil.copytree(model, model.parent / "other"))
    (other / "model.safetensors").write_bytes(b"")
    return other


def test_what_cannot_be_kept_is_one_sentence(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(run, tmp_path / "run")))
    rows = [row for row in read_table(folder.samples, SAMPLES).to_pylist() if row["split"] != "valid"]
    write_table(folder.samples, table_of(SAMPLES, rows))
    scores, _ = evaluate_trial(folder, TEXT, folder, calibrate=True)
    assert scores["calibration"]["temperature"] is None
    assert "right half" not in calibration_table(scores["calibration"])
    with pytest.raises(InputError, match="has no valid split whose labels the model knows"):
        evaluate_trial(folder, TEXT, folder, calibrate=True, keep=True)
    answer = CliRunner().invoke(main, ["evaluate", str(run), "--keep-temperature"])
    assert answer.exit_code == 2
    assert "none without --calibrate" in answer.output
