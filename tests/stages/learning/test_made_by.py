"""How stages made what a model reads, in its config.json."""

import json
from pathlib import Path

import pytest
from hmnet_pipe.manifests.fingerprint import digest_file
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.stages.learning.made_by import CONFIG, made_by, made_differently, output_digest

PARAMETERS = {"detector": "one", "objects": 3, "precision": "fp32"}
RECORD = StageRecord("detect", 1, PARAMETERS, {"images": "x"}, {"detector": "a" * 64}, {})


def test_a_model_knows_how_each_stage_of_its_run_made_what_it_reads(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.record("detect").parent.mkdir()
    facts = {"settings": {"weights": "my.pth"}, "host": "here"}
    StageRecord("detect", 1, PARAMETERS, {}, {"detector": "a" * 64}, {}, facts).write(run.record("detect"))
    StageRecord("extract-grid", 1, {"pooled": 7}, {}, {}, {}).write(run.record("extract-grid"))
    assert made_by(run, ("prepare", "detect", "extract-grid")) == {
        "detect": {
            "parameters": PARAMETERS,
            "weights": {"detector": "a" * 64},
            "settings": {"weights": "my.pth"},
        },
        "extract": {"parameters": {"pooled": 7}, "weights": {}},
    }


def test_what_decides_is_told_from_what_rounds() -> None:
    now = StageRecord(
        "detect", 1, {**PARAMETERS, "objects": 2, "precision": "bf16"}, {}, {"detector": "b" * 64}, {}
    )
    then = {"parameters": PARAMETERS, "weights": {"detector": "a" * 64}}
    decides, rounds = made_differently(then, now)
    assert decides == ["objects: 3 -> 2", "weights.detector: aaaaaaaaaaaa -> bbbbbbbbbbbb"]
    assert rounds == ["precision: fp32 -> bf16"]
    assert made_differently(then, RECORD) == ([], [])


def test_the_digest_of_a_configuration_is_that_of_the_network(tmp_path: Path) -> None:
    plain, told = tmp_path / "a" / CONFIG, tmp_path / "b" / CONFIG
    values = {"system": "hmnet", "labels": ["O", "B-é"]}
    for path, content in ((plain, values), (told, {**values, "made_by": {"detect": {}}})):
        path.parent.mkdir()
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    assert output_digest(plain) == output_digest(told)
    told.write_text(told.read_text().replace("hmnet", "umt"))
    assert output_digest(plain) != output_digest(told)
    told.write_text("{")
    assert output_digest(told) != output_digest(plain)


@pytest.mark.parametrize("content", [b"", bytes(range(256)), b"[1]", b"[" * 100_000, bytes(2**26 + 1)])
def test_a_damaged_configuration_has_a_digest_of_its_own(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert output_digest(path) == digest_file(path)
