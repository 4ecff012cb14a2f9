"""oneDNN's fused convolutions in torch: the private operators, in one place, and a probe of them.

torch.compile calls these operators, but no release promises them to other callers. Callers ask `fault` first,
and use torch's own kernels where it reports one.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convolve", "convolve_into", "fault", "packed"]

# How far the probe lets the kernels differ from float64, as a share of the largest number.
_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}


def packed(weight: Tensor, shape: Sequence[Any], maps: Sequence[int]) -> Tensor:
    """Return a convolution's weight in an opaque layout for maps of the shape `maps`. Never save it.

    weight: by `to_mkldnn`. shape: padding, stride, dilation and groups.
    """
    import torch

    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    result: Tensor = reorder(weight, *shape, maps)
    return result


def convolve(
    maps: Tensor, weight: Tensor, bias: Tensor | None, shape: Sequence[Any], *, relu: bool
) -> Tensor:
    """Return conv(maps), or its ReLU, by one kernel. shape: see `packed`."""
    import torch

    kernel: Any = torch.ops.mkldnn._convolution_pointwise
    result: Tensor = kernel(maps, weight, bias, *shape, "relu" if relu else "none", [], "")
    return result


def convolve_into(
    added: Tensor, maps: Tensor, weight: Tensor, bias: Tensor | None, shape: Sequence[Any], *, relu: bool
) -> Tensor:
    """Return added + conv(maps), or its ReLU, by one kernel, in place of `added`. shape: see `packed`."""
    import torch

    kernel: Any = torch.ops.mkldnn._convolution_pointwise_.binary
    result: Tensor = kernel(added, maps, weight, bias, *shape, "add", 1.0, "relu" if relu else None, [], None)
    return result


def suits_processor() -> bool:
    """Return whether torch has these kernels for this processor and they are the faster ones on it."""
    import torch

    there = torch.backends.mkldnn.is_available()
    return bool(there) and platform.machine().lower() in ("x86_64", "amd64")


@lru_cache
def fault(precision: str) -> str | None:
    """Return why this process cannot compute with these operators at `precision`, or None where it can.

    Probed once per process, in a few milliseconds: every operator must exist and agree with a convolution in
    float64.
    """
    import torch

    if not suits_processor():
        return "this processor has none of oneDNN's convolutions"
    try:
        if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return "this processor has no oneDNN convolutions in bf16"
        off = _distance(torch.bfloat16 if precision == "bf16" else torch.float32)
    # An operator that is gone, or takes other arguments, raises whatever it likes.
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return f"torch {torch.__version__} has not the oneDNN operators that are used here ({reason})"
    if not off <= _TOLERANCE[precision]:
        return f"the oneDNN operators of torch {torch.__version__} give other numbers ({off:.2g} off)"
    return None


def _distance(dtype: Any) -> float:
    """Return how far the operators are from float64 on small maps, as a share of the largest number there."""
    import torch
    from torch.nn.functional import conv2d

    generator = torch.Generator().manual_seed(0)
    maps, added = (
        torch.randn(2, 16, 9, 9, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    weight = torch.randn(16, 16, 3, 3, generator=generator).to(dtype)
    bias = torch.randn(16, generator=generator).to(dtype)
    shape: list[Any] = [(1, 1), (1, 1), (1, 1), 1]
    with torch.inference_mode():
        exact = conv2d(maps.double(), weight.double(), bias.double(), padding=1)
        own = packed(weight.to_mkldnn(), shape, maps.shape)
        pairs = [
            (convolve(maps, own, bias, shape, relu=False), exact),
            (convolve(maps, own, bias, shape, relu=True), exact.relu()),
            (convolve_into(added.clone(), maps, own, bias, shape, relu=False), exact + added),
            (convolve_into(added.clone(), maps, own, bias, shape, relu=True), (exact + added).relu()),
        ]
        return max(float((one.double() - other).abs().max() / other.abs().max()) for one, other in pairs)
