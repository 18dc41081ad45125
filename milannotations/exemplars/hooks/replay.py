"""Replay of a network from one of its layers on, reusing the results of everything before it.

While a network runs on a batch, the outputs of its modules are recorded. When it runs again from a
layer, every module that had finished before that layer did returns its recorded output at once
(modules inside it are not called at all), and operations between modules are computed anew. Hence
shortcuts around the layer receive their recorded values, in residual and dense networks too, and
the replay needs to know nothing of the network but its modules.

Most recorded outputs are not needed. Which ones are is learned on the first batch: an output that
is not needed becomes a tensor on torch's `meta` device, which has a shape and no values. Any
computation that would need the values fails or gives another `meta` tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

Call = tuple[int, int]
"""One call of a module in a forward pass: the module's `id()`, and the index of the call."""

TOLERANCE = 1e-4
"""Largest difference of a replayed output from the original, relative to the largest output."""


@dataclass
class ReplayPlan:
    """Plan for running the network from one layer on.

    Attributes:
        skipped: calls that return their recorded output, in the order in which they finished.
        queues: by module `id()`, the indices of its calls that still happen, in order.
        needed: number of calls at the end of `skipped` whose outputs need their values; None if
            the network cannot be replayed from this layer.
        arguments: whether the network's own inputs need their values.
        tiles: whether several copies of a batch can be replayed in one forward pass.
    """

    skipped: list[Call]
    queues: dict[int, list[int]]
    needed: int | None = None
    arguments: bool = False
    tiles: bool = False


@dataclass
class _CallRecord:
    """One call in the recorded order of calls.

    Attributes:
        call: the call.
        parent: index of the call that it happens in; None for the network itself.
        end: rank of the call in the order in which calls finish.
    """

    call: Call
    parent: int | None
    end: int = -1


@dataclass
class RecordedRun:
    """Output and arguments of a complete forward pass, and outputs of its modules by call."""

    output: Any
    arguments: tuple[Any, ...]
    outputs: dict[Call, Any] = field(default_factory=dict)


