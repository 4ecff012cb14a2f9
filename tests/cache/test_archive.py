"""The archive layout: half the bytes, the same content, whoever reads it and whatever happens to it."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import torch
from hmnet_pipe.cache.integrity import find_damage
from hmnet_pipe.cache.reader import FeatureCache
from hmnet_pipe.cache.shards import Shard, ShardError, check_shard, rewrite_shard, row_checksum, write_shard
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, STORAGE_DTYPES, FeatureSpec, Transform
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.manifests.files import TEMPORARY_PREFIX
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.checks.verify import rerun_run, verify_run
from hmnet_pipe.pipeline.run.archive import archive_run
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.prepare.settings import PrepareSettings
from torch.utils.data import DataLoader

from ..running import Campaign, Demos, begin, bring_up_to_date, hmnet, hmnet_words, model_of, stage_of
from .test_cache import write_cache

TRANSFORM = Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
SPEC = FeatureSpec("resnet50", "w" * 64, TRANSFORM, (3, 5), 2, 4, "float16")


def make_cache(
    folder: Path, shards: int = 2, rows: int = 4, spec: FeatureSpec = SPEC
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Write a contiguous cache of values of which half are zero, as behind a ReLU, with absent views."""
    rng = np.random.default_rng(shards * rows)
    keys = [f"{number:064x}" for number in range(shards * rows)]
    mask = rng.random((len(keys), spec.views)) < 0.7
    values = (
        np.maximum(rng.normal(size=(len(keys), *spec.row_shape)), 0).astype(np.float32)
        * mask[:, :, None, None, None]
    )
    pyramid = (
        (values.view(np.uint32) >> 16).astype(np.uint16)
        if spec.dtype == "bfloat16"
        else values.astype(STORAGE_DTYPES[spec.dtype])
    )
    write_cache(folder, spec, keys, mask, pyramid, rows)
    return keys, pyramid, mask


def archive(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("shard-*.h5"))
    assert [rewrite_shard(path, archived=True) for path in paths] == [True] * len(paths)
    return paths


@pytest.mark.parametrize("dtype", list(STORAGE_DTYPES))
def test_an_archive_reads_as_the_cache_that_it_was_made_from(tmp_path: Path, dtype: Any) -> None:
    spec = FeatureSpec("resnet50", "w" * 64, TRANSFORM, (3, 5), 2, 4, dtype)
    keys, pyramid, mask = make_cache(tmp_path, shards=3, spec=spec)
    order = [keys[5], None, keys[0], keys[11], "f" * 64, keys[5]]
    before, digest = FeatureCache(tmp_path).gather(order), FeatureCache(tmp_path).digest()
    for path in archive(tmp_path)[1:]:  # the layouts may be mixed
        check_shard(path)
    rewrite_shard(tmp_path / "shard-00000.h5", archived=False)
    after = FeatureCache(tmp_path).gather(order)
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert after[0].dtype == before[0].dtype
    assert FeatureCache(tmp_path).digest() == digest
    shard = Shard(tmp_path / "shard-00002.h5")
    assert shard.archived
    assert np.array_equal(shard.pyramid, pyramid[8:])
    assert np.array_equal(shard.view_mask, mask[8:])
    assert find_damage(tmp_path) == []


def test_restoring_gives_back_the_very_bytes_and_archiving_twice_changes_nothing(tmp_path: Path) -> None:
    make_cache(tmp_path)
    paths = sorted(tmp_path.glob("shard-*.h5"))
    whole = [path.read_bytes() for path in paths]
    archive(tmp_path)
    compressed = [path.read_bytes() for path in paths]
    assert [rewrite_shard(path, archived=True) for path in paths] == [False, False]
    assert [path.read_bytes() for path in paths] == compressed != whole
    assert [rewrite_shard(path, archived=False) for path in paths] == [True, True]
    assert [path.read_bytes() for path in paths] == whole
    archive(tmp_path)
    assert [path.read_bytes() for path in paths] == compressed


