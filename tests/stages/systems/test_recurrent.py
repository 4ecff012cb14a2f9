"""Words and characters by LSTMs and convolutions: against their equations, with padding and without."""

import numpy as np
import pytest
import torch
from hmnet_pipe.stages.base.arithmetic import autocast
from hmnet_pipe.stages.systems.recurrent import (
    BiLSTM,
    CharBiLSTM,
    CharCNN,
    CharEncoder,
    glorot_,
    run_padded,
)
from torch import Tensor, nn

CHARACTERS = torch.tensor(
    [[[2, 3, 4, 5], [6, 0, 0, 0], [3, 3, 0, 0]], [[4, 5, 6, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]
)
MASK = torch.tensor([[True, True, True], [True, False, False]])


def sigma(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_in_a_loop(lstm: nn.LSTM, states: np.ndarray, direction: str = "") -> list[np.ndarray]:
    """Return the state after each step over states (W, d): Hochreiter and Schmidhuber, with a forget gate."""
    weight = {name: value.detach().numpy() for name, value in lstm.named_parameters()}
    units = lstm.hidden_size
    h = c = np.zeros(units)
    found = []
    for x in states:
        gates = (
            weight[f"weight_ih_l0{direction}"] @ x
            + weight[f"bias_ih_l0{direction}"]
            + weight[f"weight_hh_l0{direction}"] @ h
            + weight[f"bias_hh_l0{direction}"]
        )
        i, f, g, o = (gates[k * units : (k + 1) * units] for k in range(4))
        c = sigma(f) * c + sigma(i) * np.tanh(g)
        h = sigma(o) * np.tanh(c)
        found.append(h)
    return found


def test_a_bilstm_reads_the_real_words_of_each_text_in_both_directions_and_is_zero_elsewhere() -> None:
    torch.manual_seed(0)
    layer = BiLSTM(4, 3).double()
    states = torch.randn(2, 3, 4, dtype=torch.float64)
    got = layer(states, MASK).detach().numpy()
    expected = np.zeros((2, 3, 6))
    for b, length in ((0, 3), (1, 1)):
        words = states[b, :length].numpy()
        expected[b, :length, :3] = lstm_in_a_loop(layer.lstm, words)
        expected[b, :length, 3:] = lstm_in_a_loop(layer.lstm, words[::-1], "_reverse")[::-1]
    assert np.abs(got - expected).max() < 1e-12
    assert not got[1, 1:].any()


def test_a_char_bilstm_takes_the_states_after_the_last_and_after_the_first_real_character() -> None:
    torch.manual_seed(0)
    layer = CharBiLSTM(7, dim=5, units=3).double()
    got = layer(CHARACTERS, MASK).detach().numpy()
    for b, w in MASK.nonzero().tolist():
        word = CHARACTERS[b, w][CHARACTERS[b, w] > 0]
        letters = layer.vectors(word).detach().numpy()
        forward = lstm_in_a_loop(layer.lstm, letters)[-1]
        backward = lstm_in_a_loop(layer.lstm, letters[::-1], "_reverse")[-1]
        assert np.abs(got[b, w] - np.concatenate([forward, backward])).max() < 1e-12
    assert not got[1, 1:].any()


def test_a_char_cnn_is_the_largest_value_of_each_filter_over_the_real_characters() -> None:
    torch.manual_seed(0)
    layer = CharCNN(7, dim=5, filters=4).double().eval()
    got = layer(CHARACTERS, MASK).detach().numpy()
    weight = layer.convolution.weight.detach().numpy()  # shape: (filters, dim, 3)
    layer.convolution.bias.data.normal_()
    got = layer(CHARACTERS, MASK).detach().numpy()
    bias = layer.convolution.bias.detach().numpy()
    for b, w in MASK.nonzero().tolist():
        word = CHARACTERS[b, w][CHARACTERS[b, w] > 0]
        letters = [np.zeros(5), *layer.vectors(word).detach().numpy(), np.zeros(5)]
        values = [
            bias + sum(weight[:, :, k] @ letters[place + k] for k in range(3)) for place in range(len(word))
        ]
        assert np.abs(got[b, w] - np.max(values, axis=0)).max() < 1e-12
    assert not got[1, 1:].any()


@pytest.mark.parametrize("layer", [CharCNN(7), CharBiLSTM(7)])
def test_a_words_vector_is_the_same_beside_longer_words_and_longer_texts(layer: CharEncoder) -> None:
    layer.eval()
    alone = layer(torch.tensor([[[3, 4, 5]]]), torch.tensor([[True]]))[0, 0]
    characters = torch.zeros(2, 4, 9, dtype=torch.long)
    characters[0, 2, :3] = torch.tensor([3, 4, 5])
    characters[0, :2] = characters[0, 3] = characters[1] = 6
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    assert torch.allclose(layer(characters, mask)[0, 2], alone, atol=1e-6)
    assert not torch.allclose(layer(characters, mask)[0, 1], alone, atol=1e-3)


@pytest.mark.parametrize("layer", [CharCNN(7, dropout=0.0), CharBiLSTM(7)])
def test_the_vector_of_padding_is_zero_and_never_learns(layer: CharEncoder) -> None:
    assert not layer.vectors.weight[0].any()
    layer(CHARACTERS, MASK).square().sum().backward()
    assert not layer.vectors.weight.grad[0].any()
    assert layer.vectors.weight.grad[2:].abs().sum(1).gt(0).all()


def test_an_lstm_starts_with_glorots_matrices_and_remembers_by_default() -> None:
    torch.manual_seed(0)
    lstm = BiLSTM(30, 20).lstm
    for direction in ("", "_reverse"):
        values = dict(lstm.named_parameters())
        both = values[f"bias_ih_l0{direction}"] + values[f"bias_hh_l0{direction}"]
        assert torch.equal(both, torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(20))
        for kind, columns in (("ih", 30), ("hh", 20)):
            bound = (6 / (20 + columns)) ** 0.5
            for gate in values[f"weight_{kind}_l0{direction}"].split(20):
                assert 0.9 * bound < gate.abs().max() <= bound
    linear = glorot_(nn.Linear(40, 20))
    assert 0.9 * (6 / 60) ** 0.5 < linear.weight.abs().max() <= (6 / 60) ** 0.5
    assert not linear.bias.any()


def test_recurrences_stay_in_fp32_where_the_rest_is_in_bf16() -> None:
    torch.manual_seed(0)
    layer, states = BiLSTM(4, 3), torch.randn(2, 3, 4)
    mixed: Tensor
    with autocast(torch.device("cpu"), "bf16"):
        mixed = layer(states, MASK)
        rounded = layer(states.bfloat16(), MASK)
    assert torch.equal(mixed, layer(states, MASK))
    assert mixed.dtype == rounded.dtype == torch.float32


def test_a_gpus_way_of_running_an_lstm_over_padded_words_is_that_of_the_packed_ones() -> None:
    torch.manual_seed(0)
    layer = BiLSTM(4, 3).double()
    mask = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    states = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, 6, dtype=torch.float64)
    learning = [states, *layer.parameters()]
    ours, ends = run_padded(layer.lstm, states, mask)
    packed = layer(states, mask)
    torch.testing.assert_close(ours, packed, rtol=0, atol=1e-12)
    for b, length in enumerate((3, 1, 2)):
        expected = torch.cat([packed[b, length - 1, :3], packed[b, 0, 3:]])
        torch.testing.assert_close(ends[b], expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((made * weight).sum(), learning) for made in (ours, packed)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
