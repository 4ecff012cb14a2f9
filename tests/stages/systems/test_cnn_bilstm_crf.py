"""CNN-BiLSTM-CRF: padding, unknown words, vectors of a file, and its CRF against every sequence."""

import numpy as np
import pytest
import torch
from hmnet_pipe.stages.text.vectors import Vectors
from torch import Tensor

from ... import oracle
from ...words import TAGS, TEXTS, VOCABULARY, batch_of, system_on_words


def test_padded_words_and_characters_change_no_emission_of_a_real_word() -> None:
    model = system_on_words("cnn-bilstm-crf")
    expected = model(batch_of(TEXTS))
    for wider, junk in ((3, 0), (3, 5)):
        got = model(batch_of(TEXTS, wider=wider, junk=junk))
        for b, text in enumerate(TEXTS):
            alone = model(batch_of([text]))[0]
            for other in (expected[b], got[b]):
                assert torch.allclose(other[: len(text)], alone, atol=1e-12)


@pytest.fixture
def three_words() -> tuple[Tensor, oracle.Chain, Tensor, list[list[str]]]:
    """Return emissions, chain, loss and prediction of a text of three words, whose tags are 3, 4 and 0."""
    model = system_on_words("cnn-bilstm-crf")
    with torch.no_grad():
        for parameter in model.crf.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(4))
        batch = batch_of([["Ada", "London", "sat"]], labels=[[3, 4, 0]])
        chain = oracle.Chain(
            *(
                getattr(model.crf, name).detach().numpy()
                for name in ("start_transitions", "transitions", "end_transitions")
            )
        )
        return model(batch)[0], chain, model.loss(batch), model.predict(batch)


def test_the_loss_is_that_of_every_sequence_of_tags(
    three_words: tuple[Tensor, oracle.Chain, Tensor, list[list[str]]],
) -> None:
    emissions, chain, loss, _ = three_words
    assert abs(loss.item() + oracle.log_likelihood((3, 4, 0), emissions.numpy(), chain, TAGS)) < 1e-9


def test_the_prediction_is_the_best_of_every_sequence_of_tags(
    three_words: tuple[Tensor, oracle.Chain, Tensor, list[list[str]]],
) -> None:
    emissions, chain, _, predicted = three_words
    assert predicted == [[TAGS[i] for i in oracle.best_path(emissions.numpy(), chain, TAGS)]]


def test_two_unknown_words_that_differ_in_one_character_differ() -> None:
    model = system_on_words("cnn-bilstm-crf")
    one, same, other = (model.states(batch_of([[word]])) for word in ("Lionlon", "Lionlon", "Lionlod"))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-3)


def test_the_lstm_remembers_at_first_and_matrices_are_glorots() -> None:
    model = system_on_words("cnn-bilstm-crf")
    for direction in ("", "_reverse"):
        biases = [getattr(model.recurrent.lstm, f"bias_{kind}_l0{direction}") for kind in ("ih", "hh")]
        gates = (biases[0] + biases[1]).view(4, -1)
        assert gates[1].eq(1).all()
        assert not gates[[0, 2, 3]].any()
    bound = (6 / (400 + len(TAGS))) ** 0.5
    assert 0.9 * bound < model.classifier.weight.abs().max() <= bound
    assert not model.classifier.bias.any()


def test_a_files_vectors_are_copied_and_other_words_are_drawn() -> None:
    rows = {"london": np.arange(8, dtype=np.float32), "the": np.full(8, 2, np.float32)}
    table = system_on_words("cnn-bilstm-crf", vectors=Vectors(8, rows)).encoder
    ids = {word: number for number, word in enumerate(VOCABULARY.words, 2)}
    weight = table.vectors.weight.detach()
    assert weight[ids["London"]].tolist() == rows["london"].tolist()
    assert weight[ids["the"]].tolist() == rows["the"].tolist()
    drawn = weight[[1, *(ids[word] for word in ids if word.lower() not in rows)]]
    assert drawn.abs().sum(1).gt(0).all()
    assert drawn.abs().max() <= (3 / 8) ** 0.5
    assert not weight[0].any()
