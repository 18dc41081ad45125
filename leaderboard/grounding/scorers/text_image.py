"""Scorer that uses a CLIP or SigLIP model: how well a description matches an image.

SigLIP was trained to predict whether a text and an image belong together, so its probability is
used unchanged. CLIP only compares texts with each other: the description competes with an
uninformative text, and the description's softmax share is used. Neither value depends on the other
descriptions.
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

TEMPLATE = "a photo of {}"
"""Prompt that a description is put into."""

UNINFORMATIVE = "a photo"
"""Text that a description competes with under CLIP."""


class TextImageScorer:
    """Match of descriptions with whole images; texts and images are embedded once.

    Args:
        model: embeds texts and images (`baselines.shared.clip`).
        name: name of the model, for records.
    """

    has_regions = False
    source: dict[str, Any]

    def __init__(self, model: TextImageModel, name: str) -> None:
        self._model = model
        network = getattr(model, "model", None)
        scale = getattr(network, "logit_scale", None)
        bias = getattr(network, "logit_bias", None)  # SigLIP only
        self._scale = 100.0 if scale is None else float(scale.detach().exp())
        self._bias = None if bias is None else float(bias.detach())
        self.source = {
            "scorer": "clip",
            "model": name,
            "digest": model.digest,
            "template": TEMPLATE,
            "against": None if self._bias is not None else UNINFORMATIVE,
        }

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return presence in whole images; see `Scorer.presence`."""
        image_vectors = self._model.embed_images(probe.image(i) for i in range(len(probe)))
        prompts = [TEMPLATE.format(text) for text in texts]
        competitors = [UNINFORMATIVE] if self._bias is None else []
        text_vectors = self._model.embed_texts([*prompts, *competitors])
        similarities = (text_vectors @ image_vectors.T).double().numpy()
        if self._bias is None:
            # A softmax over two logits is the sigmoid of their difference.
            logits = self._scale * (similarities[:-1] - similarities[-1:])
        else:
            logits = self._scale * similarities + self._bias
        # The sigmoid, in a form that does not overflow.
        presence: Floats = np.exp(-np.logaddexp(0.0, -logits))
        return presence


def create(argument: str = "", *, cache: str | None = None) -> TextImageScorer:
    """Create the scorer from a folder, or from a name on the hub.

    Raises:
        InputError: no model; as `ClipModel.load`.
    """
    from baselines.shared.clip import EXAMPLE_MODEL, ClipModel

    if not argument:
        raise InputError(
            "The scorer 'clip' needs a model: --scorer clip:DIR with a folder of CLIP or SigLIP, "
            f"or clip:{EXAMPLE_MODEL}."
        )
    folder = Path(argument).expanduser()
    return TextImageScorer(ClipModel.load(argument, cache=cache), folder.name or argument)
