"""`table --against`: what the predictions of trainings say of their difference."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import PREDICTIONS
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cli import main

WORDS = [["Ada", f"w{number}"] for number in range(40)]


def write_training(run: RunFolder, system: str, seed: int, found: int) -> None:
    """Write a finished training whose model finds the entity of the first `found` of 40 sentences."""
    folder = run.model(Trial(system, seed))
    folder.mkdir(parents=True)
    rows = [
        {
            "id": str(number),
            "split": "test",
            "tokens": words,
            "gold": ["B-PER", "O"],
            "predicted": ["B-PER" if number < found else "O", "O"],
            "has_image": False,
        }
        for number, words in enumerate(WORDS)
    ]
    write_table(folder / "predictions.parquet", table_of(PREDICTIONS, rows))
    recall = found / 40
    scores = {"f1": 2 * recall / (1 + recall), "precision": 1.0, "recall": recall, "per_group": {}}
    metrics = {
        "system": system,
        "task": "ner",
        "seed": seed,
        "best_epoch": 1,
        "valid": scores,
        "test": scores,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    record = run.record(f"train-{Trial(system, seed).name}")
    record.parent.mkdir(exist_ok=True)
    record.write_text("{}")


def shown(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    return done.exit_code, done.output


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    for seed, found in ((1, 20), (2, 22)):
        write_training(run, "bert-crf", seed, found)
        write_training(run, "hmnet", seed, found + 14)
        write_training(run, "umt", seed, found)
    return run


def test_a_table_tests_every_row_against_one_system(run: RunFolder) -> None:
    code, text = shown("table", run.path, "--against", "bert-crf")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in text.splitlines()}
    assert rows["bert-crf"][-4:] == ["-"] * 4
    assert float(rows["umt"][-6]) == 0
    assert float(rows["umt"][-2]) == 1
    assert float(rows["hmnet"][-6]) > 0.2
    assert float(rows["hmnet"][-2]) < 0.001
    code, text = shown("table", run.path, "--against", "bert-crf", "--json")
    row = json.loads(text)["differences"]["hmnet"]
    # 34 and 36 of 40 against 20 and 22.
    expected = sum(2 * (n + 14) / (54 + n) - 2 * n / (40 + n) for n in (20, 22)) / 2
    assert row["value"] == pytest.approx(expected)
    assert row["low"] < row["value"] < row["high"]
    assert row["p_holm"] == pytest.approx(2 * row["p"])
    assert row["seeds"] == 2


def test_without_a_partner_there_is_one_sentence(run: RunFolder) -> None:
    code, text = shown("table", run.path, "--against", "mtb")
    assert (code, text.count("\n")) == (2, 1)
    assert "--against mtb" in text
    write_training(run, "visualbert", 7, 3)
    only = ("--system", "bert-crf", "--system", "visualbert")
    code, text = shown("table", run.path, *only, "--against", "bert-crf")
    assert code == 2
    assert "no other training has a seed" in text
