"""What a feature set's spec says, and that caches whose spec was written as it was before are read as what
they are."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from hmnet_pipe.cache.reader import FeatureCache, IndexRow, write_index
from hmnet_pipe.cache.shards import Shard, write_shard
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, FeatureSpec, Transform
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.manifests.fingerprint import digest_json

TRANSFORM = Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
SPEC = FeatureSpec("resnet50", "w" * 64, TRANSFORM, (3, 5), 2, 4, "float16", precision="bf16")
KEY = "0" * 64

# The text that versions before this one wrote into shards and index.
BEFORE = json.dumps(
    {
        "backbone": "resnet50",
        "dtype": "float16",
        "levels": [3, 5],
        "pooled": 2,
        "transform": "PIL bilinear, plain resize to 224x224; scaled to 0..1; "
        "ImageNet mean and standard deviation",
        "views": 4,
        "weights": "w" * 64,
    },
    sort_keys=True,
)


def make_cache(folder: Path) -> None:
    values = np.arange(np.prod(SPEC.row_shape), dtype=np.float16).reshape(1, *SPEC.row_shape)
    checksums = write_shard(
        folder / "shard-00000.h5",
        unit="u",
        spec=SPEC,
        keys=[KEY],
        view_mask=np.ones((1, 4), bool),
        pyramid=values,
    )
    write_index(folder, SPEC, [IndexRow(KEY, "shard-00000.h5", 0, checksums[0], "i")])


def write_spec(folder: Path, text: str) -> None:
    """Put `text` where the shard and the index of `make_cache` have their spec."""
    with h5py.File(folder / "shard-00000.h5", "r+") as file:
        file.attrs["spec"] = text
    index = pq.read_table(folder / "index.parquet")
    pq.write_table(index.replace_schema_metadata({"spec": text}), folder / "index.parquet")


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, numbers=(2, 4), regions="objects", views=3),
        replace(
            SPEC, transform=Transform(96, (0.5, 0.25, 0.5), (1.0, 1.0, 0.5), "bicubic"), dtype="bfloat16"
        ),
    ],
)
def test_a_spec_is_read_back_as_it_was_written(spec: FeatureSpec) -> None:
    again = FeatureSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.precision == spec.precision
    assert hash(again) == hash(spec)
    assert (
        FeatureSpec.from_json(json.loads(json.dumps(spec.identity))) == spec
    )  # as a model's config.json has it


def test_a_cache_of_before_is_read_with_the_same_spec_digest_and_values(tmp_path: Path) -> None:
    make_cache(tmp_path)
    now = FeatureCache(tmp_path)
    values, digest = now.gather([KEY])[0], now.digest()
    write_spec(tmp_path, BEFORE)
    before = FeatureCache(tmp_path)
    assert before.spec == SPEC
    assert before.spec.precision == ""
    assert before.spec.transform == TRANSFORM
    assert Shard(tmp_path / "shard-00000.h5").spec == SPEC
    assert np.array_equal(before.gather([KEY])[0], values)
    assert before.digest() == digest
    checksum = int(Shard(tmp_path / "shard-00000.h5").checksums[0])
    assert digest == digest_json([BEFORE, [[KEY, checksum]]])  # the rule of before, written out


def test_a_transform_that_no_version_wrote_is_refused(tmp_path: Path) -> None:
    make_cache(tmp_path)
    for sentence in ("as is", json.loads(BEFORE)["transform"] + "!"):
        write_spec(tmp_path, json.dumps({**json.loads(BEFORE), "transform": sentence}))
        with pytest.raises(StageError, match=r"its transform .* is not known"):
            FeatureCache(tmp_path)


def test_whatever_changes_the_numbers_changes_the_identity() -> None:
    others = [
        SPEC,
        replace(SPEC, numbers=(1, 3)),
        replace(SPEC, regions="image", views=1),
        replace(SPEC, views=1),
        replace(SPEC, pooled=1),
        replace(SPEC, weights="v" * 64),
        replace(SPEC, dtype="float32"),
        replace(SPEC, levels=(3, 6)),
        replace(SPEC, backbone="resnet101"),
        *(
            replace(SPEC, transform=replace(TRANSFORM, **change))
            for change in (
                {"size": 225},
                {"mean": (0.5, 0.5, 0.5)},
                {"std": (0.5, 0.5, 0.5)},
                {"interpolation": "bicubic"},
            )
        ),
    ]
    digests = {
        hashlib.sha256(json.dumps(one.identity, sort_keys=True).encode()).hexdigest() for one in others
    }
    assert len(digests) == len(others) == len(set(others))
    assert replace(SPEC, precision="fp32").identity == SPEC.identity
