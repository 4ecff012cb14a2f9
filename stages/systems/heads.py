"""The heads that systems share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torchcrf import CRF

__all__ = ["best_tags", "bio_crf", "likelihoods", "tag_loss"]

_IMPOSSIBLE = -10_000.0  # the score of what no best or likely path has in it


class _Forbid(nn.Module):
    """A CRF's scores with the forbidden ones so low that no path through them is ever best or likely."""

    def __init__(self, allowed: Tensor) -> None:
        super().__init__()
        self.register_buffer("allowed", allowed, persistent=False)
        self.allowed: Tensor

    def forward(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(~self.allowed, _IMPOSSIBLE)


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
        likelihood: Tensor
        if emissions.device.type == "cpu":
            likelihood = crf(emissions, labels, mask=mask, reduction="mean")
        else:
            likelihood = likelihoods(crf, emissions, labels, mask).mean()
    return -likelihood


def likelihoods(crf: CRF, emissions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the log-likelihood of the tags of each text, (B,), by few operations on many numbers.

    That is what a GPU needs: the CRF itself takes some operations a word, and waits for the device to check
    its arguments. emissions: (B, T, tags). labels, mask: (B, T).
    """
    tags = torch.arange(emissions.shape[-1], device=emissions.device)
    chosen = labels[..., None] == tags  # shape: (B, T, tags)
    first = crf.start_transitions + emissions[:, 0]  # shape: (B, tags)
    # The score of a step from one tag to the next. shape: (B, T - 1, tags, tags)
    steps = crf.transitions + emissions[:, 1:, None, :]
    taken = chosen[:, :-1, :, None] & chosen[:, 1:, None, :] & mask[:, 1:, None, None]
    last = chosen & mask[..., None]
    last[:, :-1] &= ~mask[:, 1:, None]
    score = (
        first.where(chosen[:, 0], 0).sum(dim=-1)
        + steps.where(taken, 0).sum(dim=(1, 2, 3))
        + crf.end_transitions.where(last.any(dim=1), 0).sum(dim=-1)
    )
    # Beyond its end a text stays at its tag. Neighbouring steps join to one, and so on until one is left.
    stay = torch.full_like(crf.transitions, _IMPOSSIBLE).fill_diagonal_(0)
    steps = steps.where(mask[:, 1:, None, None], stay)
    while (count := steps.shape[1]) > 1:
        pairs = steps[:, : count // 2 * 2].unflatten(1, (-1, 2))
        joined = (pairs[:, :, 0, :, :, None] + pairs[:, :, 1, None, :, :]).logsumexp(dim=-2)
        steps = torch.cat([joined, steps[:, count // 2 * 2 :]], dim=1)
    if count:
        first = (first[:, :, None] + steps[:, 0]).logsumexp(dim=1)
    likelihood: Tensor = score - (first + crf.end_transitions).logsumexp(dim=-1)
    return likelihood


def best_tags(crf: CRF, emissions: Tensor, mask: Tensor) -> list[list[int]]:
    """Return the numbers of the most likely tags of each of B texts: the CRF's own, read once a batch.

    Computed on the processor wherever the emissions are: sums and comparisons of the same numbers are the
    same there, and starting some operations a word costs a GPU more time than it computes.
    emissions: (B, T, tags). mask: (B, T).
    """
    parts = (emissions, mask, crf.start_transitions, crf.transitions, crf.end_transitions)
    emissions, mask, start, transitions, end = (each.cpu() for each in parts)
    steps: list[Tensor] = []
    score = start + emissions[:, 0]  # shape: (B, tags)
    for word in range(1, emissions.shape[1]):
        # In the CRF's own order, so that equal paths stay apart as it does.
        scores = score[:, :, None] + transitions + emissions[:, word, None, :]
        best, before = scores.max(dim=1)  # shape: (B, tags), twice
        inside = mask[:, word, None]
        score = torch.where(inside, best, score)
        # Beyond its end a text stays at its tag.
        steps.append(torch.where(inside, before, torch.arange(before.shape[1])))
    path = [(score + end).argmax(dim=1, keepdim=True)]  # shape: (B, 1)
    for before in reversed(steps):
        path.append(before.gather(1, path[-1]))
    tags, lengths = torch.cat(path[::-1], dim=1), mask.sum(dim=1, keepdim=True)
    found: list[list[int]] = torch.cat([tags, lengths], dim=1).tolist()
    return [each[: each[-1]] for each in found]
