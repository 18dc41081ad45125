"""A small hand-made sample, so that the main job runs on a fresh machine.

Nobody annotated these units and no network has them: the texts were made up to
show the table. It stands in until the embedded edition exists.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
NETWORK = "sample"
ANNOTATIONS = str(_HERE / "annotations.csv")
PREDICTIONS = str(_HERE / "predictions.csv")
LABEL = (
    "HAND-MADE SAMPLE: 32 units that do not exist, with texts made up for this table. "
    "It shows what a score looks like, and says nothing about any method or person."
)
