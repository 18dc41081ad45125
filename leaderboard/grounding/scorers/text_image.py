"""A CLIP or SigLIP as judge: how well a description fits a picture.

SigLIP was trained to say whether a text and a picture belong together, and its probability is
taken as it is. CLIP only compares texts: the description is held against a text that says nothing,
and its share of the two is taken. Neither depends on what other descriptions there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard.metrics.base import Floats
from milannotations.errors import InputError

if TYPE_CHECKING:
    from baselines.shared.clip import TextImageModel
    from milannotations.probes import Probe

TEMPLATE, NOTHING = "a photo of {}", "a photo"
"""What a description is put into, and what it is held against."""


class TextImageScorer:
    """Says how well descriptions fit whole pictures; texts and pictures are embedded once.

    Args:
        model: embeds both (`baselines.shared.clip`).
        name: for records.
    """

    has_regions = False
    source: dict[str, Any]

    def __init__(self, model: TextImageModel, name: str) -> None:
        self._model = model
        inner = getattr(model, "model", None)
        scale = getattr(inner, "logit_scale", None)
        bias = getattr(inner, "logit_bias", None)
        self._scale = 100.0 if scale is None else float(scale.detach().exp())
        self._bias = None if bias is None else float(bias.detach())
        self.source = {
            "scorer": "clip",
            "model": name,
            "digest": model.digest,
            "template": TEMPLATE,
            "against": None if self._bias is not None else NOTHING,
        }

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return presence in whole pictures; see `Scorer.presence`."""
        pictures = self._model.images(probe.image(i) for i in range(len(probe)))
        said = [TEMPLATE.format(text) for text in texts]
        against = [NOTHING] if self._bias is None else []
        vectors = self._model.texts([*said, *against])
        similar = (vectors @ pictures.T).double().numpy()
        if self._bias is None:
            logits = self._scale * (similar[:-1] - similar[-1:])
        else:
            logits = self._scale * similar + self._bias
        # a sigmoid that overflows nowhere
        found: Floats = np.exp(-np.logaddexp(0.0, -logits))
        return found


def create(said: str = "", *, cache: str | None = None) -> TextImageScorer:
    """Return the scorer of a folder, or of a name on the hub.

    Raises:
        InputError: no model said; as `TextImage.load`.
    """
    from baselines.shared.clip import USUAL, TextImage

    if not said:
        raise InputError(
            f"The scorer 'clip' needs a model: clip:DIR of a CLIP or SigLIP, or clip:{USUAL}."
        )
    folder = Path(said).expanduser()
    return TextImageScorer(TextImage.load(said, cache=cache), folder.name or said)
