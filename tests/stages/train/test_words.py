"""Training on words, without an encoder or images: with learned vectors, or those of a file."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hmnet_pipe.manifests.errors import InputError, StageError, WeightsError
from hmnet_pipe.manifests.fingerprint import digest_file
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.report.text import trials_table
from hmnet_pipe.pipeline.reproduce.lock import lock_run
from hmnet_pipe.pipeline.reproduce.reproduce import Reproduction, reproduce
from hmnet_pipe.pipeline.run.trainings import finished_trainings
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.evaluate.evaluation import evaluate
from hmnet_pipe.stages.learning.causes import recipe_parameters
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.systems.folder import load_system
from hmnet_pipe.stages.text.vocabulary import VOCABULARY_FILE, Vocabulary

from ...running import Demos, begin, bring_up_to_date, configure, model_of, said_by, stage_of

CNN = Trial("cnn-bilstm-crf")
SIZES = {"train": 24, "valid": 8, "test": 8}


@pytest.fixture(scope="module")
def prepared(demos: Demos, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with samples alone: no detections, no features, and no encoder on this machine."""
    folder = begin(tmp_path_factory.mktemp("words") / "run", demos.corpus(sizes=SIZES))
    bring_up_to_date(folder, "prepare")
    configure(folder, "train", encoder="/nowhere", epochs=1, first_evaluation=1, batch_size=8)
    return folder


@pytest.fixture
def run(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "run"))


def vectors_file(folder: Path, words: dict[str, list[float]]) -> Path:
    path = folder / "tiny.3d.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in words.items()))
    return path


def test_a_system_on_words_needs_samples_alone_and_scores_again_as_it_did(run: Path) -> None:
    bring_up_to_date(run, "train", trial=CNN, precision="fp32")
    folder = model_of(run, CNN)
    config = json.loads((folder / "config.json").read_text())
    assert config["encoder"]["word_dim"] == 200
    assert config["options"] == {"vectors": None, "qualifiers": ["learned vectors"]}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["qualifiers"] == ["learned vectors"]
    assert {group["name"] for group in metrics["parameter_groups"]} == {
        "words",
        "words, no decay",
        "head",
        "head, no decay",
    }
    table = trials_table(finished_trainings(RunFolder(run))).splitlines()
    assert table[2].startswith("cnn-bilstm-crf[learned vectors]  ")
    scores = evaluate(folder, RunFolder(run), precision="fp32")[0]
    assert {**scores, "errors": None} == {**metrics["test"], "errors": None}
    words = Vocabulary.load(folder)
    assert words.digest == config["encoder"]["vocabulary"]
    record = StageRecord.read(RunFolder(run).record("train-cnn-bilstm-crf-seed-1"))
    assert record.weights == {}
    assert record.outputs.keys() >= {VOCABULARY_FILE, "model.safetensors"}
    assert bring_up_to_date(run, "train", trial=CNN).state == "fresh"


def test_vectors_of_a_file_start_the_words_and_stand_in_record_model_and_table(run: Path) -> None:
    vocabulary = [word for text in json_texts(run) for word in text]
    path = vectors_file(run, {vocabulary[0].lower(): [1, 2, 3], "the": [0.5, 0.5, 0.5], "unused": [9, 9, 9]})
    said = said_by(run, "train", trial=CNN, vectors=str(path), word_learning_rate=0.0)
    assert any(line.startswith("tiny.3d.txt: ") and "have a vector there" in line for line in said)
    folder = model_of(run, CNN)
    model: Any = load_system(folder)
    assert model.config.options["vectors"] == {"file": "tiny.3d.txt", "digest": digest_file(path)}
    ids = {word: number for number, word in enumerate(Vocabulary.load(folder).words, 2)}
    assert model.encoder.vectors.weight[ids[vocabulary[0]]].tolist() == [1, 2, 3]
    assert "unused" not in ids
    table = trials_table(finished_trainings(RunFolder(run))).splitlines()
    assert table[2].startswith("cnn-bilstm-crf[tiny.3d.txt]  ")
    record = StageRecord.read(RunFolder(run).record("train-cnn-bilstm-crf-seed-1"))
    assert record.weights == {"vectors": digest_file(path)}
    assert path in stage_of(run, "train", CNN).sources()
    path.write_text(path.read_text() + "more 1 1 1\n")
    changes = record.changes(stage_of(run, "train", CNN).causes(Tools()))
    assert len(changes) == 1
    assert changes[0].startswith("weights.vectors: ")


