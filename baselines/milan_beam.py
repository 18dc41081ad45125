"""MILAN's decoder without reranking, by beam search."""

from __future__ import annotations

from dataclasses import replace

from baselines import milan

SPEC = replace(
    milan.SPEC,
    name="milan-beam",
    title="The likeliest in a beam of p(d | exemplars): MILAN without mutual information",
)


def create(model: str | None = None, beam: int | None = None) -> milan.MilanMethod:
    """Return the method.

    Args:
        model: folder or name of a model (default: the built-in model of the mini world).
        beam: width of the beam (default: the model's).
    """
    return milan.MilanMethod(SPEC, model, strategy="beam", beam=beam)
