"""How sure a CRF is: the probability of a tag of a word, and of exactly one span with one type.

All by forward and backward sums over the label sequences (Lafferty et al. 2001; Culotta and McCallum 2004 for
spans), on the parameters of pytorch-crf, in float64 whatever the model's precision.

Symbols: B texts, T words, K tags. Scores are logarithms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchcrf import CRF

__all__ = ["Chain", "chain_of", "in_doubles", "span_types"]


@dataclass(frozen=True)
class Chain:
    """The forward and backward sums of a batch.

    emissions, forward, backward: (B, T, K). forward: of all beginnings that end with a tag at a word, its
    emission included. backward: of all continuations after a tag at a word. total: (B,), of all sequences.
    start, end: (K,). transitions: (K, K). mask: (B, T), true first.
    """

    emissions: Tensor
    start: Tensor
    transitions: Tensor
    end: Tensor
    mask: Tensor
    forward: Tensor
    backward: Tensor
    total: Tensor

    def tags(self) -> Tensor:
        """Return the probability of each tag of each word, (B, T, K); zero beyond a text's end."""
        found = (self.forward + self.backward - self.total[:, None, None]).exp()
        return torch.where(self.mask[..., None], found, 0.0)

    def at(self, temperature: float) -> "Chain":
        """Return the sums with all scores divided by `temperature` (Guo et al. 2017), here 1 before."""
        return _chain(
            self.emissions / temperature,
            self.start / temperature,
            self.transitions / temperature,
            self.end / temperature,
            self.mask,
        )

    def likelihoods(self, tags: Tensor) -> Tensor:
        """Return the logarithm of the probability of one label sequence of each text, (B,).

        tags: (B, T), any number beyond a text's end.
        """
        steps = self.emissions.gather(2, tags[..., None]).squeeze(2)  # shape: (B, T)
        steps[:, 1:] += self.transitions[tags[:, :-1], tags[:, 1:]]
        last = tags.gather(1, self.mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
        within = steps.where(self.mask, 0.0).sum(dim=1)
        return self.start[tags[:, 0]] + within + self.end[last] - self.total

    def spans(self, begin: int, inside: int | None) -> Tensor:
        """Return the probability of exactly each span of one type, (B, T, T); see `exactly`.

        Element [b, i, j] is that of the words i to j, both included. It is zero for j below i and beyond a
        text's end.
        """
        batch, words, _ = self.emissions.shape
        numbers = torch.arange(max(batch, words), device=self.total.device)
        first, last = numbers[None, :words, None], numbers[None, None, :words]
        found = self.exactly(begin, inside, numbers[:batch, None, None], first, last)
        within = self.mask[:, None, :] & self.mask[:, :, None]
        return torch.where((first <= last) & within, found, 0.0)

    def exactly(self, begin: int, inside: int | None, text: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Return the probability of exactly some spans of one type: their words first to last, both included.

        It is the sum over all sequences with `begin` at the first word, `inside` at the words after it up to
        the last, and no `inside` at the word after that. inside: None where the type has no tag of its own
        for later words. text, first, last: numbers of texts and of their words, tensors that broadcast.
        """
        lone = first == last
        # The word after the span has any tag but `inside`; after a text's last word there is none.
        ends = self._after(begin, inside)[text, last]
        within = self.total.new_zeros(())
        if inside is not None:
            entering = self.transitions[begin, inside] - self.transitions[inside, inside]
            within = torch.where(lone, 0.0, self._steps(inside, text, first, last) + entering)
            ends = torch.where(lone, ends, self._after(inside, inside)[text, last])
        found = (self.forward[text, first, begin] + within + ends - self.total[text]).exp()
        return found if inside is not None else torch.where(lone, found, 0.0)

    def throughout(self, tag: int, text: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Return the probability that the words first to last, both included, all have one tag.

        text, first, last: as in `exactly`.
        """
        steps = self._steps(tag, text, first, last)
        return (
            self.forward[text, first, tag] + steps + self.backward[text, last, tag] - self.total[text]
        ).exp()

    def _steps(self, tag: int, text: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Return the score of going on with a tag from the first to the last word."""
        sums = (self.emissions[:, :, tag] + self.transitions[tag, tag]).cumsum(dim=1)
        return sums[text, last] - sums[text, first]

    def _after(self, last: int, inside: int | None) -> Tensor:
        """Return the sum of all continuations after `last` at each word that do not go on inside, (B, T)."""
        step = self.transitions[last] + self.emissions + self.backward  # shape: (B, T, K)
        if inside is not None:
            step = step.index_fill(-1, torch.tensor([inside], device=step.device), -torch.inf)
        following = torch.cat([step[:, 1:].logsumexp(dim=-1), step.new_zeros(len(step), 1)], dim=1)
        final = self.mask & ~torch.cat([self.mask[:, 1:], torch.zeros_like(self.mask[:, :1])], dim=1)
        return torch.where(final, self.backward[..., last], following)


def in_doubles(scores: Tensor) -> Tensor:
    """Return scores in float64: on the CPU where their device has no such numbers."""
    return (scores.cpu() if scores.device.type == "mps" else scores).detach().double()


@torch.no_grad()
def chain_of(crf: CRF, emissions: Tensor, mask: Tensor, temperature: float = 1.0) -> Chain:
    """Return the sums of a batch under the CRF, all of whose scores are divided by `temperature`.

    emissions: (B, T, K). mask: (B, T) bool, true first.
    """
    parts = (emissions, crf.start_transitions, crf.transitions, crf.end_transitions)
    scores, start, transitions, end = (in_doubles(value) / temperature for value in parts)
    return _chain(scores, start, transitions, end, mask.to(scores.device))


def _chain(scores: Tensor, start: Tensor, transitions: Tensor, end: Tensor, mask: Tensor) -> Chain:
    forward = [start + scores[:, 0]]
    for word in range(1, scores.shape[1]):
        step = (forward[-1][:, :, None] + transitions).logsumexp(dim=1) + scores[:, word]
        forward.append(torch.where(mask[:, word, None], step, forward[-1]))
    backward = [end.expand_as(forward[0])]
    for word in range(scores.shape[1] - 1, 0, -1):
        step = (transitions + (scores[:, word] + backward[-1])[:, None, :]).logsumexp(dim=-1)
        backward.append(torch.where(mask[:, word, None], step, backward[-1]))
    total = (forward[-1] + end).logsumexp(dim=-1)
    sums = torch.stack(forward, dim=1), torch.stack(backward[::-1], dim=1), total
    return Chain(scores, start, transitions, end, mask, *sums)


def span_types(labels: Sequence[str]) -> dict[str, tuple[int, int | None]]:
    """Return the numbers of B-x and I-x of each type x of BIO tags; None where there is no I-x."""
    numbers = {label: number for number, label in enumerate(labels)}
    return {
        label[2:]: (number, numbers.get(f"I-{label[2:]}"))
        for label, number in numbers.items()
        if label.startswith("B-")
    }
