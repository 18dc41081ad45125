"""Reading of layers while a network runs, stopping it as soon as all of them are final."""

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
"""Torchvision's families of networks that the 2022 code computed exemplars of."""

READ_MODES = ("auto", "pre", "post")


class _StopForwardError(Exception):
    """Signal that ends a forward pass once every layer has been read."""


def is_2022_family(model: nn.Module) -> bool:
    """Return whether a network belongs to a family that the 2022 code computed exemplars of."""
    module = type(model).__module__
    return module.startswith("torchvision.models.") and module.rsplit(".", 1)[-1] in FAMILIES_2022


class LayerReader:
    """Runner of a network that returns the outputs of some of its layers.

    Some operations write their result over their input: an in-place ReLU turns the output of the
    convolution before it into the rectified one. Which of the two is read depends on the mode:

    - `pre`: the tensor as the layer returned it;
    - `post`: the tensor as it stands at the end of the forward pass. The 2022 code recorded this
      (Hernandez et al.): AlexNet, VGG and SqueezeNet after their ReLU; ResNet's conv1 before it
      and its stages after it; DenseNet and MobileNet before it;
    - `auto`: `post` for those families of torchvision, `pre` for all other networks.

    The first run goes through the whole network and learns when the last of these tensors becomes
    final; later runs stop there. If a module is called several times, its last call is read.

    Args:
        model: network in evaluation mode.
        layers: layers to read.
        read: mode, see above.
        missing: entries of the network's state that its weights file lacks. A layer that depends
            on one is refused.

    Raises:
        InputError: no such mode or layer.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        read: str = "auto",
        missing: Sequence[str] = (),
    ) -> None:
        if read not in READ_MODES:
            raise InputError(f"No read mode '{read}' (modes: {', '.join(READ_MODES)}).")
        modules = find_modules(model, layers)
        self.model, self.layers = model, tuple(layers)
        self.read = ("post" if is_2022_family(model) else "pre") if read == "auto" else read
        self._layers_of: dict[int, list[Layer]] = {}  # by `id()` of the module
        for layer in layers:
            self._layers_of.setdefault(id(modules[layer.name]), []).append(layer)
        self._missing = tuple(missing)
        self._names = {id(module): name for name, module in model.named_modules()}
        self._handles: list[Any] = []
        self._outputs: dict[str, Tensor] = {}
        self._finished_calls = 0
        self._stop_after: int | None = None  # number of finished calls; None for the whole pass
        self._learning = True
        # Only during the first run. The tensors read, with torch's counter of in-place writes to
        # each (`_version`); names of the modules in the order in which they finished; number of
        # finished calls after which all tensors are final; labels of tensors written over.
        self._versions: dict[str, tuple[Tensor, int]] = {}
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
            InputError: a layer that the forward pass does not reach, or that needs missing
                weights.
        """
        self._outputs, self._finished_calls = {}, 0
        if self._learning:  # an earlier attempt may have failed half-way
            self._versions, self._finished, self._final = {}, [], 0
            self._overwritten = set()
        with suppress(_StopForwardError):
            self.model(*arguments, **named)
        outputs, self._outputs = self._outputs, {}
        unreached = [layer.label for layer in self.layers if layer.label not in outputs]
        if unreached:
            raise InputError(
                f"The network ran without reaching {some(unreached)}: its forward() does not "
                "call that module."
            )
        if self._learning:
            self._learn()
        return outputs

    def _hook(self, module: nn.Module, _: Any, output: Any) -> None:
        self._finished_calls += 1
        if self._learning:
            self._finished.append(self._names[id(module)])
            self._find_overwritten()
        for layer in self._layers_of.get(id(module), ()):
            tensor = select_tensor(output, layer)
            # Until it is known which tensors are written over, all of them are copied.
            if self.read == "pre" and (self._learning or layer.label in self._overwritten):
                self._outputs[layer.label] = tensor.clone()
            else:
                self._outputs[layer.label] = tensor
            if self._learning:
                self._versions[layer.label] = (tensor, tensor._version)
                self._final = self._finished_calls
        if self._finished_calls == self._stop_after:
            raise _StopForwardError

    def _find_overwritten(self) -> bool:
        """Note tensors written over since the last call; return whether there are any."""
        changed = [
            label
            for label, (tensor, version) in self._versions.items()
            if tensor._version != version
        ]
        for label in changed:
            tensor = self._versions[label][0]
            self._versions[label] = (tensor, tensor._version)
            self._overwritten.add(label)
            if self.read == "post":  # the values read changed, so they were not final before
                self._final = self._finished_calls
        return bool(changed)

    def _learn(self) -> None:
        """Conclude from the first run where later runs can stop."""
        # A write after the last module has finished is not seen by any hook: run to the end then.
        is_late = self._find_overwritten() and self.read == "post"
        self._stop_after = None if is_late else self._final
        used = self._finished if is_late else self._finished[: self._final]
        lacking = [entry for entry in self._missing if _is_used(entry, used)]
        if lacking:
            raise InputError(
                f"The weights lack {some(lacking)}, which these layers depend on: "
                f"{', '.join(layer.label for layer in self.layers)}. Choose earlier layers, or "
                "give complete weights."
            )
        self._learning, self._versions, self._finished = False, {}, []


def _is_used(entry: str, finished: Sequence[str]) -> bool:
    """Return whether the module that holds an entry of the state, or one inside it, has run."""
    owner = entry.rpartition(".")[0]
    return not owner or any(
        name == owner or name.startswith(f"{owner}.") for name in finished if name
    )
