"""A small hand-made file of annotations and one of predictions, for the tests alone.

Nobody annotated these 32 units and no network has them: the texts were made up.
"""

from pathlib import Path

NETWORK = "sample"
ANNOTATIONS = str(Path(__file__).parent / "data" / "annotations.csv")
PREDICTIONS = str(Path(__file__).parent / "data" / "predictions.csv")
