"""p(d): a two-layer LSTM over words (Hernandez et al. 2022, section 3).

Axes: `text`; `time`, index of a word; `row`, prefixes; `layer`, of the LSTM; `h`, its size;
`word`, the vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from milan.decoder import ROWS


class LanguageModelState(NamedTuple):
    """States of the LSTM's layers after a word."""

    h: Float[Tensor, "layer row h"]
    c: Float[Tensor, "layer row h"]

    def select(self, rows: Int64[Tensor, " row"]) -> "LanguageModelState":
        """Return the states of some rows, which may repeat."""
        return LanguageModelState(self.h[:, rows], self.c[:, rows])


class LanguageModel(nn.Module):
    """LSTM that gives the probability of a description's words, whatever the unit.

    Args:
        words: size of the vocabulary, special tokens included.
        pad: token that fills up short texts; it has no embedding.
        embedding_size, hidden_size, layers: of the words, of the LSTM.
        dropout: between the layers, in training.
    """

    def __init__(
        self,
        words: int,
        pad: int,
        embedding_size: int = 128,
        hidden_size: int = 512,
        layers: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding_size, padding_idx=pad)
        self.lstm = nn.LSTM(
            embedding_size,
            hidden_size,
            layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.output = nn.Linear(hidden_size, words)

    def forward(self, inputs: Int64[Tensor, "text time"]) -> Float[Tensor, "text time word"]:
        """Return the log-probabilities of the word after each input; `start` comes first."""
        return self.output(self.lstm(self.embedding(inputs))[0]).float().log_softmax(-1)

    def start(self, rows: int) -> LanguageModelState:
        """Return the state before the first word."""
        size = (self.lstm.num_layers, rows, self.lstm.hidden_size)
        zeros = self.output.weight.new_zeros
        return LanguageModelState(zeros(size), zeros(size))

    def step(
        self, tokens: Int64[Tensor, " row"], state: LanguageModelState
    ) -> tuple[Float[Tensor, "row word"], LanguageModelState]:
        """Return the log-probabilities of the word after the given ones, and the next state."""
        # a sequence of one word: (row) -> (row, time=1, embedding)
        outputs, (h, c) = self.lstm(self.embedding(tokens)[:, None], tuple(state))
        return self.output(outputs[:, 0]).float().log_softmax(-1), LanguageModelState(h, c)

    def score(self, texts: Sequence[Sequence[int]], start: int) -> Float[Tensor, " text"]:
        """Return log p(d) of each text: the sum over its words, each given those before it.

        Texts that begin alike share the work: every distinct prefix goes through the network
        once, whichever texts, of whichever units, it is in.

        Args:
            texts: token ids, `stop` included where it is to count.
            start: token before the first word.
        """
        total = torch.zeros(len(texts), device=self.output.weight.device)
        # sorted, so that texts with a common prefix fall into one part
        order = sorted(range(len(texts)), key=lambda row: tuple(texts[row]))
        for first in range(0, len(texts), ROWS):
            rows = order[first : first + ROWS]
            total[rows] = self._score([texts[row] for row in rows], start)
        return total

    def _score(self, texts: Sequence[Sequence[int]], start: int) -> Float[Tensor, " text"]:
        device = self.output.weight.device
        longest = max(map(len, texts))
        padded = torch.full((len(texts), longest + 1), -1, device=device)
        for row, text in enumerate(texts):
            padded[row, : len(text)] = torch.tensor(list(text), device=device)
        total = torch.zeros(len(texts), device=device)
        # One row per distinct prefix of the current length: its last word and its state.
        # `prefix_of` says which of them each text begins with; at length 0 there is one.
        tokens, state = torch.tensor([start], device=device), self.start(1)
        prefix_of = torch.zeros(len(texts), dtype=torch.int64, device=device)
        for index in range(longest):
            log_probs, state = self.step(tokens, state)
            # texts that have a word at this index add its log-probability
            going = (padded[:, index] >= 0).nonzero()[:, 0]
            total[going] += log_probs[prefix_of[going], padded[going, index]]
            # Those that have another one after it need longer prefixes. A prefix and its next
            # word are one number, prefix * words + word, so that `unique` finds the distinct
            # ones and both can be read back.
            going = going[padded[going, index + 1] >= 0]
            words = log_probs.shape[1]
            prefixes, prefix_of[going] = torch.unique(
                prefix_of[going] * words + padded[going, index], return_inverse=True
            )
            tokens, state = prefixes % words, state.select(prefixes // words)
        return total
