"""Words and their characters by convolutions and LSTMs, for systems without a pretrained encoder.

Padding influences nothing: recurrences are over the real words or characters alone, and maxima too.
"""

from abc import abstractmethod
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

__all__ = ["BiLSTM", "CharBiLSTM", "CharCNN", "CharEncoder", "glorot_", "run_padded"]


@torch.no_grad()
def glorot_(module: nn.Module) -> nn.Module:
    """Draw the matrices of a module from U(-sqrt(6/(rows + columns)), ...), and set its biases to 0.

    An LSTM's are one matrix a gate, and the bias of its forget gate is 1 (Glorot and Bengio 2010; Ma and Hovy
    2016, section 3.2): that is the sum of the two biases that PyTorch has for a gate. Vectors of embeddings
    stay as they are.
    """
    for part in module.modules():
        if isinstance(part, nn.LSTM):
            units = part.hidden_size
            for name, value in part.named_parameters():
                if name.startswith("weight"):
                    for gate in value.split(units):
                        nn.init.xavier_uniform_(gate)
                else:
                    value.zero_()
                    if name.startswith("bias_ih"):
                        value[units : 2 * units] = 1
        elif isinstance(part, nn.Linear | nn.Conv1d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                part.bias.zero_()
    return module


class BiLSTM(nn.Module):
    """One bidirectional LSTM over the real words of a text, `units` in each direction."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, units, batch_first=True, bidirectional=True)
        glorot_(self.lstm)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the states of both directions at each word, (B, W, 2 units), zero at padded words.

        states: (B, W, width). mask: (B, W), at least one word a text, which padding follows.
        """
        if states.device.type != "cpu":
            return run_padded(self.lstm, states, mask)[0]
        output, _ = _run(self.lstm, states, mask.sum(dim=1))
        padded, _ = pad_packed_sequence(output, batch_first=True, total_length=mask.shape[1])
        return padded


class CharEncoder(nn.Module):
    """What makes a vector of a word's characters.

    size: the ids of characters, 0 for padding. dim: features of a character, drawn from U(-sqrt(3/dim), ...).
    dropout: on the characters' vectors.
    """

    width: int

    def __init__(self, size: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.vectors = nn.Embedding(size, dim, padding_idx=0)
        with torch.no_grad():
            self.vectors.weight.uniform_(-((3 / dim) ** 0.5), (3 / dim) ** 0.5)[0] = 0
        self.dropout = nn.Dropout(dropout)

    def forward(self, characters: Tensor, mask: Tensor) -> Tensor:
        """Return the vector of each word, (B, W, width), zero for padded words.

        characters: (B, W, c) ids, each real word's from the left. mask: (B, W).
        """
        if characters.device.type != "cpu":  # how many words are real, a GPU would have to be asked
            letters = characters.flatten(0, 1)
            every = self.words(self.dropout(self.vectors(letters)), letters != 0)
            found: Tensor = every.unflatten(0, mask.shape).masked_fill(~mask[..., None], 0)
            return found
        real = characters[mask]  # shape: (N, c), without padded words
        words = self.words(self.dropout(self.vectors(real)), real != 0)  # shape: (N, width)
        return words.new_zeros(*mask.shape, self.width).masked_scatter(mask[..., None], words)

    @abstractmethod
    def words(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return the vector of each of N words, (N, width), of those of its characters, (N, c, dim)."""


class CharCNN(CharEncoder):
    """The largest value of each filter over a word's characters (Ma and Hovy 2016, section 2.1)."""

    def __init__(self, size: int, dim: int = 30, filters: int = 30, dropout: float = 0.5) -> None:
        super().__init__(size, dim, dropout)
        self.width = filters
        self.convolution = nn.Conv1d(dim, filters, kernel_size=3, padding=1)
        glorot_(self.convolution)

    def words(self, vectors: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.convolution(vectors.transpose(1, 2))  # shape: (N, filters, c)
        return found.masked_fill(~mask[:, None], float("-inf")).amax(dim=2)


class CharBiLSTM(CharEncoder):
    """The final states of both directions: after a word's last character, and after its first.

    Lample et al. 2016, section 4.1.
    """

    def __init__(self, size: int, dim: int = 25, units: int = 25, dropout: float = 0.0) -> None:
        super().__init__(size, dim, dropout)
        self.width = 2 * units
        self.lstm = nn.LSTM(dim, units, batch_first=True, bidirectional=True)
        glorot_(self.lstm)

    def words(self, vectors: Tensor, mask: Tensor) -> Tensor:
        if vectors.device.type != "cpu":
            return run_padded(self.lstm, vectors, mask)[1]
        _, last = _run(self.lstm, vectors, mask.sum(dim=1))
        return last.transpose(0, 1).flatten(1)  # shape: (2, N, units) to (N, 2 units)


def _run(lstm: nn.LSTM, states: Tensor, lengths: Tensor) -> tuple[PackedSequence, Tensor]:
    """Run an LSTM over the first `lengths` of states (B, W, d); return its packed output and last states.

    It stays in fp32 where the rest is in bf16: what is rounded at each step adds up over a text.
    """
    dtype = next(lstm.parameters()).dtype
    with torch.autocast(states.device.type, enabled=False):
        packed = pack_padded_sequence(states.to(dtype), lengths.cpu(), batch_first=True, enforce_sorted=False)
        output, (last, _) = lstm(packed)
    return output, last


def run_padded(lstm: nn.LSTM, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return a bidirectional LSTM's states, (B, W, 2u), zero at padding, and its last ones, (B, 2u).

    states: (B, W, d). mask: (B, W), padding last. For a GPU, which packed sequences wait for: here each text
    is turned round within its own length for the second direction. Computed in fp32, as `_run` does.
    """
    weights: list[Tensor] = [weight for layer in lstm.all_weights for weight in layer]
    lengths = mask.sum(dim=1, keepdim=True)
    steps = torch.arange(mask.shape[1], device=mask.device)
    turned = torch.where(mask, lengths - 1 - steps, steps)[..., None]  # shape: (B, W, 1)
    end = (lengths - 1).clamp(min=0)[..., None]
    outputs, ends = [], []
    kind = states.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        forward = states.to(weights[0].dtype).masked_fill(~mask[..., None], 0)
        zero = forward.new_zeros(1, len(states), lstm.hidden_size)
        for direction in range(2):
            given = forward.gather(1, turned.expand_as(forward)) if direction else forward
            own = weights[4 * direction : 4 * direction + 4]
            made = torch.lstm(given, (zero, zero), own, True, 1, 0.0, lstm.training, False, True)[0]
            ends.append(made.gather(1, end.expand(-1, -1, made.shape[2]))[:, 0])
            outputs.append(made.gather(1, turned.expand_as(made)) if direction else made)
        return torch.cat(outputs, dim=2).masked_fill(~mask[..., None], 0), torch.cat(ends, dim=1)
