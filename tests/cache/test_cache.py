"""The feature cache: what is written is read back, and whatever is damaged is found."""

import multiprocessing
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import torch
from hmnet_pipe.cache import shards
from hmnet_pipe.cache.reader import FeatureCache, IndexRow, read_index, write_index
from hmnet_pipe.cache.shards import Shard, ShardError, row_checksum, write_shard
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, STORAGE_DTYPES, FeatureSpec, Transform
from hmnet_pipe.manifests.errors import StageError
from torch.utils.data import DataLoader, Dataset

from ..running import Campaign

TRANSFORM = Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
SPEC = FeatureSpec("resnet50", "w" * 64, TRANSFORM, (3, 5), 2, 4, "float16")


def keys_of(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def values_of(count: int, spec: FeatureSpec = SPEC) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    pyramid = rng.normal(size=(count, *spec.row_shape)).astype(STORAGE_DTYPES[spec.dtype])
    return pyramid, rng.random((count, spec.views)) < 0.7


def write_cache(
    folder: Path, spec: FeatureSpec, keys: list[str], mask: np.ndarray, pyramid: np.ndarray, rows: int
) -> None:
    """Write a cache of these rows in shards of `rows` rows each."""
    index = []
    for start in range(0, len(keys), rows):
        part, name = slice(start, start + rows), f"shard-{start // rows:05d}.h5"
        checksums = write_shard(
            folder / name, unit="u", spec=spec, keys=keys[part], view_mask=mask[part], pyramid=pyramid[part]
        )
        index += [IndexRow(key, name, row, checksums[row], "i") for row, key in enumerate(keys[part])]
    write_index(folder, spec, index)


def make_cache(folder: Path, shards: int = 2, rows: int = 3) -> tuple[list[str], np.ndarray, np.ndarray]:
    keys = keys_of(shards * rows)
    pyramid, mask = values_of(len(keys))
    write_cache(folder, SPEC, keys, mask, pyramid, rows)
    return keys, pyramid, mask


def test_gathers_rows_by_key_from_several_shards_in_the_asked_order(tmp_path: Path) -> None:
    keys, pyramid, mask = make_cache(tmp_path)
    order = [5, 0, 3, 3]
    got, got_mask = FeatureCache(tmp_path).gather([keys[i] for i in order])
    assert np.array_equal(got, pyramid[order])
    assert np.array_equal(got_mask, mask[order])


def test_rows_of_a_cache_larger_than_memory_are_asked_for_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, pyramid, _ = make_cache(tmp_path)
    heard: list[tuple[int, int, str, int]] = []
    advise = shards._advise

    def noted(address: int, size: int, advice: str) -> int:
        heard.append((address, size, advice, advise(address, size, advice)))
        return heard[-1][3]

    monkeypatch.setattr(shards, "_advise", noted)
    FeatureCache(tmp_path).gather(keys)
    assert heard == []  # it fits
    machine = SimpleNamespace(total=2 * pyramid.nbytes - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    cache = FeatureCache(tmp_path)
    got, _ = cache.gather([keys[4], None, keys[1]])
    assert np.array_equal(got, [pyramid[4], np.zeros_like(pyramid[0]), pyramid[1]])
    rows = {name: opened[0] for name, opened in cache._shards.items()}
    of_row = pyramid[0].nbytes
    second, first = (rows[name][1].ctypes.data for name in ("shard-00001.h5", "shard-00000.h5"))
    assert [(at, size) for at, size, advice, _ in heard if advice == "MADV_WILLNEED"] == [
        (second, of_row),
        (first, of_row),
    ]
    assert [size for _, size, advice, _ in heard if advice == "MADV_RANDOM"] == [3 * of_row] * 2
    assert [result for *_, result in heard] == [0] * 4


def test_an_absent_image_is_zeros_that_no_mask_shows(tmp_path: Path) -> None:
    keys, pyramid, _ = make_cache(tmp_path)
    got, mask = FeatureCache(tmp_path).gather([None, "f" * 64, keys[0]])
    assert not got[:2].any()
    assert not mask[:2].any()
    assert np.array_equal(got[2], pyramid[0])


def test_a_batch_of_nothing_is_empty(tmp_path: Path) -> None:
    make_cache(tmp_path)
    got, mask = FeatureCache(tmp_path).gather([])
    assert got.shape == (0, *SPEC.row_shape)
    assert mask.shape == (0, SPEC.views)


def test_the_pyramid_is_contiguous_and_plain_h5py_reads_it(tmp_path: Path) -> None:
    keys, pyramid, mask = make_cache(tmp_path, shards=1)
    with h5py.File(tmp_path / "shard-00000.h5") as file:
        assert file["pyramid"].chunks is None
        assert file["pyramid"].id.get_offset() is not None
        assert np.array_equal(file["pyramid"][()], pyramid)
        assert np.array_equal(file["view_mask"][()], mask)
        assert [key.decode() for key in file["image_key"][()]] == keys


def test_large_features_are_aligned_and_those_of_earlier_shards_are_read_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FeatureSpec("resnet50", "w" * 64, TRANSFORM, (256, 512), 2, 4, "float16")
    keys = keys_of(8)
    pyramid, mask = values_of(len(keys), spec)
    offsets = []
    for name, aligned in (("now", shards._ALIGNED), ("before", {})):
        monkeypatch.setattr(shards, "_ALIGNED", aligned)
        write_cache(tmp_path / name, spec, keys, mask, pyramid, 8)
        assert np.array_equal(FeatureCache(tmp_path / name).gather(keys[::-1])[0], pyramid[::-1])
        with h5py.File(tmp_path / name / "shard-00000.h5") as file:
            offsets.append(file["pyramid"].id.get_offset() % 64)
    assert offsets[0] == 0 != offsets[1]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    make_cache(tmp_path / "a")
    make_cache(tmp_path / "b")
    assert (tmp_path / "a/shard-00001.h5").read_bytes() == (tmp_path / "b/shard-00001.h5").read_bytes()


def test_bfloat16_is_stored_as_bits_and_read_back_as_the_same_numbers(tmp_path: Path) -> None:
    spec = FeatureSpec("resnet50", "w" * 64, TRANSFORM, (3, 5), 2, 4, "bfloat16")
    numbers = torch.randn(1, *spec.row_shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    bits = numbers.view(torch.uint16).numpy()
    checksums = write_shard(
        tmp_path / "s.h5", unit="u", spec=spec, keys=keys_of(1), view_mask=np.ones((1, 4), bool), pyramid=bits
    )
    write_index(tmp_path, spec, [IndexRow(keys_of(1)[0], "s.h5", 0, checksums[0], "i")])
    got, _ = FeatureCache(tmp_path).gather(keys_of(1))
    assert torch.equal(torch.from_numpy(got), numbers.float())


def test_every_flipped_bit_of_the_data_region_is_found(tmp_path: Path, campaign: Campaign) -> None:
    path = tmp_path / "shard-00000.h5"
    make_cache(tmp_path, shards=1, rows=4)
    with h5py.File(path) as file:
        offset, size = file["pyramid"].id.get_offset(), file["pyramid"].id.get_storage_size()
    sound = path.read_bytes()
    rng = np.random.default_rng(campaign.seed)
    for bit in rng.choice(size * 8, campaign.flips, replace=False).tolist():
        damaged = bytearray(sound)
        damaged[offset + bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        assert Shard(path).damaged_rows() == [bit // 8 // (size // 4)]


def test_a_flipped_bit_of_mask_key_or_checksum_is_found(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.h5"
    make_cache(tmp_path, shards=1)
    sound = path.read_bytes()
    with h5py.File(path) as file:
        places = {name: file[name].id.get_offset() for name in ("view_mask", "image_key", "checksum")}
    for place in places.values():
        damaged = bytearray(sound)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert Shard(path).damaged_rows() == [0]


def test_truncation_at_every_4_kb_is_found(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.h5"
    pyramid, mask = values_of(300)
    write_shard(path, unit="u", spec=SPEC, keys=keys_of(300), view_mask=mask, pyramid=pyramid)
    sound = path.read_bytes()
    for length in range(0, len(sound), 4096):
        path.write_bytes(sound[:length])
        with pytest.raises(ShardError, match="damaged"):
            Shard(path)


def test_a_shard_without_its_completeness_mark_is_refused(tmp_path: Path) -> None:
    make_cache(tmp_path, shards=1)
    with h5py.File(tmp_path / "shard-00000.h5", "r+") as file:
        file.attrs["complete"] = False
    with pytest.raises(ShardError, match="not complete"):
        Shard(tmp_path / "shard-00000.h5")


def test_another_schema_version_is_named(tmp_path: Path) -> None:
    make_cache(tmp_path, shards=1)
    with h5py.File(tmp_path / "shard-00000.h5", "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(ShardError, match="schema version 99"):
        Shard(tmp_path / "shard-00000.h5")


def test_a_missing_shard_and_a_foreign_one_are_named(tmp_path: Path) -> None:
    keys, *_ = make_cache(tmp_path)
    other = FeatureSpec("resnet18", "w" * 64, TRANSFORM, (3, 5), 2, 4, "float16")
    pyramid, mask = values_of(3)
    write_shard(
        tmp_path / "shard-00000.h5", unit="u", spec=other, keys=keys[:3], view_mask=mask, pyramid=pyramid
    )
    with pytest.raises(ShardError, match=r"shard-00000.*another feature set"):
        FeatureCache(tmp_path).gather(keys[:1])
    (tmp_path / "shard-00000.h5").unlink()
    with pytest.raises(ShardError, match=r"shard-00000.*does not exist"):
        FeatureCache(tmp_path).gather(keys[:1])


def test_a_shard_with_rows_in_other_places_is_found_on_reading(tmp_path: Path) -> None:
    keys, pyramid, mask = make_cache(tmp_path, shards=1)
    write_shard(
        tmp_path / "shard-00000.h5", unit="u", spec=SPEC, keys=keys[::-1], view_mask=mask, pyramid=pyramid
    )
    with pytest.raises(ShardError, match="does not hold the images"):
        FeatureCache(tmp_path).gather([keys[0]])


def test_no_index_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="hmnet-pipe extract"):
        read_index(tmp_path)


def test_the_digest_does_not_depend_on_how_rows_are_dealt_to_shards(tmp_path: Path) -> None:
    make_cache(tmp_path / "a", shards=2, rows=3)
    make_cache(tmp_path / "b", shards=3, rows=2)
    assert FeatureCache(tmp_path / "a").digest() == FeatureCache(tmp_path / "b").digest()


def test_the_checksum_covers_key_mask_and_values() -> None:
    pyramid, mask = values_of(2)
    keys = keys_of(2)
    sums = {
        row_checksum(keys[0], mask[0], pyramid[0]),
        row_checksum(keys[1], mask[0], pyramid[0]),
        row_checksum(keys[0], ~mask[0], pyramid[0]),
        row_checksum(keys[0], mask[0], pyramid[1]),
    }
    assert len(sums) == 4


class _Rows(Dataset[Any]):
    def __init__(self, cache: FeatureCache, keys: list[str]) -> None:
        self.cache, self.keys = cache, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pyramid, mask = self.cache.gather([self.keys[index]])
        return pyramid[0], mask[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers_read_a_cache_that_was_already_open(tmp_path: Path, method: str) -> None:
    keys, pyramid, _ = make_cache(tmp_path)
    cache = FeatureCache(tmp_path)
    cache.gather(keys)  # its shards are open before the workers start
    context = multiprocessing.get_context(method)
    loader = DataLoader(_Rows(cache, keys), batch_size=2, num_workers=2, multiprocessing_context=context)
    got = torch.cat([values for values, _ in loader])
    assert np.array_equal(got.numpy(), pyramid)


def test_reading_needs_no_write_permission_and_no_lock(tmp_path: Path) -> None:
    keys, pyramid, _ = make_cache(tmp_path / "features")
    shutil.copytree(tmp_path / "features", tmp_path / "copy")
    for path in (tmp_path / "copy").iterdir():
        path.chmod(0o444)
    with h5py.File(tmp_path / "copy/shard-00000.h5", "r"):  # somebody else holds it open
        got, _ = FeatureCache(tmp_path / "copy").gather(keys)
    assert np.array_equal(got, pyramid)