def json_texts(run: Path) -> list[list[str]]:
    rows = pq.read_table(RunFolder(run).samples).to_pylist()
    return [row["tokens"] for row in rows if row["split"] == "train"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"word_dim": 4}, r"word_dim = 4 in \[train\], and the vectors in .*3d\.txt have 3 numbers"),
        ({"vectors": "/nowhere/glove.txt"}, r"--vectors: /nowhere/glove\.txt is not a file"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(run: Path, options: dict[str, Any], words: str) -> None:
    path = vectors_file(run, {"the": [1, 2, 3]})
    with pytest.raises(InputError, match=words):
        bring_up_to_date(run, "train", trial=CNN, **{"vectors": str(path), **options})


def test_a_vocabulary_of_another_model_is_refused(run: Path) -> None:
    bring_up_to_date(run, "train", trial=CNN, word_dim=7)
    folder = model_of(run, CNN)
    model: Any = load_system(folder)
    assert model.encoder.vectors.weight.shape[1] == 7
    Vocabulary.of([["other", "words"]]).save(folder)
    with pytest.raises(
        WeightsError, match=r"vocabulary\.json is not the vocabulary that the model was trained"
    ):
        evaluate(folder, RunFolder(run))


def test_the_vocabulary_of_few_shots_is_that_of_the_samples_drawn(run: Path) -> None:
    few = Trial("hbilstm-crf", shots=2)
    bring_up_to_date(run, "train", trial=few)
    words = Vocabulary.load(model_of(run, few)).words
    assert 0 < len(words) < len({word for text in json_texts(run) for word in text})


def test_settings_that_a_system_does_not_read_are_no_part_of_its_fingerprint() -> None:
    plain = TrainSettings(device="cpu", precision="fp32")
    words = TrainSettings(device="cpu", precision="fp32", word_dim=50, word_learning_rate=1.0, vectors="x")
    encoder = TrainSettings(device="cpu", precision="fp32", learning_rate=1.0, fusion_learning_rate=1.0)
    for system, same, other in (("bert-crf", words, encoder), ("cnn-bilstm-crf", encoder, words)):
        found = [
            recipe_parameters(recipe, Trial(system), None, None, "ner") for recipe in (plain, same, other)
        ]
        assert found[0] == found[1]
        assert found[0] != found[2]


def test_a_lock_names_the_vectors_and_is_reproduced_with_them_from_another_place(
    run: Path, tmp_path: Path, demos: Demos
) -> None:
    path = vectors_file(tmp_path, {"the": [1, 2, 3]})
    bring_up_to_date(run, "train", trial=CNN, vectors=str(path))
    lock, corpus = lock_run(RunFolder(run), tmp_path / "run.lock"), demos.corpus(sizes=SIZES)
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / path.name)

    def again(name: str, vectors: Path | None) -> Reproduction:
        there, given = RunFolder(tmp_path / name), None if vectors is None else str(vectors)
        return reproduce(lock, there, text=corpus, images=corpus / "images", tools=Tools(), vectors=given)

    with pytest.raises(WeightsError, match=r"the vectors of the lock, .*; give it with --vectors FILE"):
        again("without", None)
    assert again("moved", moved).reproduced
    moved.write_text("the 1 2 4\n")
    other = again("other", moved)
    assert [found.what for found in other.different] == ["vectors"]


def test_a_system_on_objects_asks_for_them_and_takes_their_labels_vectors_from_the_file(run: Path) -> None:
    ocsga, folder = Trial("ocsga"), RunFolder(run)
    with pytest.raises(StageError, match=r"detections.*hmnet-pipe detect"):
        bring_up_to_date(run, "train", trial=ocsga)
    samples = pq.read_table(folder.samples).to_pylist()
    keys = sorted({row["image_key"] for row in samples if row["split"] == "train" and row["image_key"]})
    box = {"x0": 0.0, "y0": 0.0, "x1": 4.0, "y1": 4.0, "score": 0.5}
    rows = [
        {"image_key": key, "rank": rank, "label": label, **box}
        for key in keys[:9]
        for rank, label in enumerate(("Bus", "fire hydrant"))
    ]
    write_table(folder.detections, table_of(DETECTIONS, rows))
    path = vectors_file(run.parent, {"fire": [1, 2, 3], "hydrant": [3, 2, 1], "bus": [5, 5, 5]})
    bring_up_to_date(run, "train", trial=ocsga, vectors=str(path))
    model: Any = load_system(model_of(run, ocsga))
    assert model.config.options["object_labels"] == ["Bus", "fire hydrant"]
    assert model.objects.weight.tolist() == [[0, 0, 0], [0, 0, 0], [5, 5, 5], [2, 2, 2]]
