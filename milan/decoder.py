"""p(d | E): an LSTM that attends over a unit's exemplars before each word.

Hernandez et al. 2022, section 3 and its appendix on implementation: a unit's exemplars are k
feature vectors (`milan.encoder`). At each word the decoder weighs them anew (additive attention,
Bahdanau et al. 2015), lets a part of their weighted mean through a gate (Xu et al. 2015, section
4.2), and feeds that and the word before to an LSTM:

    h_0, c_0 = tanh(W_h f + b_h), tanh(W_c f + b_c)                 f: mean of the f_i    (`start`)
    a_i      = softmax_i(v . tanh(W_q h + W_k f_i))                 attention             (`look`)
    z        = sigmoid(W_g h) * sum_i a_i f_i                       gated context         (`look`)
    h, c     = LSTM([embedding(word); z], (h, c))                                         (`step`)
    p(next)  = softmax(W_o h + b_o)                                                  (`log_probs`)

The attention looks at the state before a word is chosen, so all but the word's own part of the
LSTM's input is known before the word is. Hypotheses that continue one prefix share it.

Axes: `unit`; `k`, exemplars; `f`, features; `a`, size of the attention; `row`, unfinished
descriptions, several per unit; `h`, size of the LSTM; `word`, the vocabulary; `time`, index of a
word.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as nnf

ROWS = 512
"""Rows that are computed together: bounds the memory of one word of many descriptions."""


class ExemplarFeatures(NamedTuple):
    """Exemplars as the decoder reads them: features, attention keys, and which exist."""

    features: Float[Tensor, "unit k f"]
    keys: Float[Tensor, "unit k a"]
    present: Bool[Tensor, "unit k"]


class DecoderState(NamedTuple):
    """State of the LSTM after a word."""

    h: Float[Tensor, "row h"]
    c: Float[Tensor, "row h"]


class Look(NamedTuple):
    """Contribution of the exemplars to the next word: the gates of the LSTM, and the attention."""

    gates: Float[Tensor, "row four_h"]
    attention: Float[Tensor, "row k"]


class Decoder(nn.Module):
    """LSTM with attention that gives the probability of a description's words, one by one.

    Args:
        words: size of the vocabulary, special tokens included.
        feature_size: length of an exemplar's feature vector, f.
        embedding_size, hidden_size, attention_size: of the words, of the LSTM, of the attention.
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
    ) -> ExemplarFeatures:
        """Return exemplars with their keys W_k f_i, which do not depend on words.

        Args:
            features: of every exemplar.
            present: False where a unit has fewer exemplars than others; None is all of them.
        """
        if present is None:
            present = features.new_ones(features.shape[:2], dtype=torch.bool)
        return ExemplarFeatures(features, self.key(features), present)

    def start(self, seen: ExemplarFeatures) -> DecoderState:
        """Return the state before the first word, from the mean of each unit's features."""
        # a unit without any exemplar has a mean of 0
        share = seen.present / seen.present.sum(1, keepdim=True).clamp(min=1)
        mean = torch.einsum("uk,ukf->uf", share.to(seen.features.dtype), seen.features)
        return DecoderState(self.init_h(mean).tanh(), self.init_c(mean).tanh())

    def look(
        self, h: Float[Tensor, "row h"], seen: ExemplarFeatures, unit: Int64[Tensor, " row"]
    ) -> Look:
        """Return the part of the LSTM's gates that does not depend on the word.

            gates = W_f (sigmoid(W_g h) * sum_i a_i f_i) + W_h h + b

        Args:
            h: state before the word.
            seen: the exemplars of all units.
            unit: index of the unit that each row describes.
        """
        # (row, 1, a) + (row, k, a) -> (row, k)
        energies = self.energy((self.query(h)[:, None] + seen.keys[unit]).tanh_())[..., 0]
        attention = energies.masked_fill(~seen.present[unit], -torch.inf).softmax(-1)
        # The weighted sum of each row's k vectors: embedding_bag reads them where they are, in
        # the table (unit * k, f), instead of copying them for every row.
        k = attention.shape[1]
        vectors = unit[:, None] * k + torch.arange(k, device=unit.device)
        context = nnf.embedding_bag(
            vectors,
            seen.features.flatten(0, 1),
            mode="sum",
            per_sample_weights=attention.to(seen.features.dtype),
        )
        # LSTMCell's input is [embedding; context]; the columns of its weights after those of the
        # embedding are W_f
        words = self.embedding.embedding_dim
        gates = nnf.linear(self.gate(h).sigmoid() * context, self.lstm.weight_ih[:, words:])
        recurrent = nnf.linear(h, self.lstm.weight_hh, self.lstm.bias_hh)
        return Look(gates + self.lstm.bias_ih + recurrent, attention)

    def step(
        self,
        tokens: Int64[Tensor, " row"],
        gates: Float[Tensor, "row four_h"],
        c: Float[Tensor, "row h"],
    ) -> DecoderState:
        """Return the state after a word: the LSTM's equations, with `look`'s part of the gates."""
        words = self.embedding.embedding_dim
        gates = gates + nnf.linear(self.embedding(tokens), self.lstm.weight_ih[:, :words])
        # (row, 4 h) -> 4 x (row, h), in the order of torch.nn.LSTMCell
        into, forget, cell, out = gates.chunk(4, 1)
        c = forget.sigmoid() * c + into.sigmoid() * cell.tanh()
        return DecoderState(out.sigmoid() * c.tanh(), c)

    def log_probs(self, h: Float[Tensor, "*rows h"]) -> Float[Tensor, "*rows word"]:
        """Return the log-probabilities of the word after a state."""
        return self.output(self.dropout(h)).float().log_softmax(-1)

    def forward(
        self,
        seen: ExemplarFeatures,
        inputs: Int64[Tensor, "row time"],
        unit: Int64[Tensor, " row"] | None = None,
    ) -> tuple[Float[Tensor, "row time word"], Float[Tensor, "row time k"]]:
        """Return the log-probabilities of each next word of given descriptions.

        Args:
            seen: the exemplars.
            inputs: tokens, `start` first.
            unit: index of the unit of each description; None takes one description per unit, in
                order.

        Returns:
            Log-probabilities after each input, and the attention at each input.
        """
        if unit is None:
            unit = torch.arange(len(inputs), device=inputs.device)
        h, c = (state[unit] for state in self.start(seen))
        states, attentions = [], []
        for tokens in inputs.unbind(1):
            look = self.look(h, seen, unit)
            h, c = self.step(tokens, look.gates, c)
            states.append(h)
            attentions.append(look.attention)
        return self.log_probs(torch.stack(states, 1)), torch.stack(attentions, 1)