def test_a_shard_without_rows_is_the_same_in_both_layouts(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.h5"
    write_shard(
        path,
        unit="u",
        spec=SPEC,
        keys=[],
        view_mask=np.zeros((0, 4), bool),
        pyramid=np.zeros((0, *SPEC.row_shape), np.float16),
    )
    assert not rewrite_shard(path, archived=True)
    assert Shard(path).pyramid.shape == (0, *SPEC.row_shape)


def test_plain_h5py_with_hdf5plugin_reads_it_and_its_checksums(tmp_path: Path) -> None:
    keys, pyramid, _ = make_cache(tmp_path, shards=1)
    large = FeatureSpec("resnet50", "w" * 64, TRANSFORM, (300, 500), 2, 4, "float16")
    make_cache(tmp_path / "large", shards=1, spec=large)
    size = (tmp_path / "large/shard-00000.h5").stat().st_size
    archive(tmp_path / "large")
    assert (tmp_path / "large/shard-00000.h5").stat().st_size < 0.7 * size
    archive(tmp_path)
    with h5py.File(tmp_path / "shard-00000.h5") as file:
        dataset = file["pyramid"]
        assert dataset.chunks == (1, *SPEC.row_shape)
        filters = dataset.id.get_create_plist()
        assert [filters.get_filter(i)[0] for i in range(filters.get_nfilters())] == [
            hdf5plugin.Bitshuffle.filter_id,
            h5py.h5z.FILTER_FLETCHER32,
        ]
        assert np.array_equal(dataset[()], pyramid)
        for row, key in enumerate(keys):
            assert row_checksum(key, file["view_mask"][row], dataset[row]) == file["checksum"][row]


def test_every_flipped_bit_of_the_compressed_rows_is_found(tmp_path: Path, campaign: Campaign) -> None:
    make_cache(tmp_path, shards=1)
    (path,) = archive(tmp_path)
    with h5py.File(path) as file:
        chunks = [file["pyramid"].id.get_chunk_info(row) for row in range(4)]
    sound = path.read_bytes()
    rng = np.random.default_rng(campaign.seed)
    for row, chunk in enumerate(chunks):
        for bit in rng.choice(chunk.size * 8, campaign.flips // 4, replace=False).tolist():
            damaged = bytearray(sound)
            damaged[chunk.byte_offset + bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(damaged)
            assert Shard(path).damaged_rows() == [row]


def test_a_flipped_bit_anywhere_in_the_file_is_found_or_changes_nothing(
    tmp_path: Path, campaign: Campaign
) -> None:
    keys, pyramid, mask = make_cache(tmp_path, shards=1, rows=40)
    (path,) = archive(tmp_path)
    sound = path.read_bytes()
    found = 0
    for bit in (
        np.random.default_rng(campaign.seed).choice(len(sound) * 8, campaign.flips, replace=False).tolist()
    ):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        try:
            shard = Shard(path)
            if shard.spec != SPEC or shard.damaged_rows():  # every reader compares the first with the index's
                found += 1
                continue
        except ShardError:
            found += 1
            continue
        # Its `unit` may be another: that only makes a resumed extract compute it again.
        assert shard.keys == keys, bit
        assert np.array_equal(shard.pyramid, pyramid), bit
        assert np.array_equal(shard.view_mask, mask), bit
    assert found > 0.7 * campaign.flips  # the rest is unused room between HDF5's parts


def test_a_damaged_row_is_one_sentence_to_who_reads_it_and_the_others_are_read(tmp_path: Path) -> None:
    keys, pyramid, _ = make_cache(tmp_path, shards=1)
    (path,) = archive(tmp_path)
    with h5py.File(path) as file:
        place = file["pyramid"].id.get_chunk_info(2).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[place + 20] ^= 1
    path.write_bytes(damaged)
    cache = FeatureCache(tmp_path)
    assert np.array_equal(cache.gather([keys[1], keys[3]])[0], pyramid[[1, 3]])
    with pytest.raises(ShardError, match=r"shard-00000\.h5 is damaged .*hmnet-pipe extract"):
        cache.gather([keys[2]])
    assert [damage.reason for damage in find_damage(tmp_path)] == [
        f"row 2 (image {keys[2]}) does not match its checksum"
    ]


def test_truncation_at_every_4_kb_is_found(tmp_path: Path) -> None:
    make_cache(tmp_path, shards=1, rows=300)
    (path,) = archive(tmp_path)
    sound = path.read_bytes()
    assert len(sound) > 10 * 4096
    for length in range(0, len(sound), 4096):
        path.write_bytes(sound[:length])
        for read in (Shard, check_shard):
            with pytest.raises(ShardError, match="damaged"):
                read(path)


@pytest.mark.parametrize("archived", [True, False])
def test_a_damaged_shard_is_not_rewritten_under_new_checksums(tmp_path: Path, archived: bool) -> None:
    make_cache(tmp_path, shards=1)
    path = tmp_path / "shard-00000.h5"
    if not archived:
        archive(tmp_path)
    with h5py.File(path) as file:
        dataset = file["pyramid"].id
        place = dataset.get_offset() if archived else dataset.get_chunk_info(0).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[place + 9] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(ShardError, match=r"row 0 does not match its checksum.*verify --fix"):
        rewrite_shard(path, archived=archived)
    assert path.read_bytes() == damaged
    assert not list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))


class _Rows(torch.utils.data.Dataset[np.ndarray]):
    def __init__(self, cache: FeatureCache, keys: list[str]) -> None:
        self.cache, self.keys = cache, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.cache.gather([self.keys[index]])[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers_read_an_archive_that_was_already_open(tmp_path: Path, method: str) -> None:
    keys, pyramid, _ = make_cache(tmp_path, shards=3, rows=20)
    archive(tmp_path)
    cache = FeatureCache(tmp_path)
    cache.gather(keys)
    loader = DataLoader(
        _Rows(cache, keys),
        batch_size=2,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context(method),
    )
    assert np.array_equal(torch.cat(list(loader)).numpy(), pyramid)
    assert np.array_equal(cache.gather(keys)[0], pyramid)


@pytest.mark.slow
@pytest.mark.parametrize("archived", [False, True])
def test_a_cache_of_more_shards_than_file_descriptors_is_read(tmp_path: Path, archived: bool) -> None:
    make_cache(tmp_path, shards=100, rows=1)
    if archived:
        archive(tmp_path)
    code = (
        "import resource, sys; from hmnet_pipe import FeatureCache;"
        " cache = FeatureCache(sys.argv[1]); cache.gather(list(cache)[:1]);"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)); print(cache.gather(list(cache))[0].shape[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "100\n"), done.stderr


@pytest.fixture(scope="module")
def corpus(demos: Demos) -> Path:
    return demos.corpus(sizes={"train": 16, "valid": 4, "test": 4})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """Return a run with features in shards of 5 images, without the image of one sample."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(corpus, folder / "corpus")
    min((folder / "corpus/images").iterdir()).unlink()
    run = begin(folder / "run", folder / "corpus", extract={"shard_rows": 5})
    for stage in ("prepare", "detect", "extract"):
        bring_up_to_date(run, stage)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))


def layouts(run: RunFolder) -> list[bool]:
    return [Shard(path).archived for path in sorted(run.features().glob("shard-*.h5"))]


@pytest.mark.slow
def test_an_archived_run_stays_fresh_and_sound_and_is_smaller(run: RunFolder) -> None:
    before = sum(path.stat().st_size for path in run.features().glob("*.h5"))
    done = hmnet("archive", run.path, "--json")
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout)["details"]["bytes"]
    assert sizes == {
        "before": before,
        "after": sum(path.stat().st_size for path in run.features().glob("*.h5")),
    }
    assert sizes["after"] < 0.7 * before
    assert all(layouts(run))
    assert [row.state for row in run_status(run).stages] == ["fresh"] * 3
    assert verify_run(run) == []
    assert {result.stage: result.verdict for result in rerun_run(run, 0.0, False, SILENT)}[
        "extract"
    ] == "equal"
    assert bring_up_to_date(run.path, "extract").state == "fresh"
    assert "nothing to do" in hmnet("archive", run.path).stdout
    done = hmnet("archive", run.path, "--restore")
    assert f"bytes: before {sizes['after']}, after {before}" in done.stdout
    assert not any(layouts(run))


def test_a_new_image_reuses_the_archived_rows(run: RunFolder, corpus: Path) -> None:
    archive_run(run)
    source = Path(RunConfig.read(run.config).of(PrepareSettings).text)
    own = Path(shutil.copytree(source, run.path.parent / "corpus"))
    shutil.copy(min((corpus / "images").iterdir()), own / "images")
    begin(run.path, own, extract={"shard_rows": 5})
    shards = len(layouts(run))
    images = len(FeatureCache(run.features()))
    bring_up_to_date(run.path, "prepare")
    bring_up_to_date(run.path, "detect")
    report = bring_up_to_date(run.path, "extract")
    assert (report.done, report.skipped) == (1, images)
    assert layouts(run) == [True] * shards + [False]
    assert find_damage(run.features()) == []


def test_training_on_an_archive_gives_the_same_model(
    run: RunFolder, tmp_path: Path, tiny_encoder: Path
) -> None:
    archived = RunFolder(Path(shutil.copytree(run.path, tmp_path / "archived")))
    archive_run(archived)
    for one in (run, archived):
        bring_up_to_date(one.path, "train", encoder=str(tiny_encoder), epochs=1, first_evaluation=1)
    models = [(model_of(one.path) / "model.safetensors").read_bytes() for one in (run, archived)]
    assert models[0] == models[1]


@pytest.mark.slow
def test_without_hdf5plugin_one_sentence_says_what_to_install_and_nothing_is_computed_again(
    run: RunFolder,
) -> None:
    (run.path.parent / "hdf5plugin.py").write_text("raise ModuleNotFoundError(__name__)")
    absent = {"PYTHONPATH": str(run.path.parent)}
    done = hmnet("archive", run.path, environment=absent)
    assert done.returncode == 2
    assert not any(layouts(run))
    archive_run(run)
    before = {path: path.stat().st_mtime_ns for path in run.features().iterdir()}
    said = [done.stderr]
    assert "up to date" in hmnet("extract", run.path, environment=absent).stdout
    said.append(hmnet("verify", run.path, "--fix", environment=absent).stderr)
    run.record("extract").unlink()
    said.append(hmnet("extract", run.path, "--workers", 1, environment=absent).stderr)
    for text in said:
        lines = [
            line for line in text.splitlines() if line.strip() and "image/s]" not in line
        ]  # a slow machine shows a progress bar
        assert len(lines) == 1, text
        assert lines[0].startswith("Error: ")
        assert lines[0].endswith("run `pip install 'hmnet-pipe[archive]'`")
    assert {path: path.stat().st_mtime_ns for path in run.features().iterdir()} == before


def test_a_running_extract_keeps_archive_out(run: RunFolder) -> None:
    from hmnet_pipe.pipeline.run.runner import locked

    with (
        locked(stage_of(run.path, "extract")),
        pytest.raises(StageError, match="is being run by process"),
    ):
        archive_run(run)
    assert not any(layouts(run))


def test_no_features_and_no_run_are_one_sentence(run: RunFolder, tmp_path: Path) -> None:
    shutil.rmtree(run.features())
    with pytest.raises(StageError, match="hmnet-pipe extract"):
        archive_run(run)
    with pytest.raises(StageError, match="hmnet-pipe prepare"):
        archive_run(RunFolder(tmp_path / "nowhere"))


@pytest.mark.slow
@pytest.mark.parametrize("restore", [False, True])
def test_killed_at_any_moment_every_shard_is_whole_and_the_same_command_goes_on(
    run: RunFolder, restore: bool
) -> None:
    shutil.rmtree(run.features())
    keys, pyramid, _ = make_cache(run.features(), shards=80, rows=4)
    if restore:
        archive_run(run)
    arguments = ["archive", run.path, *(["--restore"] if restore else [])]
    paths = sorted(run.features().glob("shard-*.h5"))
    before = {path: path.stat().st_ino for path in paths}
    interrupted = 0
    for moment in (2, 40):
        process = subprocess.Popen(
            hmnet_words(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while (
            process.poll() is None
            and sum(path.stat().st_ino != before[path] for path in paths[:moment]) < moment
        ):
            time.sleep(0.002)
        process.kill()
        process.wait()
        states = layouts(run)
        assert len(states) == 80
        interrupted += len(set(states)) == 2
        assert find_damage(run.features()) == []
        assert np.array_equal(FeatureCache(run.features()).gather(keys)[0], pyramid)
    assert interrupted == 2
    (run.features() / f"{TEMPORARY_PREFIX}1-{paths[0].name}").write_bytes(b"what a kill may leave")
    assert hmnet(*arguments).returncode == 0
    assert layouts(run) == [not restore] * 80
    assert not list(run.features().glob(f"{TEMPORARY_PREFIX}*"))


def test_help_says_what_is_read_and_written_with_an_example() -> None:
    text = hmnet("archive", "--help").stdout
    for word in ("Reads", "Writes", "Example: hmnet-pipe archive"):
        assert word in text
