"""p(d): a two-layer LSTM over words (Hernandez et al. 2022, section 3).

Axes: `text`; `time`, places; `row`, prefixes; `layer`; `h`, size of the LSTM; `word`, the
vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from milan.decoder import ROWS


class LMState(NamedTuple):
    """Of the LSTM's layers, after a word."""

    h: Float[Tensor, "layer row h"]
    c: Float[Tensor, "layer row h"]

    def of(self, rows: Int64[Tensor, " row"]) -> "LMState":
        """Return the states of some rows, which may repeat."""
        return LMState(self.h[:, rows], self.c[:, rows])


class LanguageModel(nn.Module):
    """Gives the probability of a description's words, whatever the unit.

    Args:
        words: size of the vocabulary, with its special tokens.
        pad: the token that fills texts up; it has no embedding.
        embedding_size, hidden_size, layers: of words, of the LSTM.
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

    def start(self, rows: int) -> LMState:
        """Return the state before the first word."""
        size = (self.lstm.num_layers, rows, self.lstm.hidden_size)
        return LMState(self.output.weight.new_zeros(size), self.output.weight.new_zeros(size))

    def step(
        self, tokens: Int64[Tensor, " row"], state: LMState
    ) -> tuple[Float[Tensor, "row word"], LMState]:
        """Return the log-probabilities of the word after the given ones, and the next state."""
        seen, (h, c) = self.lstm(self.embedding(tokens)[:, None], tuple(state))
        return self.output(seen[:, 0]).float().log_softmax(-1), LMState(h, c)

    def score(self, texts: Sequence[Sequence[int]], start: int) -> Float[Tensor, " text"]:
        """Return log p of each text: the sum over its words, each given those before it.

        Texts that begin alike share the work: every distinct prefix goes through the network
        once, whichever texts, of whichever units, it is in.

        Args:
            texts: token ids, `stop` included where it is to count.
            start: the token before the first word.
        """
        device = self.output.weight.device
        total = torch.zeros(len(texts), device=device)
        alike = sorted(range(len(texts)), key=lambda row: tuple(texts[row]))
        for first in range(0, len(texts), ROWS):
            rows = alike[first : first + ROWS]
            total[rows] = self._score([texts[row] for row in rows], start)
        return total

    def _score(self, texts: Sequence[Sequence[int]], start: int) -> Float[Tensor, " text"]:
        device = self.output.weight.device
        longest = max(map(len, texts))
        padded = torch.full((len(texts), longest + 1), -1, device=device)
        for row, text in enumerate(texts):
            padded[row, : len(text)] = torch.tensor(list(text), device=device)
        total = torch.zeros(len(texts), device=device)
        # the distinct prefixes of one length: their last words, their states; `at`, whose each is
        tokens, state = torch.tensor([start], device=device), self.start(1)
        at = torch.zeros(len(texts), dtype=torch.int64, device=device)
        for place in range(longest):
            log_probs, state = self.step(tokens, state)
            going = (padded[:, place] >= 0).nonzero()[:, 0]
            total[going] += log_probs[at[going], padded[going, place]]
            going = going[padded[going, place + 1] >= 0]
            words = log_probs.shape[1]
            prefixes, at[going] = torch.unique(
                at[going] * words + padded[going, place], return_inverse=True
            )
            tokens, state = prefixes % words, state.of(prefixes // words)
        return total
