"""MILAN's decoder without reranking, greedily decoded: the paper's own comparison, p(d | E)."""

from __future__ import annotations

from dataclasses import replace

from baselines import milan

SPEC = replace(
    milan.SPEC,
    name="milan-greedy",
    title="The likeliest word after word of p(d | exemplars): MILAN without mutual information",
)


def create(model: str | None = None) -> milan.MilanMethod:
    """Return the method.

    Args:
        model: folder or name of a model (default: the built-in model of the mini world).
    """
    return milan.MilanMethod(SPEC, model, strategy="greedy")
