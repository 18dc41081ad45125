"""Runs a network from one of its layers on, without computing again what comes before it.

While a network runs whole, what its modules give out is noted. When it is run again from a
layer, every module that had finished before the layer had (and is not part of another that had)
returns what it gave the first time, at once; what lies between modules is computed anew. So
shortcuts around the layer get what they got before, in residual and dense networks too, and
nothing needs to be known of the network but its modules.

Most of what finished before is not needed any more. The first batch tells: what is not needed is
a tensor of torch's `meta` device, with a shape and no values, with which nothing can be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

Call = tuple[int, int]
"""One call of a module in a run: the module's id, and which of its calls this is, from 0."""

TOLERANCE = 1e-4
"""Outputs run anew may differ from those of the whole run by this share of their largest."""


@dataclass
class ReplayPlan:
    """What running from a layer on takes.

    Attributes:
        skipped: calls whose results are handed out, in the order in which they finished.
        queues: of every module, its calls that still happen, in order.
        needed: how many of `skipped`, the latest, need their values; None: it cannot be done.
        arguments: whether the network's own input needs its values.
        tiles: whether several copies of a batch can go through together.
    """

    skipped: list[Call]
    queues: dict[int, list[int]]
    needed: int | None = None
    arguments: bool = False
    tiles: bool = False


@dataclass
class _CallRecord:
    """One call as the first run saw it: when it ended, and within which other."""

    call: Call
    parent: int | None
    end: int = -1


@dataclass
class RecordedRun:
    """What a whole run left: its output, its arguments, and what modules gave, by call."""

    output: Any
    arguments: tuple[Any, ...]
    kept: dict[Call, Any] = field(default_factory=dict)


