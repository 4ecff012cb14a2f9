"""The heads that systems share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torchcrf import CRF

__all__ = ["best_tags", "bio_crf", "tag_loss"]


class _Forbid(nn.Module):
    """A CRF's scores with the forbidden ones so low that no path through them is ever best or likely."""

    def __init__(self, allowed: Tensor) -> None:
        super().__init__()
        self.register_buffer("allowed", allowed, persistent=False)
        self.allowed: Tensor

    def forward(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(~self.allowed, -10_000.0)


def bio_crf(labels: Sequence[str]) -> CRF:
    """Return equation 10's CRF, over valid BIO sequences only, in training and in decoding.

    I-x may follow only B-x or I-x, and may not start a sequence: everything else has probability zero.
    """
    crf = CRF(len(labels), batch_first=True)

    def may_follow(before: str, after: str) -> bool:
        return not after.startswith("I-") or before in (f"B-{after[2:]}", after)

    transitions = torch.tensor([[may_follow(before, after) for after in labels] for before in labels])
    start = torch.tensor([not label.startswith("I-") for label in labels])
    parametrize.register_parametrization(crf, "transitions", _Forbid(transitions))
    parametrize.register_parametrization(crf, "start_transitions", _Forbid(start))
    return crf


def tag_loss(crf: CRF, emissions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of the tags of B texts (equation 10).

    emissions: (B, T, tags). labels, mask: (B, T).
    """
    with parametrize.cached():  # the CRF reads its transitions at every word
        likelihood: Tensor = crf(emissions, labels, mask=mask, reduction="mean")
    return -likelihood


def best_tags(crf: CRF, emissions: Tensor, mask: Tensor) -> list[list[int]]:
    """Return the numbers of the most likely tags of each of B texts.

    emissions: (B, T, tags). mask: (B, T).
    """
    with parametrize.cached():  # as in `tag_loss`
        paths: list[list[int]] = crf.decode(emissions, mask=mask)
    return paths
