"""Search for descriptions: greedy, sampling and beam, by log p(d | E) or, word by word, by

    log p(w | E, words before) - lambda log p(w | words before)

(Hernandez et al. 2022, section 3: equation 2 in its per-word form). The beam search is that of
Freitag and Al-Onaizan 2017 as the 2022 code has it: scores are sums of log-probabilities without
length normalisation, and a finished description stays in the beam until better ones push it out.

The cost of a step is that of the distinct prefixes of unfinished hypotheses: finished ones are
computed no further, hypotheses that continue one prefix share all work but the last word's, and
exemplars are projected once per unit and never copied.

Axes as in `milan.decoder`; `beam`: hypotheses of a unit, the best first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from milan.decoder import ROWS, Decoder, DecoderState, ExemplarFeatures
from milan.language_model import LanguageModel, LanguageModelState


@dataclass(frozen=True)
class Rules:
    """Constraints on the tokens of a description.

    Args:
        start, stop: tokens before the first word and after the last.
        length: maximum number of tokens, `stop` included; a description of so many words needs no
            `stop`.
        never: tokens that are not words, which are never chosen.
        empty: allow `stop` as the first token.
        after_stop: continue to `length` after `stop`, and count what comes, as greedy decoding
            did in the 2022 code.
    """

    start: int
    stop: int
    length: int
    never: tuple[int, ...] = ()
    empty: bool = False
    after_stop: bool = False

    def apply(self, log_probs: Float[Tensor, "row word"], index: int) -> None:
        """Set, in place, the tokens that must not come at this index to -inf."""
        log_probs[:, list(self.never)] = -torch.inf
        if index == 0 and not self.empty:
            log_probs[:, self.stop] = -torch.inf


class SearchResult(NamedTuple):
    """Descriptions of each unit, the best first.

    Attributes:
        tokens: of each description, `stop` from its end on.
        scores: sum over words of what was searched by; -inf where there is no description.
    """

    tokens: Int64[Tensor, "unit beam time"]
    scores: Float[Tensor, "unit beam"]


class _PartialHypotheses(NamedTuple):
    """Unfinished hypotheses, one row each.

    Attributes:
        unit: index of the unit that a row describes.
        decoder: state of p(d | E) after the row's newest word.
        language_model: state of p(d), if it takes part in the search.
    """

    unit: Int64[Tensor, " row"]
    decoder: DecoderState
    language_model: LanguageModelState | None


class WordScorer(NamedTuple):
    """Scores of next words: by a decoder and, if given, a language model with its lambda."""

    decoder: Decoder
    language_model: LanguageModel | None = None
    lam: float = 0.0

    def begin(self, seen: ExemplarFeatures) -> _PartialHypotheses:
        """Return one empty hypothesis per unit."""
        units = torch.arange(len(seen.features), device=seen.features.device)
        language = None if self.language_model is None else self.language_model.start(len(units))
        return _PartialHypotheses(units, self.decoder.start(seen), language)

    def advance(
        self,
        seen: ExemplarFeatures,
        hypotheses: _PartialHypotheses,
        source: Int64[Tensor, " row"],
        tokens: Int64[Tensor, " row"],
    ) -> Iterator[tuple[slice, Float[Tensor, "part word"], _PartialHypotheses]]:
        """Extend hypotheses by one word each; yield the scores of the words that may come next.

        Args:
            seen: the exemplars.
            hypotheses: those before the word.
            source: index of the hypothesis that each new row continues.
            tokens: the word it adds.

        Yields:
            The rows of a part, the scores of their next words, and the extended hypotheses.
        """
        # Attention depends on the state before the word alone, so rows that continue the same
        # hypothesis (`parents`, one row each) share it; `child` maps new rows to parents.
        parents, child = torch.unique(source, return_inverse=True)
        unit = hypotheses.unit[parents]
        gates = torch.cat(
            [
                self.decoder.look(hypotheses.decoder.h[parents[part]], seen, unit[part]).gates
                for part in _parts(len(parents))
            ]
        )
        for part in _parts(len(tokens)):
            parent, words = source[part], tokens[part]
            state = self.decoder.step(words, gates[child[part]], hypotheses.decoder.c[parent])
            scores, language = self.decoder.log_probs(state.h), None
            if self.language_model is not None and hypotheses.language_model is not None:
                log_probs, language = self.language_model.step(
                    words, hypotheses.language_model.select(parent)
                )
                scores = scores - self.lam * log_probs
            yield part, scores, _PartialHypotheses(hypotheses.unit[parent], state, language)


def _parts(rows: int) -> Iterator[slice]:
    """Yield slices of at most `ROWS` rows, so that memory is bounded."""
    for first in range(0, rows, ROWS):
        yield slice(first, first + ROWS)


def _concatenated(parts: list[_PartialHypotheses]) -> _PartialHypotheses:
    """Return the rows of several parts as one."""
    states = [part.language_model for part in parts if part.language_model is not None]
    return _PartialHypotheses(
        torch.cat([part.unit for part in parts]),
        DecoderState(
            torch.cat([part.decoder.h for part in parts]),
            torch.cat([part.decoder.c for part in parts]),
        ),
        # rows are the second axis there, after the LSTM's layers
        LanguageModelState(
            torch.cat([state.h for state in states], 1), torch.cat([state.c for state in states], 1)
        )
        if states
        else None,
    )


def walk(
    scorer: WordScorer,
    seen: ExemplarFeatures,
    rules: Rules,
    choose: Callable[[Float[Tensor, "row word"], Int64[Tensor, " row"], int], Tensor],
) -> SearchResult:
    """Return one description per unit (`beam` is 1), chosen word by word.

    Args:
        scorer, seen, rules: see above.
        choose: returns a word for each row, given all scores, the rows' units and the index of
            the word.
    """
    hypotheses, units = scorer.begin(seen), len(seen.features)
    device = seen.features.device
    tokens = torch.full((units, 1, rules.length), rules.stop, device=device)
    scores = torch.zeros(units, 1, device=device)
    rows = torch.arange(units, device=device)  # of `hypotheses`: the unfinished ones
    newest = torch.full((units,), rules.start, device=device)
    for index in range(rules.length if units else 0):
        chosen, parts = [], []
        for part, log_probs, extended in scorer.advance(seen, hypotheses, rows, newest):
            rules.apply(log_probs, index)
            unit = hypotheses.unit[rows[part]]
            word = choose(log_probs, unit, index)
            scores[unit, 0] += log_probs.gather(1, word[:, None])[:, 0]
            chosen.append(word)
            parts.append(extended)
        hypotheses, newest = _concatenated(parts), torch.cat(chosen)
        tokens[hypotheses.unit, 0, index] = newest
        rows = torch.arange(len(newest), device=device)
        if not rules.after_stop:
            rows = (newest != rules.stop).nonzero()[:, 0]
            newest = newest[rows]
        if not len(rows):
            break
    return SearchResult(tokens, scores)


def greedy(scorer: WordScorer, seen: ExemplarFeatures, rules: Rules) -> SearchResult:
    """Return the description of each unit whose every word is the likeliest."""
    return walk(scorer, seen, rules, lambda scores, unit, index: scores.argmax(1))


def sample(
    scorer: WordScorer, seen: ExemplarFeatures, rules: Rules, seed: int, first: int = 0
) -> SearchResult:
    """Return a description of each unit, drawn word by word from the softmax of the scores.

    A draw depends on the seed and the unit's index alone: neither other units nor the device
    change it.

    Args:
        scorer, seen, rules: see above.
        seed: random seed of all draws.
        first: index of the first unit.
    """
    generators = [
        torch.Generator().manual_seed((seed * 1_000_003 + first + unit) % 2**63)
        for unit in range(len(seen.features))
    ]

    def choose(scores: Tensor, unit: Tensor, index: int) -> Tensor:
        # Gumbel's trick: argmax(score - log(exponential draw)) is a draw from the softmax
        words = scores.shape[1]
        noise = torch.stack(
            [torch.empty(words).exponential_(generator=generators[i]) for i in unit.tolist()]
        )
        return (scores - noise.to(scores.device).log()).argmax(1)

    return walk(scorer, seen, rules, choose)


def beam(scorer: WordScorer, seen: ExemplarFeatures, rules: Rules, width: int) -> SearchResult:
    """Return the `width` best descriptions of each unit that beam search finds.

    At every word each unfinished hypothesis proposes its `width` likeliest continuations, a
    finished one proposes itself, and the `width` best proposals of each unit survive.

    Args:
        scorer, seen, rules: see above.
        width: of the beam.
    """
    units, device = len(seen.features), seen.features.device
    # The beam is a table (unit, beam) of scores, ends and token histories. It begins with one
    # empty hypothesis per unit; the other places hold none, which a score of -inf says.
    scores = torch.full((units, width), -torch.inf, device=device)
    scores[:, 0] = 0.0
    done = torch.zeros(units, width, dtype=torch.bool, device=device)
    history = torch.empty(units, width, 0, dtype=torch.int64, device=device)
    # Models compute rows, one per unfinished hypothesis: row r stands in the table at
    # (unit[r], slot[r]), and continues row source[r] of `hypotheses` by the word newest[r].
    hypotheses = scorer.begin(seen)
    unit, slot = hypotheses.unit, torch.zeros_like(hypotheses.unit)
    source, newest = torch.arange(units, device=device), torch.full_like(unit, rules.start)
    for index in range(rules.length if units else 0):
        # 1. each row proposes its likeliest continuations
        best, words, parts = [], [], []
        for part, log_probs, extended in scorer.advance(seen, hypotheses, source, newest):
            rules.apply(log_probs, index)
            top = log_probs.topk(min(width, log_probs.shape[1]), 1)
            best.append(top.values + scores[unit[part], slot[part], None])
            words.append(top.indices)
            parts.append(extended)
        hypotheses = _concatenated(parts)
        proposed_scores, proposed_words = torch.cat(best), torch.cat(words)
        # 2. rows -> table (unit, beam, proposal); a finished hypothesis proposes itself, once
        count = proposed_scores.shape[1]
        proposals = torch.full((units, width, count), -torch.inf, device=device)
        proposals[:, :, 0] = scores.where(done, proposals[:, :, 0])
        proposals[unit, slot] = proposed_scores
        tokens = torch.full((units, width, count), rules.stop, device=device)
        tokens[unit, slot] = proposed_words
        # 3. the `width` best of each unit, over (beam, proposal) flattened: the quotient of the
        # flat index says which hypothesis a survivor continues
        scores, chosen = proposals.flatten(1).topk(width, 1)
        parent, token = chosen // count, tokens.flatten(1).gather(1, chosen)
        history = torch.cat([_gathered(history, parent), token[:, :, None]], 2)
        done = token == rules.stop
        # 4. the rows of the next step: survivors that have not ended. A parent's place in the
        # table is translated to its row of `hypotheses`.
        row_of = torch.zeros(units, width, dtype=torch.int64, device=device)
        row_of[unit, slot] = torch.arange(len(unit), device=device)
        unfinished: Bool[Tensor, "unit beam"] = ~done & scores.isfinite()
        unit, slot = unfinished.nonzero(as_tuple=True)
        if not len(unit):
            break
        source, newest = row_of[unit, parent[unit, slot]], token[unit, slot]
    return SearchResult(history, scores)


def _gathered(
    history: Int64[Tensor, "unit beam time"], parent: Int64[Tensor, "unit beam"]
) -> Int64[Tensor, "unit beam time"]:
    """Return the history of each survivor's parent."""
    return history.gather(1, parent[:, :, None].expand(-1, -1, history.shape[2]))
