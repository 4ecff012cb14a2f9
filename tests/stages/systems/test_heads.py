"""The CRF of the heads reads its scores once a batch, and decodes what it decoded one by one."""

import pytest
import torch
from hmnet_pipe.stages.systems.heads import best_tags, bio_crf, tag_loss

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