class Replay:
    """Runs a network whole once, and then from layers on, as often as is wanted.

    Args:
        model: in evaluation mode.
        modules: where it may be run from, by label.

    Attributes:
        cuts: by label, once `learn` has seen a batch.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
        self.model, self.modules = model, dict(modules)
        self.plans: dict[str, ReplayPlan] = {}
        self.ends: dict[str, int] = {}
        self.calls: dict[int, int] = {}
        self._by_id = {id(module): module for module in model.modules()}

    def learn(self, arguments: tuple[Any, ...], logits: Callable[[Any], Tensor]) -> None:
        """Find out, by a batch, what running from each layer takes.

        Args:
            arguments: of the network.
            logits: returns the tensor, of what the network gives, that has to come out the same.
        """
        noted = self._note(arguments)
        numbers: dict[int, int] = {}
        for each in noted:
            numbers[each.call[0]] = numbers.get(each.call[0], 0) + 1
        self.calls = numbers
        for label, module in self.modules.items():
            own = [each for each in noted if each.call[0] == id(module)]
            if own:  # at its last call, where `LayerReader` reads it
                self.ends[label] = own[-1].end
                self.plans[label] = self._make_plan(noted, own[-1].end)
        whole = self.run(arguments, everything=True)
        wanted = logits(whole.output)
        for label, plan in self.plans.items():
            count = len(plan.skipped)
            for real in range(1, count + 2):  # at the very last, the network's input too
                plan.needed, plan.arguments = min(real, count), real > count
                if self._gives(label, whole, wanted, 1, logits):
                    plan.tiles = self._gives(label, whole, wanted, 2, logits)
                    break
            else:
                plan.needed = None

    def run(self, arguments: tuple[Any, ...], everything: bool = False) -> RecordedRun:
        """Run the network whole, and keep what running from the layers on needs.

        Args:
            arguments: of the network.
            everything: keep all that any plan hands out, with values.
        """
        from torch.utils._pytree import tree_map

        made, counts = RecordedRun(None, arguments), dict.fromkeys(self._by_id, 0)
        with_values: dict[Call, bool] = {}
        for plan in self.plans.values():
            if plan.needed is None and not everything:
                continue
            first = 0 if everything else len(plan.skipped) - (plan.needed or 0)
            for place, call in enumerate(plan.skipped):
                with_values[call] = with_values.get(call, False) or place >= first

        def keep(module: nn.Module, _: Any, output: Any) -> None:
            call = (id(module), counts[id(module)])
            counts[id(module)] += 1
            if call in with_values:
                # a copy: what comes later may write over it
                made.kept[call] = tree_map(_copy if with_values[call] else _hollow, output)

        modules = [self._by_id[each] for each in {id_ for id_, _ in with_values}]
        handles = [module.register_forward_hook(keep) for module in modules]
        try:
            made.output = self.model(*arguments)
        finally:
            for handle in handles:
                handle.remove()
        return made

    def run_from(self, label: str, whole: RecordedRun, times: int = 1) -> Any:
        """Run from a layer on, and return what the network gives.

        Args:
            label: of the layer.
            whole: of the batch.
            times: so many copies of the batch, one after the other. The values of the layer
                itself are to be changed by a hook on its module, not in place.
        """
        from torch.utils._pytree import tree_map

        plan, count = self.plans[label], _count(whole.arguments)
        assert plan.needed is not None
        first = len(plan.skipped) - plan.needed
        values = {
            call: tree_map(
                lambda leaf, real=place >= first: _tiled(
                    leaf if real else _hollow(leaf), count, times
                ),
                whole.kept[call],
            )
            for place, call in enumerate(plan.skipped)
        }
        arguments = tuple(
            _tiled(each if plan.arguments else _hollow(each), count, times)
            for each in whole.arguments
        )
        with self._handing_out(values, plan.queues):
            return self.model(*arguments)

    def remaining_calls(self, label: str | None, other: str) -> int:
        """Return how often a layer's module is called in a run from `label` on (None: whole)."""
        module = id(self.modules[other])
        return self.calls[module] if label is None else len(self.plans[label].queues[module])

    # ---- the first batch

    def _note(self, arguments: tuple[Any, ...]) -> list[_CallRecord]:
        """Return every call of a run, in the order in which they began."""
        noted: list[_CallRecord] = []
        inside: list[int] = []
        counts = dict.fromkeys(self._by_id, 0)
        ended = 0

        def begins(module: nn.Module, _: Any) -> None:
            parent = inside[-1] if inside else None
            inside.append(len(noted))
            noted.append(_CallRecord((id(module), counts[id(module)]), parent))
            counts[id(module)] += 1

        def ends(*_: Any) -> None:
            nonlocal ended
            noted[inside.pop()].end = ended
            ended += 1

        handles: list[Any] = []
        for module in self._by_id.values():
            handles.append(module.register_forward_pre_hook(begins))
            handles.append(module.register_forward_hook(ends))
        try:
            self.model(*arguments)
        finally:
            for handle in handles:
                handle.remove()
        return noted

    def _make_plan(self, noted: list[_CallRecord], end: int) -> ReplayPlan:
        """Return what is skipped when all that ended up to `end` is known."""
        done = [each.end <= end for each in noted]
        below = [False] * len(noted)  # whether a call is part of one that is skipped
        for place, each in enumerate(noted):  # parents come first
            below[place] = each.parent is not None and (below[each.parent] or done[each.parent])
        skipped = [each for place, each in enumerate(noted) if done[place] and not below[place]]
        queues: dict[int, list[int]] = {id_: [] for id_ in self._by_id}
        for place, each in enumerate(noted):
            if not below[place]:
                queues[each.call[0]].append(each.call[1])
        return ReplayPlan(
            [each.call for each in sorted(skipped, key=lambda each: each.end)], queues
        )

    def _gives(
        self,
        label: str,
        whole: RecordedRun,
        wanted: Tensor,
        times: int,
        logits: Callable[[Any], Tensor],
    ) -> bool:
        """Say whether a run from a layer on gives what the whole run gave."""
        import torch

        try:
            found = logits(self.run_from(label, whole, times))
            if found.is_meta or found.shape[0] != times * wanted.shape[0]:
                return False
            near = TOLERANCE * max(1e-6, float(wanted.abs().max()))
            return torch.allclose(found, wanted.repeat(times, 1), rtol=0, atol=near)
        except Exception:  # torch says in many ways that a tensor has no values
            return False

    @contextmanager
    def _handing_out(
        self, values: Mapping[Call, Any], queues: Mapping[int, list[int]]
    ) -> Iterator[None]:
        """Make modules return these values at these calls, instead of computing."""
        changed: list[tuple[nn.Module, Any]] = []

        def instead(module: nn.Module) -> Callable[..., Any]:
            coming, forward = iter(queues[id(module)]), module.forward

            def returned(*arguments: Any, **named: Any) -> Any:
                call = (id(module), next(coming))
                return values[call] if call in values else forward(*arguments, **named)

            return returned

        try:
            for id_ in {id_ for id_, _ in values}:
                module = self._by_id[id_]
                changed.append((module, module.__dict__.get("forward")))
                module.forward = instead(module)
            yield
        finally:
            for module, before in changed:
                if before is None:
                    del module.__dict__["forward"]
                else:
                    module.forward = before


def _count(arguments: tuple[Any, ...]) -> int:
    return int(arguments[0].shape[0])


def _copy(leaf: Any) -> Any:
    return leaf.clone() if hasattr(leaf, "clone") else leaf


def _hollow(leaf: Any) -> Any:
    return leaf.to("meta") if hasattr(leaf, "is_meta") else leaf


def _tiled(leaf: Any, count: int, times: int) -> Any:
    """Return copies of a batch one after the other; a copy of its own even if it is one."""
    if not hasattr(leaf, "is_meta"):
        return leaf
    if leaf.ndim and leaf.shape[0] == count and times > 1:
        return leaf.repeat(times, *[1] * (leaf.ndim - 1))
    return leaf.clone()
