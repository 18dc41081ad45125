"""BERTScore in named variants; every text is encoded once."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from math import log
from pathlib import Path
from typing import Any, Literal

import numpy as np

from leaderboard.metrics.base import Floats, MetricSpec, ReferenceSets, RowMetric
from leaderboard.metrics.text import RowCache
from leaderboard.metrics.text_models import TextModel
from milannotations.errors import InputError

Part = Literal["p", "r", "f"]
_BATCH_TOKENS = 4096
"""Most tokens of a batch of the text model, with padding."""
_PAIR_FLOATS = 1 << 23
"""Most floats that are gathered at once to compare pairs of texts (32 MiB)."""


class TokenVectors:
    """Cache of the token vectors of texts.

    Args:
        model: any BERT-like transformers model or folder, with the layer to read.
    """

    def __init__(self, model: TextModel) -> None:
        self.model = model
        self.tokens: RowCache[str] = RowCache(lambda new: [self._tokenise(text) for text in new])
        self.vectors: RowCache[str] = RowCache(self._encode)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return self.model.token_encoder(self.model.bertscore_layer())

    @cached_property
    def special(self) -> set[int]:
        """Ids of the tokens at both ends of every text, which have weight 0."""
        return {self._loaded[0].cls_token_id, self._loaded[0].sep_token_id}

    def _tokenise(self, text: str) -> list[int]:
        from bert_score.utils import sent_encode

        return list(sent_encode(self._loaded[0], text))

    def _encode(self, texts: list[str]) -> list[Any]:
        """Encode texts; return (unit vectors (token, dimension), token ids) for each."""
        import torch

        tokenizer, model = self._loaded
        device = next(model.parameters()).device
        tokens = self.tokens.get(texts)
        encoded: list[Any] = [None] * len(texts)
        for batch in _batches([len(ids) for ids in tokens]):
            # batches are sorted by length, so the last text is the longest; pad to it
            longest = len(tokens[batch[-1]])
            ids = torch.full((len(batch), longest), tokenizer.pad_token_id)
            mask = torch.zeros((len(batch), longest), dtype=torch.long)
            for row, i in enumerate(batch):
                ids[row, : len(tokens[i])] = torch.tensor(tokens[i])
                mask[row, : len(tokens[i])] = 1
            with torch.inference_mode():
                hidden = model(ids.to(device), attention_mask=mask.to(device))[0]
                hidden = torch.nn.functional.normalize(hidden.float(), dim=-1).cpu()
            for row, i in enumerate(batch):
                # a clone, because a view would keep the whole padded batch in memory
                encoded[i] = (hidden[row, : len(tokens[i])].clone(), tokens[i])
        return encoded


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of indices, shortest texts first, of at most `_BATCH_TOKENS` padded tokens."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        # text i would be the longest of the batch, so all of it would be padded to its length
        if batch and (len(batch) + 1) * lengths[i] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class BertScore(RowMetric):
    """`bertscore[-idf][-rescaled][-max]@MODEL`: greedy matching of token vectors.

    Args:
        encoder: token vectors, shared by the variants of one model.
        idf: weight tokens by their inverse document frequency in all references of
            the config, each reference one document, fitted once.
        rescaled: rescale by bert-score's published baseline of the model.
        how: mean or maximum over a unit's references.

    Source: Zhang et al. 2020, equations 1 and 2; agrees with bert-score.
    """

    part: Part = "f"

    def __init__(
        self,
        encoder: TokenVectors,
        *,
        idf: bool = False,
        rescaled: bool = False,
        how: Literal["mean", "max"] = "mean",
    ) -> None:
        self._encoder, self._idf, self._how, self._rescaled = encoder, idf, how, rescaled
        flags = {"-idf": idf, "-rescaled": rescaled, "-max": how == "max"}
        variant = "".join(suffix for suffix, on in flags.items() if on)
        self.spec = MetricSpec(
            name=f"bertscore{variant}@{encoder.model.label}",
            family="bertscore",
            title="BERTScore F, "
            + ("idf-weighted, " if idf else "")
            + ("rescaled, " if rescaled else "raw, ")
            + ("best reference" if how == "max" else "mean over references"),
            low=None if rescaled else -1.0,
            high=1.0,
            direction="higher",
            source="Zhang et al. 2020; agrees with bert-score",
            needs="model",
        )
        self._weights: dict[int, float] = {}
        self._unseen = 1.0
        self._digest = "none"

    @cached_property
    def _baseline(self) -> float:
        """Baseline of this model, layer and part that bert-score publishes; 0 for raw scores."""
        if not self._rescaled:
            return 0.0
        import bert_score

        model = self._encoder.model
        folder = Path(bert_score.__file__).parent / "rescale_baseline" / "en"
        table = folder / f"{model.source}.tsv"
        if not table.is_file():
            raise InputError(
                f"bert-score publishes no baseline of {model.label}, so its scores "
                "cannot be rescaled. Use the raw variant, without '-rescaled'."
            )
        with open(table, encoding="utf-8") as stream:
            baselines = {int(row["LAYER"]): row for row in csv.DictReader(stream)}
        return float(baselines[model.bertscore_layer()][self.part.upper()])

    def fit(self, corpus: Sequence[str]) -> None:
        if not self._idf:
            return
        counts: Counter[int] = Counter()
        for tokens in self._encoder.tokens.get(corpus):
            counts.update(set(tokens))
        n = len(corpus)
        self._weights = {token: log((n + 1) / (count + 1)) for token, count in counts.items()}
        self._unseen = log(n + 1)
        table = sorted((token, round(weight, 12)) for token, weight in self._weights.items())
        self._digest = hashlib.sha256(repr((n, table)).encode()).hexdigest()[:12]

    def signature(self) -> str:
        model = self._encoder.model
        return (
            f"{self.spec.name}|bert-score:{version('bert-score')}"
            f"|transformers:{version('transformers')}|weights:{model.digest}"
            f"|layer:{model.bertscore_layer()}|idf:{self._digest}|case:lc"
        )

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        if len(predictions) == 0:
            return np.empty(0)
        baseline = self._baseline  # raises an error before the work, which can take hours
        sizes = [len(texts) for texts in references]
        left = [text for text, size in zip(predictions, sizes, strict=True) for _ in range(size)]
        right = [text for texts in references for text in texts]
        scores = self.compare(left, right)
        # reduce the scores of each prediction's own references
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)
        if self._how == "max":
            reduced = np.maximum.reduceat(scores, starts)
        else:
            reduced = np.add.reduceat(scores, starts) / np.array(sizes)
        return np.asarray((reduced - baseline) / (1 - baseline), np.float64)

    def compare(self, left: Sequence[str], right: Sequence[str]) -> Floats:
        """Return the raw score of each pair of texts; equal pairs are computed once."""
        vectors = self._encoder.vectors
        vectors.rows(list(dict.fromkeys([*left, *right])))  # one pass of the model
        rows = np.array([vectors.rows(left), vectors.rows(right)])
        # one integer per pair of rows, to find the distinct pairs
        key = rows[0] * len(vectors.values) + rows[1]
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return self._greedy(rows[0][first], rows[1][first])[inverse]

    def _greedy(self, left: Any, right: Any) -> Floats:
        """Match tokens greedily and return the score of each pair.

        Pairs with the same two lengths are computed together, so nothing is padded.

        Args:
            left, right: rows of the texts in the cache of vectors (pair,).
        """
        import torch

        values = self._encoder.vectors.values
        # 1. All token vectors in one matrix; those of text i begin at starts[i].
        lengths = np.array([len(tokens) for _, tokens in values])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        flat = torch.cat([vectors for vectors, _ in values])
        weights = torch.tensor([self._weight(t) for _, tokens in values for t in tokens])
        # 2. Sort the pairs by their two lengths, and cut where either changes.
        sizes = np.stack([lengths[left], lengths[right]])
        order = np.lexsort(sizes)
        borders = np.flatnonzero(np.any(np.diff(sizes[:, order]), axis=0)) + 1
        scores = np.empty(len(left))
        with torch.inference_mode():
            for group in np.split(order, borders):
                # 3. Gather n and m vectors of each pair and multiply them, in bounded steps.
                n, m = sizes[:, group[0]]
                step = max(1, _PAIR_FLOATS // int((n + m) * flat.shape[1]))
                for begin in range(0, len(group), step):
                    chosen = group[begin : begin + step]
                    left_rows = torch.from_numpy(starts[left[chosen]][:, None] + np.arange(n))
                    right_rows = torch.from_numpy(starts[right[chosen]][:, None] + np.arange(m))
                    cosines = torch.bmm(flat[left_rows], flat[right_rows].transpose(1, 2))
                    parts = _precision_recall_f(cosines, weights[left_rows], weights[right_rows])
                    scores[chosen] = parts[self.part].numpy()
        return scores

    def _weight(self, token: int) -> float:
        if self._idf:
            return self._weights.get(token, self._unseen)
        return float(token not in self._encoder.special)


def _precision_recall_f(cosines: Any, left: Any, right: Any) -> dict[Part, Any]:
    """Return precision, recall and F of each pair, (pair,) each.

    Args:
        cosines: (pair, left token, right token).
        left, right: weights of the prediction's and the reference's tokens (pair, token).
    """
    import torch

    def average(values: Any, weights: Any) -> Any:
        return (values * weights).sum(1) / weights.sum(1)

    # bert-score pads batches with zeros, so the best match of a token in a padded text is never
    # below 0. Here this holds for every pair, whichever batch it is in.
    precision = average(cosines.amax(2).clamp_min(0), left)
    recall = average(cosines.amax(1).clamp_min(0), right)
    empty = (left.shape[1] == 2) | (right.shape[1] == 2)  # a text of special tokens only
    if empty:
        precision = recall = torch.zeros_like(precision)
    f = torch.nan_to_num(2 * precision * recall / (precision + recall), nan=0.0)
    return {"p": precision, "r": recall, "f": f}
