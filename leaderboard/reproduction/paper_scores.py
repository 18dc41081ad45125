"""Scores of tables 2 and 3 as printed in Hernandez et al. 2022."""

from __future__ import annotations

PAPER = {
    "table2": {
        "alexnet-imagenet": {"greedy": 0.34, "pmi": 0.38},
        "alexnet-places365": {"greedy": 0.31, "pmi": 0.37},
        "resnet152-imagenet": {"greedy": 0.27, "pmi": 0.35},
        "resnet152-places365": {"greedy": 0.30, "pmi": 0.31},
    },
    "table3": {
        "within-network/alexnet-imagenet": {"pmi": 0.39},
        "within-network/alexnet-places365": {"pmi": 0.47},
        "within-network/resnet152-imagenet": {"pmi": 0.35},
        "within-network/resnet152-places365": {"pmi": 0.28},
        "within-network/biggan-imagenet": {"pmi": 0.49},
        "within-network/biggan-places365": {"pmi": 0.52},
        "across-network/alexnet-to-resnet152": {"pmi": 0.28},
        "across-network/resnet152-to-alexnet": {"pmi": 0.35},
        "across-arch/base-to-dino_vits8-imagenet": {"pmi": 0.34},
        "across-dataset/imagenet-to-places365": {"pmi": 0.30},
        "across-dataset/places365-to-imagenet": {"pmi": 0.33},
        "across-task/cls-to-gen": {"pmi": 0.34},
        "across-task/gen-to-cls": {"pmi": 0.27},
    },
}
"""BERTScore F (idf, rescaled, best of three references) by table, fold and method; on other data
than `mini`."""
