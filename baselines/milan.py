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
    """A trained model and one way to search it.

    Args:
        spec: of the method.
        model: folder or name of the model; None is the one that ships, for the mini world.
        how: the fields of `milan.Search`.
    """

    def __init__(self, spec: MethodSpec, model: str | None, **how: Any) -> None:
        self.spec, self._name = spec, model
        self._how = {name: value for name, value in how.items() if value is not None}

    @cached_property
    def model(self) -> Milan:
        """The model, on the best device there is."""
        from milan import Milan
        from milannotations.exemplars.device import best_device

        return Milan.from_pretrained(self._name or "mini").to(best_device())

    def describe(self, units: Any, context: Context) -> list[Description]:
        from milan.features import features_of

        if self._name is None and set(units["unit_kind"]) - {"synthetic"}:
            raise InputError(
                f"'{self.spec.name}' ships with a model of the mini world alone, and these units "
                "are of another. Give a model: --model DIR, as 'milan train' or 'milan convert' "
                "wrote it (create(model=DIR))."
            )
        features, present = features_of(units, self.model.encoder).tensors()
        found = self.model.describe_features(features, present, **self._how)
        # rounded: the last digits depend on what is computed together
        return [Description.of(best[0].text, round(best[0].score, 3)) for best in found.n_best]


def create(
    model: str | None = None, beam: int | None = None, lam: float | None = None
) -> MilanMethod:
    """Return the method.

    Args:
        model: folder or name of a model (default: that of the mini world, which ships).
        beam: width of the beam (default: the model's).
        lam: lambda, the weight of log p(d) (default: the model's).
    """
    return MilanMethod(SPEC, model, strategy="pmi", beam=beam, lam=lam)
