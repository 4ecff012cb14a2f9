"""The probe of torch's private oneDNN operators: where one is gone or gives other numbers, torch's own
kernels compute."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.cache.shards import Shard
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, IMAGES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.stages.base import onednn
from hmnet_pipe.stages.base.arithmetic import Arithmetic
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.extract.settings import ExtractSettings
from hmnet_pipe.stages.extract.stage import Extract
from PIL import Image

pytestmark = pytest.mark.skipif(
    onednn.fault("fp32") is not None, reason="this processor's convolutions are torch's own"
)


@pytest.fixture(autouse=True)
def probed_anew() -> Iterator[None]:
    """Probe the operators anew for each test, and again for the tests after it."""
    onednn.fault.cache_clear()
    yield
    onednn.fault.cache_clear()


def remove_packing(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")


def scale(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let an operator of torch.ops.mkldnn, and its overload `binary`, return numbers 1% too large."""
    true: Any = getattr(torch.ops.mkldnn, name)

    class Scaled:
        def __call__(self, *arguments: Any) -> Any:
            return true(*arguments) * 1.01

        def binary(self, *arguments: Any) -> Any:
            return true.binary(*arguments).mul_(1.01)

    patch.setattr(torch.ops.mkldnn, name, Scaled())


def change_arguments(patch: pytest.MonkeyPatch) -> None:
    """Let an operator take no arguments that it takes today."""
    patch.setattr(torch.ops.mkldnn, "_convolution_pointwise", lambda: None)


FAULTS = {
    "packing is gone": (remove_packing, "has not the oneDNN operators"),
    "other arguments": (change_arguments, "has not the oneDNN operators"),
    "other numbers": (lambda patch: scale(patch, "_convolution_pointwise"), "give other numbers"),
    "other sums": (lambda patch: scale(patch, "_convolution_pointwise_"), "give other numbers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_operator_that_is_gone_or_wrong_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Arithmetic.of("cpu", "fp32") == Arithmetic("cpu", "fp32", "onednn")
    assert Arithmetic.of("cpu", "fp32").remark is None
    break_it, reason = FAULTS[fault]
    onednn.fault.cache_clear()
    break_it(monkeypatch)
    arithmetic = Arithmetic.of("cpu", "fp32")
    assert arithmetic == Arithmetic("cpu", "fp32", "torch")
    assert arithmetic.identity == {"precision": "fp32", "kernels": "torch"}
    assert reason in str(arithmetic.remark)
    with pytest.raises(InputError, match="cannot compute in fp32 with oneDNN"):
        replace(arithmetic, kernels="onednn").check()


@pytest.mark.parametrize("fault", ["packing is gone", "other numbers"])
def test_extraction_then_computes_with_torchs_own_kernels_and_says_so(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    Image.effect_noise((90, 70), 80).convert("RGB").save(image)
    key = hashlib.sha256(image.read_bytes()).hexdigest()
    run = RunFolder(tmp_path)
    (tmp_path / "stages").mkdir()
    row = {"key": key, "path": str(image), "width": 90, "height": 70, "status": "ok"}
    write_table(run.images, table_of(IMAGES, [row]))
    write_table(run.detections, table_of(DETECTIONS, ()))
    stage = Extract(
        run, ExtractSettings("demo_resnet", size=64, dtype="float32", precision="fp32", device="cpu"), 1
    )
    found: list[np.ndarray[Any, Any]] = []
    said: list[str] = []
    for broken in (False, True):
        if broken:
            onednn.fault.cache_clear()
            FAULTS[fault][0](monkeypatch)
        stage.compute(stage.causes(), Tools(say=said.append))
        (shard,) = sorted(tmp_path.rglob("shard-*.h5"))
        found.append(np.array(Shard(shard).pyramid))
        shard.unlink()
        (shard.parent / "index.parquet").unlink()
        assert len(said) == broken
    assert "torch's own kernels" in said[0]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)
    assert found[0].any()


def test_the_probe_is_cheap_and_done_once() -> None:
    started = time.perf_counter()
    onednn.fault("fp32")
    assert time.perf_counter() - started < 1.0
    onednn.fault("fp32")
    assert onednn.fault.cache_info().hits == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_operators_lie_well_within_the_probes_tolerance(precision: str) -> None:
    """So that no sound processor is turned away."""
    if onednn.fault(precision) is not None:
        pytest.skip("no bf16 convolutions here, not even slow ones")
    off = onednn._distance(torch.bfloat16 if precision == "bf16" else torch.float32)
    assert 0 < off < onednn._TOLERANCE[precision] / 4