class Replay:
    """Runner of a network that replays it from its layers on, as often as needed.

    Args:
        model: network in evaluation mode.
        modules: modules to replay from, by label.

    Attributes:
        plans: by label; empty until `learn` has seen a batch.
        ends: by label, the rank of the layer in the order in which modules finish.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
        self.model, self.modules = model, dict(modules)
        self.plans: dict[str, ReplayPlan] = {}
        self.ends: dict[str, int] = {}
        self._call_counts: Counter[int] = Counter()
        self._by_id = {id(module): module for module in model.modules()}

    def learn(self, arguments: tuple[Any, ...], logits: Callable[[Any], Tensor]) -> None:
        """Make a plan for each layer, and test on a batch which recorded outputs it needs.

        Args:
            arguments: arguments of the network for one batch.
            logits: function that selects, from the network's output, the tensor that the replay
                has to reproduce.
        """
        records = self._record_calls(arguments)
        self._call_counts = Counter(record.call[0] for record in records)
        for label, module in self.modules.items():
            calls = [record for record in records if record.call[0] == id(module)]
            if calls:  # the last call is the one that `LayerReader` reads
                self.ends[label] = calls[-1].end
                self.plans[label] = self._make_plan(records, calls[-1].end)
        recorded = self.run(arguments, everything=True)
        expected = logits(recorded.output)
        for label, plan in self.plans.items():
            # What is needed is nearly always near the layer: its own output, and that of the
            # shortcut around it. So outputs get their values one by one, the latest first, until
            # the replay gives what the complete pass gave. The last attempt also gives the
            # network its real input.
            count = len(plan.skipped)
            for needed in range(1, count + 2):
                plan.needed, plan.arguments = min(needed, count), needed > count
                if self._reproduces(label, recorded, expected, 1, logits):
                    # e.g. a reshape to a constant batch size rules out several copies
                    plan.tiles = self._reproduces(label, recorded, expected, 2, logits)
                    break
            else:
                plan.needed = None

    def run(self, arguments: tuple[Any, ...], everything: bool = False) -> RecordedRun:
        """Run the complete network and record the outputs that the plans need.

        Args:
            arguments: arguments of the network.
            everything: record all outputs that any plan returns, with their values.
        """
        from torch.utils._pytree import tree_map

        recorded, counts = RecordedRun(None, arguments), Counter[int]()
        # Plans share calls: one keeps its values if any plan needs them.
        with_values: dict[Call, bool] = {}
        for plan in self.plans.values():
            if plan.needed is None and not everything:
                continue
            first = 0 if everything else len(plan.skipped) - (plan.needed or 0)
            for index, call in enumerate(plan.skipped):
                with_values[call] = with_values.get(call, False) or index >= first

        def record(module: nn.Module, _: Any, output: Any) -> None:
            call = (id(module), counts[id(module)])
            counts[id(module)] += 1
            if call in with_values:
                # a copy, because later operations may write over the tensor
                keep = _copy if with_values[call] else _drop_values
                recorded.outputs[call] = tree_map(keep, output)

        modules = [self._by_id[id_] for id_ in {id_ for id_, _ in with_values}]
        handles = [module.register_forward_hook(record) for module in modules]
        try:
            recorded.output = self.model(*arguments)
        finally:
            for handle in handles:
                handle.remove()
        return recorded

    def run_from(self, label: str, recorded: RecordedRun, times: int = 1) -> Any:
        """Run the network from a layer on and return its output.

        The layer's own output is changed by a hook on its module, not in place.

        Args:
            label: label of the layer.
            recorded: complete run of the batch.
            times: number of copies of the batch, one after the other along its first axis.
        """
        from torch.utils._pytree import tree_map

        plan, count = self.plans[label], _batch_size(recorded.arguments)
        assert plan.needed is not None
        first = len(plan.skipped) - plan.needed

        def prepare(leaf: Any, needed: bool) -> Any:
            # another plan may have kept values that this one does not need
            return _tile(leaf if needed else _drop_values(leaf), count, times)

        outputs = {}
        for i, call in enumerate(plan.skipped):
            prepare_leaf = partial(prepare, needed=i >= first)
            outputs[call] = tree_map(prepare_leaf, recorded.outputs[call])
        arguments = tuple(prepare(argument, plan.arguments) for argument in recorded.arguments)
        with self._replaced_forwards(outputs, plan.queues):
            return self.model(*arguments)

    def remaining_calls(self, label: str | None, other: str) -> int:
        """Return the number of calls of a layer's module in a replay.

        Args:
            label: layer that the replay starts from; None for a complete run.
            other: layer whose calls are counted.
        """
        module = id(self.modules[other])
        return self._call_counts[module] if label is None else len(self.plans[label].queues[module])

    # ---- learning from the first batch

    def _record_calls(self, arguments: tuple[Any, ...]) -> list[_CallRecord]:
        """Return every call of a forward pass, in the order in which calls begin."""
        records: list[_CallRecord] = []
        stack: list[int] = []  # indices of the calls that have begun and not finished
        counts: Counter[int] = Counter()
        finished = 0

        def begin(module: nn.Module, _: Any) -> None:
            parent = stack[-1] if stack else None
            stack.append(len(records))
            records.append(_CallRecord((id(module), counts[id(module)]), parent))
            counts[id(module)] += 1

        def end(*_: Any) -> None:
            nonlocal finished
            records[stack.pop()].end = finished
            finished += 1

        handles: list[Any] = []
        for module in self._by_id.values():
            handles.append(module.register_forward_pre_hook(begin))
            handles.append(module.register_forward_hook(end))
        try:
            self.model(*arguments)
        finally:
            for handle in handles:
                handle.remove()
        return records

    def _make_plan(self, records: list[_CallRecord], end: int) -> ReplayPlan:
        """Return the plan that skips every call which finished at or before rank `end`."""
        finished = [record.end <= end for record in records]
        # A call inside a skipped call does not happen at all. Parents precede their children in
        # `records`, so one pass decides for all levels of nesting.
        inside = [False] * len(records)
        for i, record in enumerate(records):
            if record.parent is not None:
                inside[i] = inside[record.parent] or finished[record.parent]
        skipped = [record for i, record in enumerate(records) if finished[i] and not inside[i]]
        # A module is called fewer times in the replay than in the complete run. Its queue maps
        # the n-th call of the replay to the index of that call in the complete run.
        queues: dict[int, list[int]] = {id_: [] for id_ in self._by_id}
        for i, record in enumerate(records):
            if not inside[i]:
                queues[record.call[0]].append(record.call[1])
        skipped.sort(key=lambda record: record.end)
        return ReplayPlan([record.call for record in skipped], queues)

    def _reproduces(
        self,
        label: str,
        recorded: RecordedRun,
        expected: Tensor,
        times: int,
        logits: Callable[[Any], Tensor],
    ) -> bool:
        """Return whether the replay of `times` copies gives the expected tensor in each copy."""
        import torch

        try:
            output = logits(self.run_from(label, recorded, times))
            if output.is_meta or output.shape[0] != times * expected.shape[0]:
                return False
            atol = TOLERANCE * max(1e-6, float(expected.abs().max()))
            return torch.allclose(output, expected.repeat(times, 1), rtol=0, atol=atol)
        except Exception:  # torch raises errors of many types for a tensor without values
            return False

    @contextmanager
    def _replaced_forwards(
        self, outputs: Mapping[Call, Any], queues: Mapping[int, list[int]]
    ) -> Iterator[None]:
        """Make modules return recorded outputs at the calls that have one."""
        replaced: list[tuple[nn.Module, Any]] = []

        def replace(module: nn.Module) -> Callable[..., Any]:
            indices, forward = iter(queues[id(module)]), module.forward

            def replay_or_compute(*arguments: Any, **named: Any) -> Any:
                call = (id(module), next(indices))
                return outputs[call] if call in outputs else forward(*arguments, **named)

            return replay_or_compute

        # Replacing `forward` rather than the whole call keeps the module's hooks: the ablation
        # of the layer itself is one.
        try:
            for id_ in {id_ for id_, _ in outputs}:
                module = self._by_id[id_]
                replaced.append((module, module.__dict__.get("forward")))
                module.forward = replace(module)
            yield
        finally:
            for module, forward in replaced:
                if forward is None:
                    del module.__dict__["forward"]  # the class's own method is visible again
                else:
                    module.forward = forward


def _batch_size(arguments: tuple[Any, ...]) -> int:
    return int(arguments[0].shape[0])


def _copy(leaf: Any) -> Any:
    return leaf.clone() if hasattr(leaf, "clone") else leaf


def _drop_values(leaf: Any) -> Any:
    return leaf.to("meta") if hasattr(leaf, "is_meta") else leaf


def _tile(leaf: Any, count: int, times: int) -> Any:
    """Return copies of a batch one after the other; always a new tensor, even for one copy."""
    if not hasattr(leaf, "is_meta"):
        return leaf
    if leaf.ndim and leaf.shape[0] == count and times > 1:
        return leaf.repeat(times, *[1] * (leaf.ndim - 1))
    return leaf.clone()
