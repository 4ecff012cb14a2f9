"""HBiLSTM-CRF: padding, words that are forgotten in training, and the bound of its emissions.

That the characters' states are those after the last and the first real one is in test_recurrent.
"""

from typing import Any

import torch
from hmnet_pipe.stages.text.vocabulary import UNKNOWN

from ...words import TEXTS, VOCABULARY, batch_of, system_on_words


def test_padded_words_and_characters_change_no_emission_of_a_real_word() -> None:
    model = system_on_words("hbilstm-crf")
    for wider, junk in ((0, 0), (3, 0), (3, 5)):
        got = model(batch_of(TEXTS, wider=wider, junk=junk))
        for b, text in enumerate(TEXTS):
            alone = model(batch_of([text]))[0]
            assert torch.allclose(got[b, : len(text)], alone, atol=1e-12)


def test_a_word_seen_once_is_unknown_half_of_the_time_in_training_and_never_in_evaluation() -> None:
    torch.manual_seed(0)
    table: Any = system_on_words("hbilstm-crf").encoder
    ids = {word: number for number, word in enumerate(VOCABULARY.words, 2)}
    once, often = torch.full((40, 50), ids["cat"]), torch.full((40, 50), ids["the"])
    unknown = table.vectors.weight[UNKNOWN]

    def share_unknown(words: torch.Tensor) -> float:
        return table(words).eq(unknown).all(-1).double().mean().item()

    assert share_unknown(once) == share_unknown(often) == 0
    table.train()
    assert 0.45 < share_unknown(once) < 0.55
    assert share_unknown(often) == 0


def test_emissions_are_bounded_by_the_weights_of_the_tags() -> None:
    model = system_on_words("hbilstm-crf")
    with torch.no_grad():
        for parameter in (*model.recurrent.parameters(), *model.hidden.parameters()):
            parameter.mul_(1000)
    emissions = model(batch_of(TEXTS[:1]))[0]
    bound = model.classifier.weight.abs().sum(1) + model.classifier.bias.abs()
    assert (emissions.abs() <= bound + 1e-12).all()
    assert model.states(batch_of(TEXTS[:1])).abs().max() > 0.999


def test_characters_keep_their_case() -> None:
    model = system_on_words("hbilstm-crf")
    lower, upper = (model.states(batch_of([[word]])) for word in ("red", "Red"))
    assert not torch.allclose(lower, upper, atol=1e-3)
