"""p(d | E): an LSTM that looks at a unit's exemplars before each word.

Hernandez et al. 2022, section 3 and its appendix on implementation: a unit's exemplars are k
feature vectors (`milan.encoder`); at each word the decoder weighs them anew (additive attention,
Bahdanau et al. 2015), lets part of their mean through a gate (Xu et al. 2015, section 4.2), and
feeds that and the word before to an LSTM.

Axes: `unit`; `k`, exemplars; `f`, features; `a`, size of the attention; `row`, descriptions
under way, several a unit; `h`, size of the LSTM; `word`, the vocabulary; `time`, places.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as nnf

ROWS = 512
"""Rows that are computed together: what one word of many descriptions needs stays bounded."""


class Exemplars(NamedTuple):
    """What the decoder looks at: features, their keys, and which places hold an exemplar."""

    features: Float[Tensor, "unit k f"]
    keys: Float[Tensor, "unit k a"]
    present: Bool[Tensor, "unit k"]


class State(NamedTuple):
    """Of the LSTM, after a word."""

    h: Float[Tensor, "row h"]
    c: Float[Tensor, "row h"]


class Look(NamedTuple):
    """What is known of the next word before the last one is: it depends on the state alone.

    Descriptions that continue one prefix in several ways share it.
    """

    gates: Float[Tensor, "row four_h"]
    attention: Float[Tensor, "row k"]


class Decoder(nn.Module):
    """Gives the probability of a description's words, one after the other.

    Args:
        words: size of the vocabulary, with its special tokens.
        feature_size: of an exemplar's features, f.
        embedding_size, hidden_size, attention_size: of words, of the LSTM, of the attention.
        dropout: of the LSTM's state before the words' probabilities, in training.
    """

    def __init__(
        self,
        words: int,
        feature_size: int,
        embedding_size: int = 128,
        hidden_size: int = 512,
        attention_size: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.init_h = nn.Linear(feature_size, hidden_size)
        self.init_c = nn.Linear(feature_size, hidden_size)
        self.embedding = nn.Embedding(words, embedding_size)
        self.query = nn.Linear(hidden_size, attention_size)
        self.key = nn.Linear(feature_size, attention_size)
        self.energy = nn.Linear(attention_size, 1)
        self.gate = nn.Linear(hidden_size, feature_size)
        self.lstm = nn.LSTMCell(embedding_size + feature_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, words)

    def exemplars(
        self, features: Float[Tensor, "unit k f"], present: Bool[Tensor, "unit k"] | None = None
    ) -> Exemplars:
        """Return exemplars with their keys, which are projected here and never again.

        Args:
            features: of every exemplar.
            present: False where a unit has fewer exemplars than others; None is all of them.
        """
        if present is None:
            present = features.new_ones(features.shape[:2], dtype=torch.bool)
        return Exemplars(features, self.key(features), present)

    def start(self, seen: Exemplars) -> State:
        """Return the state before the first word: from the mean of a unit's features."""
        share = seen.present / seen.present.sum(1, keepdim=True).clamp(min=1)
        mean = torch.einsum("uk,ukf->uf", share.to(seen.features.dtype), seen.features)
        return State(self.init_h(mean).tanh(), self.init_c(mean).tanh())

    def look(self, h: Float[Tensor, "row h"], seen: Exemplars, unit: Int64[Tensor, " row"]) -> Look:
        """Return what the exemplars add to the next word.

            a_i  = softmax_i(v . tanh(W_q h + W_k f_i))
            gates = W_f (sigmoid(W_g h) * sum_i a_i f_i) + W_h h + b

        Args:
            h: state before the word.
            seen: the exemplars of all units.
            unit: which unit a row is of. No features are copied for it.
        """
        energies = self.energy((self.query(h)[:, None] + seen.keys[unit]).tanh_())[..., 0]
        attention = energies.masked_fill(~seen.present[unit], -torch.inf).softmax(-1)
        k = attention.shape[1]
        places = unit[:, None] * k + torch.arange(k, device=unit.device)
        context = nnf.embedding_bag(
            places,
            seen.features.flatten(0, 1),
            mode="sum",
            per_sample_weights=attention.to(seen.features.dtype),
        )
        words = self.embedding.embedding_dim
        gates = nnf.linear(self.gate(h).sigmoid() * context, self.lstm.weight_ih[:, words:])
        return Look(gates + self.lstm.bias_ih + nnf.linear(h, *self._recurrent), attention)

    @property
    def _recurrent(self) -> tuple[Tensor, Tensor]:
        return self.lstm.weight_hh, self.lstm.bias_hh

    def step(
        self,
        tokens: Int64[Tensor, " row"],
        gates: Float[Tensor, "row four_h"],
        c: Float[Tensor, "row h"],
    ) -> State:
        """Return the state after a word: the LSTM's equations, its inputs summed beforehand."""
        words = self.embedding.embedding_dim
        gates = gates + nnf.linear(self.embedding(tokens), self.lstm.weight_ih[:, :words])
        into, forget, cell, out = gates.chunk(4, 1)
        c = forget.sigmoid() * c + into.sigmoid() * cell.tanh()
        return State(out.sigmoid() * c.tanh(), c)

    def log_probs(self, h: Float[Tensor, "*rows h"]) -> Float[Tensor, "*rows word"]:
        """Return the log-probabilities of the word after a state."""
        return self.output(self.dropout(h)).float().log_softmax(-1)

    def forward(
        self,
        seen: Exemplars,
        inputs: Int64[Tensor, "row time"],
        unit: Int64[Tensor, " row"] | None = None,
    ) -> tuple[Float[Tensor, "row time word"], Float[Tensor, "row time k"]]:
        """Return the log-probabilities of each next word of given descriptions (forced).

        Args:
            seen: the exemplars.
            inputs: tokens, `start` first.
            unit: which unit a description is of; None takes one description a unit, in order.

        Returns:
            Log-probabilities after each input, and the attention that was paid.
        """
        if unit is None:
            unit = torch.arange(len(inputs), device=inputs.device)
        h, c = (each[unit] for each in self.start(seen))
        states, attentions = [], []
        for tokens in inputs.unbind(1):
            looked = self.look(h, seen, unit)
            h, c = self.step(tokens, looked.gates, c)
            states.append(h)
            attentions.append(looked.attention)
        return self.log_probs(torch.stack(states, 1)), torch.stack(attentions, 1)
