"""Search for descriptions: greedy, sampling, and beam, by log p(d | E) or word by word by

    log p(w | E, before) - lambda log p(w | before)

(Hernandez et al. 2022, section 3, equation 2, and its per-word form.) Beam search is that of
Freitag and Al-Onaizan 2017 as the 2022 code had it: sums of log-probabilities without length
normalisation; a finished description keeps its place in the beam while no better one takes it.

What a step costs goes by the distinct prefixes that are still under way: finished descriptions
are computed no further, those that continue one prefix share everything but the last word, and
exemplars are projected once a unit and never copied.

Axes as in `milan.decoder`; `beam`, places in the beam.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from milan.decoder import ROWS, Decoder, Exemplars, State
from milan.language_model import LanguageModel, LMState


@dataclass(frozen=True)
class Rules:
    """What may be written.

    Args:
        start, stop: tokens before the first word and after the last.
        length: words and `stop` at most; a description of so many words needs no `stop`.
        never: tokens that are not words: they are never written.
        empty: whether a description may stop before its first word.
        after_stop: go on to `length` after `stop`, and count what comes, as the 2022 code's
            greedy decoding did.
    """

    start: int
    stop: int
    length: int
    never: tuple[int, ...] = ()
    empty: bool = False
    after_stop: bool = False

    def apply(self, log_probs: Float[Tensor, "row word"], place: int) -> None:
        """Rule out, in place, what may not come at this place."""
        log_probs[:, list(self.never)] = -torch.inf
        if place == 0 and not self.empty:
            log_probs[:, self.stop] = -torch.inf


class Found(NamedTuple):
    """Descriptions of each unit, the best first.

    Attributes:
        tokens: of each, `stop` from its end on.
        scores: what was searched by, summed over words; -inf where there is no description.
    """

    tokens: Int64[Tensor, "unit beam time"]
    scores: Float[Tensor, "unit beam"]


class _Under(NamedTuple):
    """Descriptions under way, a row each: unit, and what both models know."""

    unit: Int64[Tensor, " row"]
    state: State
    heard: LMState | None


class Model(NamedTuple):
    """What is searched by: a decoder, and a language model with its lambda, or None."""

    decoder: Decoder
    language_model: LanguageModel | None = None
    lam: float = 0.0

    def begin(self, seen: Exemplars) -> _Under:
        """Return one empty description a unit."""
        units = torch.arange(len(seen.features), device=seen.features.device)
        heard = None if self.language_model is None else self.language_model.start(len(units))
        return _Under(units, self.decoder.start(seen), heard)

    def advance(
        self,
        seen: Exemplars,
        under: _Under,
        source: Int64[Tensor, " row"],
        tokens: Int64[Tensor, " row"],
    ) -> Iterator[tuple[slice, Float[Tensor, "part word"], _Under]]:
        """Yield, a part at a time, the scores of the words after each row's newest one.

        Args:
            seen: the exemplars.
            under: descriptions so far.
            source: which of them a row continues.
            tokens: the word it adds.
        """
        parents, child = torch.unique(source, return_inverse=True)
        unit = under.unit[parents]
        gates = torch.cat(
            [
                self.decoder.look(under.state.h[parents[part]], seen, unit[part]).gates
                for part in _parts(len(parents))
            ]
        )
        for part in _parts(len(tokens)):
            own, words = source[part], tokens[part]
            state = self.decoder.step(words, gates[child[part]], under.state.c[own])
            scores, heard = self.decoder.log_probs(state.h), None
            if self.language_model is not None and under.heard is not None:
                said, heard = self.language_model.step(words, under.heard.of(own))
                scores = scores - self.lam * said
            yield part, scores, _Under(under.unit[own], state, heard)


def _parts(rows: int) -> Iterator[slice]:
    for first in range(0, rows, ROWS):
        yield slice(first, first + ROWS)


def _joined(parts: list[_Under]) -> _Under:
    """Return the rows of several parts as one."""
    heard = [part.heard for part in parts if part.heard is not None]
    return _Under(
        torch.cat([part.unit for part in parts]),
        State(*(torch.cat(each) for each in zip(*(part.state for part in parts), strict=True))),
        LMState(*(torch.cat(each, 1) for each in zip(*heard, strict=True))) if heard else None,
    )


def walk(
    model: Model,
    seen: Exemplars,
    rules: Rules,
    choose: Callable[[Float[Tensor, "row word"], Int64[Tensor, " row"], int], Tensor],
) -> Found:
    """Return one description a unit, word by word: `beam` is 1.

    Args:
        model, seen, rules: see above.
        choose: returns a word for each row, from the scores of all, the units and the place.
    """
    under, units = model.begin(seen), len(seen.features)
    device = seen.features.device
    tokens = torch.full((units, 1, rules.length), rules.stop, device=device)
    scores = torch.zeros(units, 1, device=device)
    rows = torch.arange(units, device=device)  # of `under`, those that go on
    newest = torch.full((units,), rules.start, device=device)
    for place in range(rules.length if units else 0):
        chosen, parts = [], []
        for part, log_probs, after in model.advance(seen, under, rows, newest):
            rules.apply(log_probs, place)
            unit = under.unit[rows[part]]
            word = choose(log_probs, unit, place)
            scores[unit, 0] += log_probs.gather(1, word[:, None])[:, 0]
            chosen.append(word)
            parts.append(after)
        under, newest = _joined(parts), torch.cat(chosen)
        tokens[under.unit, 0, place] = newest
        rows = torch.arange(len(newest), device=device)
        if not rules.after_stop:
            rows = (newest != rules.stop).nonzero()[:, 0]
            newest = newest[rows]
        if not len(rows):
            break
    return Found(tokens, scores)


def greedy(model: Model, seen: Exemplars, rules: Rules) -> Found:
    """Return the description of each unit whose every word is the likeliest."""
    return walk(model, seen, rules, lambda scores, unit, place: scores.argmax(1))


def sample(model: Model, seen: Exemplars, rules: Rules, seed: int, first: int = 0) -> Found:
    """Return a description of each unit, drawn word by word from the scores' softmax.

    A draw depends on the seed and on the unit's place, so that neither other units nor the
    machine change it.

    Args:
        model, seen, rules: see above.
        seed: of all draws.
        first: place of the first unit.
    """
    generators = [
        torch.Generator().manual_seed((seed * 1_000_003 + first + unit) % 2**63)
        for unit in range(len(seen.features))
    ]

    def choose(scores: Tensor, unit: Tensor, place: int) -> Tensor:
        # the largest of scores less the logarithms of exponential draws: Gumbel's trick
        words = scores.shape[1]
        drawn = torch.stack(
            [torch.empty(words).exponential_(generator=generators[i]) for i in unit.tolist()]
        )
        return (scores - drawn.to(scores.device).log()).argmax(1)

    return walk(model, seen, rules, choose)


def beam(model: Model, seen: Exemplars, rules: Rules, width: int) -> Found:
    """Return the descriptions of each unit that beam search finds, `width` at most.

    Args:
        model, seen, rules: see above.
        width: of the beam; each description under way proposes as many continuations.
    """
    units, device = len(seen.features), seen.features.device
    scores = torch.full((units, width), -torch.inf, device=device)
    scores[:, 0] = 0.0
    done = torch.zeros(units, width, dtype=torch.bool, device=device)
    history = torch.empty(units, width, 0, dtype=torch.int64, device=device)
    under = model.begin(seen)
    # the rows to compute: where each stands in the beam, which of `under` it continues, and how
    unit, place_of = under.unit, torch.zeros_like(under.unit)
    source, newest = torch.arange(units, device=device), torch.full_like(unit, rules.start)
    for place in range(rules.length if units else 0):
        best, words, parts = [], [], []
        for part, log_probs, after in model.advance(seen, under, source, newest):
            rules.apply(log_probs, place)
            top = log_probs.topk(min(width, log_probs.shape[1]), 1)
            best.append(top.values + scores[unit[part], place_of[part], None])
            words.append(top.indices)
            parts.append(after)
        under = _joined(parts)
        proposed, said = torch.cat(best), torch.cat(words)
        count = proposed.shape[1]
        candidates = torch.full((units, width, count), -torch.inf, device=device)
        candidates[:, :, 0] = scores.where(done, candidates[:, :, 0])
        candidates[unit, place_of] = proposed
        tokens = torch.full((units, width, count), rules.stop, device=device)
        tokens[unit, place_of] = said
        scores, chosen = candidates.flatten(1).topk(width, 1)
        parent, token = chosen // count, tokens.flatten(1).gather(1, chosen)
        history = torch.cat([_of(history, parent), token[:, :, None]], 2)
        done = token == rules.stop
        row_of = torch.zeros(units, width, dtype=torch.int64, device=device)
        row_of[unit, place_of] = torch.arange(len(unit), device=device)
        going = ~done & scores.isfinite()
        unit, place_of = going.nonzero(as_tuple=True)
        if not len(unit):
            break
        source, newest = row_of[unit, parent[unit, place_of]], token[unit, place_of]
    return Found(history, scores)


def _of(history: Int64[Tensor, "unit beam time"], parent: Int64[Tensor, "unit beam"]) -> Tensor:
    """Return the history of each place's parent."""
    return history.gather(1, parent[:, :, None].expand(-1, -1, history.shape[2]))
