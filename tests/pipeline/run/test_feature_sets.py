"""Named feature sets, from run.toml to a reproduced run."""

import json
import shutil
from pathlib import Path

import pytest
from hmnet_pipe import FeatureCache
from hmnet_pipe.cache.shards import Shard
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.doctor import examine
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.checks.verify import mend_run, rerun_run, verify_run
from hmnet_pipe.pipeline.reproduce.lock import lock_run
from hmnet_pipe.pipeline.reproduce.reproduce import reproduce
from hmnet_pipe.pipeline.run.archive import archive_run
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.runner import Report, run_together
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.prepare.settings import PrepareSettings
from hmnet_pipe.stages.vision.sets import FeatureSet

from ...running import Demos, bring_up_to_date, hmnet

SIZES = {"train": 16, "valid": 6, "test": 6}
OWN = '\n[features.coarse]\nlevels = [3, 4]\nside = 1\nviews = "objects"\n'
NAMES = ("pyramid", "grid", "vector", "coarse")


def extract(run: Path, *names: str) -> list[Report]:
    """Make feature sets in one pass."""
    folder = RunFolder(run)
    config = RunConfig.read(folder.config)
    return run_together([config.stage("extract", folder, name) for name in names], SILENT)


@pytest.fixture(scope="module")
def finished(demos: Demos, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with the built-in sets and one of its own, all made in one pass."""
    run = Path(shutil.copytree(demos.run(sizes=SIZES), tmp_path_factory.mktemp("sets") / "run"))
    shutil.rmtree(run / "features")
    RunFolder(run).record("extract").unlink()
    with RunFolder(run).config.open("a") as file:
        file.write(OWN)
    assert [report.state for report in extract(run, *NAMES)] == ["done"] * len(NAMES)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


def test_one_pass_makes_the_bytes_that_a_pass_for_each_set_makes(finished: Path, run: RunFolder) -> None:
    shutil.rmtree(run.path / "features")
    for path in (run.path / "stages").glob("extract*.json"):
        path.unlink()
    for name in NAMES:
        assert extract(run.path, name)[0].state == "done"
        joint = RunFolder(finished).features(name)
        for shard in joint.glob("*.h5"):
            assert (run.features(name) / shard.name).read_bytes() == shard.read_bytes()
        assert FeatureCache(run.features(name)).digest() == FeatureCache(joint).digest()


def test_a_set_is_what_its_table_says(finished: Path) -> None:
    specs = {name: FeatureCache(RunFolder(finished).features(name)).spec for name in NAMES}
    assert {name: (spec.numbers, spec.pooled, spec.views) for name, spec in specs.items()} == {
        "pyramid": ((1, 2, 3, 4), 2, 4),
        "grid": ((4,), 7, 1),
        "vector": ((4,), 1, 4),
        "coarse": ((3, 4), 1, 3),
    }


def test_a_set_that_is_there_is_kept_while_another_is_made(run: RunFolder) -> None:
    shutil.rmtree(run.features("grid"))
    assert [report.state for report in extract(run.path, "pyramid", "grid")] == ["fresh", "done"]


def test_own_sets_stay_in_run_toml(run: RunFolder) -> None:
    config = RunConfig.read(run.config)
    assert config.sets == {"coarse": FeatureSet("coarse", (3, 4), 1, "objects")}
    config.override("extract", {"shard_rows": 5}).write(run.config)
    assert RunConfig.read(run.config).sets == config.sets


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("[features.x]\nsides = 1", "did you mean side"),
        ('[features.x]\nviews = "all of them"', "views"),
        ("[features.x]\nlevels = [0]", "levels"),
        ("[features.X]\nside = 1", "name of a feature set"),
        ("[features]\nx = 1", "one table per feature set"),
    ],
)
def test_a_wrong_table_names_the_file_and_the_set(run: RunFolder, table: str, fault: str) -> None:
    run.config.write_text(run.config.read_text().replace(OWN, f"\n{table}\n"))
    with pytest.raises(InputError, match=fault) as found:
        RunConfig.read(run.config)
    assert str(run.config) in str(found.value)


def test_an_unknown_set_is_refused_with_those_that_there_are(run: RunFolder) -> None:
    done = hmnet("extract", run.path, "--features", "grit")
    assert done.returncode == 2
    assert "did you mean grid" in done.stderr
    assert not run.features("grit").exists()


@pytest.mark.slow
def test_features_whose_table_has_left_run_toml_are_answered_with_the_way_out(run: RunFolder) -> None:
    config = RunConfig.read(run.config)
    (run.features("own")).mkdir(parents=True)
    (run.features("own") / "shard-00000.h5").touch()
    record = run.record("extract-own")
    words = rf"put \[features\.own\] back, or delete {run.features('own')} and {record}"
    for look in (verify_run, run_status):
        with pytest.raises(InputError, match=words):
            look(run)
    (run.features("own") / "shard-00000.h5").unlink()
    assert "own" not in str(run_status(run))
    with pytest.raises(InputError, match="own' is not one of"):
        config.stage("extract", run, "own")


def test_a_system_whose_set_is_missing_names_the_command_that_makes_it(run: RunFolder) -> None:
    shutil.rmtree(run.features("grid"))
    with pytest.raises(StageError, match=rf"run `hmnet-pipe extract {run.path} --features grid` first"):
        bring_up_to_date(run.path, "train", trial=Trial("umt"))


def test_a_system_that_is_not_trained_from_pixels_says_so_before_anything_else(run: RunFolder) -> None:
    with pytest.raises(InputError, match="umt is not of the hmnet family"):
        bring_up_to_date(run.path, "finetune", trial=Trial("umt"), start="train")


def test_status_and_verify_know_each_set(run: RunFolder) -> None:
    names = [f"extract-{name}" for name in sorted(NAMES) if name != "pyramid"]
    states = {row.stage: row.state for row in run_status(run).stages}
    assert states == dict.fromkeys(["prepare", "detect", "extract", *names], "fresh")
    assert verify_run(run) == []
    shard = min(run.features("grid").glob("shard-*.h5"))
    flip(shard)
    problems = verify_run(run)
    assert {problem.stage for problem in problems} == {"extract-grid"}
    assert [report.stage for report in mend_run(run, problems, SILENT)] == ["extract-grid"]
    assert verify_run(run) == []
    again = {result.stage: result.verdict for result in rerun_run(run, 0.01, False, SILENT)}
    assert again == dict.fromkeys(["prepare", "detect", "extract", *names], "equal")


def test_a_changed_setting_makes_every_set_stale_and_names_the_command(run: RunFolder) -> None:
    RunConfig.read(run.config).override("extract", {"dtype": "float32"}).write(run.config)
    status = run_status(run)
    assert [row.stage for row in status.stages if row.state == "stale"] == [
        "extract",
        "extract-coarse",
        "extract-grid",
        "extract-vector",
    ]
    bring_up_to_date(run.path, "extract")
    assert run_status(run).next_command == f"hmnet-pipe extract {run.path} --features coarse"


def test_archive_takes_the_set_that_is_named(run: RunFolder) -> None:
    assert archive_run(run, "grid").done > 0
    archived = {
        name: [Shard(path).archived for path in run.features(name).glob("shard-*.h5")] for name in NAMES
    }
    assert all(archived["grid"])
    assert not any(archived["pyramid"] + archived["vector"] + archived["coarse"])
    assert extract(run.path, "grid")[0].state == "fresh"


@pytest.mark.slow
def test_a_lock_holds_every_set_and_they_are_reproduced(run: RunFolder, tmp_path: Path) -> None:
    lock = lock_run(run)
    prepare = RunConfig.read(run.config).of(PrepareSettings)
    new = RunFolder(tmp_path / "again")
    result = reproduce(lock, new, text=prepare.text, images=prepare.images, tools=SILENT)
    assert result.reproduced, json.dumps(result.to_json(), indent=2)
    for name in NAMES:
        assert FeatureCache(new.features(name)).digest() == FeatureCache(run.features(name)).digest()
    groups = {comparison.group for comparison in result.comparisons}
    assert {"extract", "extract-grid", "extract-vector", "extract-coarse"} <= groups


def test_doctor_says_what_each_set_takes_and_which_the_backbone_cannot_make(run: RunFolder) -> None:
    found = {finding.subject: finding for finding in examine(run)}["feature sets"]
    assert found.state == "ok"
    assert "coarse" in found.text
    run.config.write_text(run.config.read_text().replace("levels = [3, 4]", "levels = [5]"))
    found = {finding.subject: finding for finding in examine(run)}["feature sets"]
    assert found.state == "problem"
    assert "features.coarse" in found.text


def test_a_set_other_than_the_pyramid_has_its_levels_and_views_among_its_causes(run: RunFolder) -> None:
    names = ("extract", "extract-grid", "extract-vector", "extract-coarse")
    records = {name: StageRecord.read(run.record(name)) for name in names}
    facts = {name: record.parameters for name, record in records.items() if record is not None}
    found = {
        name: (known["pooled"], known.get("levels"), known.get("views")) for name, known in facts.items()
    }
    assert found == {
        "extract": (2, None, None),  # as before there were sets
        "extract-grid": (7, [-1], "image"),
        "extract-vector": (1, [-1], "all"),
        "extract-coarse": (1, [3, 4], "objects"),
    }
