"""Which parameters learn at which rate: appendix B's AdamW, warm-up and linear decay, and those of other
recipes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..systems.system import Model
from .recipe import TrainSettings

__all__ = ["describe_groups", "make_optimizer", "make_schedule", "parameter_groups"]


def parameter_groups(model: Model, rates: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
    """Return optimizer groups: each part of the model with decay, and without it.

    Biases and the weights of LayerNorm and BatchNorm do not decay. rates: the learning rate of each part that
    the model names. Every trainable parameter is in exactly one group: a head in no group would silently stay
    random.
    """
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    normalisers = (
        module
        for module in model.modules()
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d))
    )
    norms = {id(p) for module in normalisers for p in module.parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = not (name.endswith("bias") or id(parameter) in norms)
        members.setdefault((model.part_of(name), decays), []).append(parameter)
    grouped = [id(p) for group in members.values() for p in group]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable), "a trainable parameter is in no optimizer group, or in two"
    return [
        {
            "name": part if decays else f"{part}, no decay",
            "params": group,
            "lr": rates[part],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (part, decays), group in members.items()
    ]


def make_optimizer(groups: list[dict[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe on groups made by `parameter_groups`.

    Adam and SGD add the weight decay to the gradient, AdamW to the parameter.
    """
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, fused=fused)
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, fused=fused)
    return torch.optim.AdamW(groups, fused=fused)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, updates: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a linear warm-up over the first share `settings.warmup` of the updates, then a fall.

    The fall is linear to zero at the last update, or by finished epochs e: 1 / (1 + decay e) or
    (1 - decay)^floor(e / step_epochs). A rate follows from the number of updates alone, so that a resumed
    training goes on exactly.
    """
    warmup = max(1, round(settings.warmup * updates))
    per_epoch = max(1, updates // settings.epochs)

    def linear(step: int) -> float:
        return max(0.0, (updates - step) / max(1, updates - warmup))

    def inverse(step: int) -> float:
        return 1 / (1 + settings.decay * (step // per_epoch))

    def steps(step: int) -> float:
        return float((1 - settings.decay) ** (step // per_epoch // settings.step_epochs))

    fall = {"linear": linear, "inverse": inverse, "step": steps}[settings.schedule]

    def factor(step: int) -> float:
        rise = (step + 1) / warmup
        # The linear fall starts at the end of the warm-up, above 1 before it; the others fall all along.
        return min(rise, fall(step)) if settings.schedule == "linear" else min(rise, 1.0) * fall(step)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def describe_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return what each group holds and how it learns, for metrics.json."""
    return [
        {
            "name": group["name"],
            "tensors": len(group["params"]),
            "parameters": sum(p.numel() for p in group["params"]),
            "learning_rate": group["initial_lr"],
            "weight_decay": group["weight_decay"],
        }
        for group in optimizer.param_groups
    ]
