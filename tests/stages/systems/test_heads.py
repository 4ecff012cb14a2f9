"""The CRF of the heads reads its scores once a batch, and decodes what it decoded one by one."""

import pytest
import torch
from hmnet_pipe.stages.systems.heads import best_tags, bio_crf, likelihoods, tag_loss

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def emissions_of(texts: int, words: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random emissions of texts of several lengths, and their mask."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, words + 1, (texts,), generator=generator)
    mask = torch.arange(words)[None] < lengths.clamp(min=1)[:, None]
    return 4 * torch.randn(texts, words, len(TAGS), generator=generator), mask


@pytest.mark.parametrize("words", [1, 32])
def test_forbidden_transitions_are_computed_once_a_batch_whatever_the_length_of_its_texts(words: int) -> None:
    crf = bio_crf(TAGS)
    emissions, mask = emissions_of(8, words)
    calls: list[str] = []
    for name, parametrization in crf.parametrizations.items():
        parametrization[0].register_forward_hook(lambda *_, name=name: calls.append(name))
    for use in (
        lambda: best_tags(crf, emissions, mask),
        lambda: tag_loss(crf, emissions, torch.zeros(8, words, dtype=torch.long), mask),
    ):
        calls.clear()
        use()
        assert sorted(calls) == sorted(set(calls)), f"{len(calls)} computations of {set(calls)}"
        assert "start_transitions" in calls


def test_texts_decoded_together_have_the_tags_that_each_has_alone() -> None:
    torch.manual_seed(0)
    crf = bio_crf(TAGS)
    emissions, mask = emissions_of(16, 12)
    together = best_tags(crf, emissions, mask)
    alone = [crf.decode(emissions[i : i + 1, : mask[i].sum()])[0] for i in range(len(mask))]
    assert together == alone
    assert len({tag for path in together for tag in path}) == len(TAGS)


@pytest.mark.parametrize("words", [1, 2, 3, 11, 32])
def test_the_likelihood_by_few_operations_is_the_crfs_and_so_is_its_gradient(words: int) -> None:
    torch.manual_seed(0)
    crf = bio_crf(TAGS).double()
    emissions, mask = emissions_of(16, words)
    emissions = emissions.double().requires_grad_()
    labels = torch.randint(0, 2, (16, words))  # O and B-LOC: of all their sequences none is forbidden
    learning, weight = [emissions, *crf.parameters()], torch.randn(16, dtype=torch.float64)
    crfs = crf(emissions, labels, mask=mask, reduction="none")
    ours = likelihoods(crf, emissions, labels, mask)
    torch.testing.assert_close(ours, crfs, rtol=0, atol=1e-9)
    gradients = [
        torch.autograd.grad(weight @ likelihood, learning, materialize_grads=True)
        for likelihood in (ours, crfs)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_the_best_tags_are_the_crfs_among_equal_paths_too() -> None:
    torch.manual_seed(0)
    crf = bio_crf(TAGS)
    for parameter in crf.parameters():
        torch.nn.init.zeros_(parameter)
    for _ in range(20):
        emissions, mask = emissions_of(32, 9)
        emissions = torch.randint(0, 2, emissions.shape).float()  # many paths of one score
        assert best_tags(crf, emissions, mask) == crf.decode(emissions, mask=mask)
