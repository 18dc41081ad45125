"""MILAN: the description with the largest pointwise mutual information with the exemplars."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from milannotations.errors import InputError

if TYPE_CHECKING:
    from milan import Milan

SPEC = MethodSpec(
    name="milan",
    version="1.0",
    kind="method",
    title="The beam of p(d | exemplars), reranked by mutual information with them",
    paper="Hernandez et al. 2022, Natural Language Descriptions of Deep Visual Features",
    trained_on="what its model was trained on; by default the training split of the mini edition",
    requires=("trained model",),
)


class MilanMethod:
    """Describe units by a trained model with one search strategy.

    Args:
        spec: spec of the method.
        model: folder or name of the model; None is the built-in model of the mini world.
        search: fields of `milan.Search`; None is the model's own value.
    """

    def __init__(self, spec: MethodSpec, model: str | None, **search: Any) -> None:
        self.spec, self._name = spec, model
        self._search = {name: value for name, value in search.items() if value is not None}

    @cached_property
    def model(self) -> Milan:
        """Model on the best device available."""
        from milan import Milan
        from milannotations.exemplars.device import best_device

        return Milan.from_pretrained(self._name or "mini").to(best_device())

    def describe(self, units: Any, context: Context) -> list[Description]:
        from milan.features import features_of

        if self._name is None and set(units["unit_kind"]) - {"synthetic"}:
            raise InputError(
                f"'{self.spec.name}' ships with a model of the mini world only, and these units "
                "are no synthetic ones. Give a model that 'milan train' or 'milan convert' wrote: "
                "--model DIR."
            )
        features, present = features_of(units, self.model.encoder).tensors()
        output = self.model.describe_features(features, present, **self._search)
        # rounded, because the last digits depend on the batch
        return [Description.of(beam[0].text, round(beam[0].score, 3)) for beam in output.n_best]


def create(
    model: str | None = None, beam: int | None = None, lam: float | None = None
) -> MilanMethod:
    """Return the method.

    Args:
        model: folder or name of a model (default: the built-in model of the mini world).
        beam: width of the beam (default: the model's).
        lam: lambda, the weight of log p(d) (default: the model's).
    """
    return MilanMethod(SPEC, model, strategy="pmi", beam=beam, lam=lam)
