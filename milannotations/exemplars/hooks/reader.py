"""Reads what layers give out while a network runs, and stops it when no more is needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from milannotations.errors import InputError, some
from milannotations.exemplars.hooks.layers import Layer, find_modules, select_tensor

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILIES_2022 = (
    "alexnet",
    "densenet",
    "mobilenetv2",
    "resnet",
    "shufflenetv2",
    "squeezenet",
    "vgg",
)
"""Families of torchvision whose exemplars the 2022 code made; see `LayerReader`."""

READ_MODES = ("auto", "pre", "post")


class _StopForwardError(Exception):
    """Ends a forward pass once everything that is wanted has been seen."""


def is_2022_family(model: nn.Module) -> bool:
    """Say whether a network is of a family that the 2022 code made exemplars of."""
    module = type(model).__module__
    return module.startswith("torchvision.models.") and module.rsplit(".", 1)[-1] in FAMILIES_2022


class LayerReader:
    """Runs a network and returns what some of its layers gave.

    Some operations write their result over their input. A ReLU that does turns the output of
    the convolution before it into the rectified one. What is then read:

    - `pre`: the tensor as the layer returned it;
    - `post`: the tensor as it stands when the network is done with it, which is what the 2022
      code recorded (Hernandez et al.; AlexNet, VGG and SqueezeNet after their ReLU; ResNet's
      conv1 raw, its stages after their ReLU; DenseNet and MobileNet raw);
    - `auto`: `post` for those families of torchvision, `pre` for all others.

    The first run goes through the whole network and learns when the last of these tensors is
    final; later runs stop there. A module that is called several times in a run is read at its
    last call.

    Args:
        model: in evaluation mode.
        layers: what to read.
        read: see above.
        missing: entries of the network's state that have no weights; a layer whose value
            depends on one is refused.

    Raises:
        InputError: see `find_modules`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        read: str = "auto",
        missing: Sequence[str] = (),
    ) -> None:
        if read not in READ_MODES:
            raise InputError(
                f"read='{read}' was asked for; expected one of {', '.join(READ_MODES)}."
            )
        modules = find_modules(model, layers)
        self.model, self.layers = model, tuple(layers)
        self.read = ("post" if is_2022_family(model) else "pre") if read == "auto" else read
        self._wanted: dict[int, list[Layer]] = {}
        for layer in layers:
            self._wanted.setdefault(id(modules[layer.name]), []).append(layer)
        self._missing = tuple(missing)
        self._names = {id(module): name for name, module in model.named_modules()}
        self._handles: list[Any] = []
        self._seen: dict[str, Tensor] = {}
        self._events = 0
        self._enough: int | None = None
        self._learning = True
        # of the first run: what was tapped, with its version; the modules that finished, in
        # order; the event after which all tensors are final; those that are written over
        self._tapped: dict[str, tuple[Tensor, int]] = {}
        self._finished: list[str] = []
        self._final = 0
        self._overwritten: set[str] = set()

    def __enter__(self) -> Self:
        self._handles = [m.register_forward_hook(self._hook) for m in self.model.modules()]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def run(self, *arguments: Any, **named: Any) -> dict[str, Tensor]:
        """Run the network once and return the tensors of the layers, by label.

        Raises:
            InputError: a layer that the run does not reach, or that needs missing weights.
        """
        self._seen, self._events = {}, 0
        if self._learning:  # an earlier attempt may have failed half-way
            self._tapped, self._finished, self._final, self._overwritten = {}, [], 0, set()
        with suppress(_StopForwardError):
            self.model(*arguments, **named)
        seen, self._seen = self._seen, {}
        unreached = [layer.label for layer in self.layers if layer.label not in seen]
        if unreached:
            raise InputError(
                f"The network ran without reaching {some(unreached)}: its forward() does not "
                "call that module."
            )
        if self._learning:
            self._learn()
        return seen

    def _hook(self, module: nn.Module, _: Any, output: Any) -> None:
        self._events += 1
        if self._learning:
            self._finished.append(self._names[id(module)])
            self._look_for_changes()
        for layer in self._wanted.get(id(module), ()):
            tensor = select_tensor(output, layer)
            # until it is known which tensors are written over, all of them are copied
            if self.read == "pre" and (self._learning or layer.label in self._overwritten):
                self._seen[layer.label] = tensor.clone()
            else:
                self._seen[layer.label] = tensor
            if self._learning:
                self._tapped[layer.label] = (tensor, tensor._version)
                self._final = self._events
        if self._events == self._enough:
            raise _StopForwardError

    def _look_for_changes(self) -> bool:
        changed = [
            label for label, (tensor, seen) in self._tapped.items() if tensor._version != seen
        ]
        for label in changed:
            tensor = self._tapped[label][0]
            self._tapped[label] = (tensor, tensor._version)
            self._overwritten.add(label)
            if self.read == "post":
                self._final = self._events
        return bool(changed)

    def _learn(self) -> None:
        """Conclude from the first run where later ones may stop."""
        is_late = self._look_for_changes() and self.read == "post"
        self._enough = None if is_late else self._final
        before = self._finished if is_late else self._finished[: self._final]
        lacking = [entry for entry in self._missing if _is_used(entry, before)]
        if lacking:
            raise InputError(
                f"The weights lack {some(lacking)}, which the layers asked for need "
                f"({', '.join(layer.label for layer in self.layers)}). Ask for earlier layers, "
                "or give complete weights."
            )
        self._learning, self._tapped, self._finished = False, {}, []


def _is_used(entry: str, finished: Sequence[str]) -> bool:
    """Say whether the module that holds an entry, or one inside it, has run."""
    owner = entry.rpartition(".")[0]
    return not owner or any(
        name == owner or name.startswith(f"{owner}.") for name in finished if name
    )
