"""What describing costs: search beside a plain loop, memory by the width of the beam, encoding.

Sizes are those of the models of Hernandez et al. 2022: 15 exemplars of 3,904 features, an LSTM
of 512 over a vocabulary of 5,000, descriptions of 15 words at most, a beam of 50. Weights are
random: what is timed does not depend on what is said, only on how long it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from bench.timing import line, seconds

if TYPE_CHECKING:
    from torch import Tensor

    from milan import Milan

K, FEATURES, WORDS, LENGTH, BEAM = 15, 3904, 5000, 15, 50
UNITS = 8
PICTURES = 32
PEAKED = 24.0
"""Of weights before the words' softmax: some words are likelier than others, as to a model."""

ENDING = 20.0, -6.0
"""How the score of `stop` grows with the count of words, and where it begins."""

NETWORK = "resnet18"

MEMORY = """
import sys
import torch
from bench.milan import UNITS, made, seen
model, features = made(True), seen(UNITS)
if sys.argv[1] != "0":
    model.describe_features(features, beam=int(sys.argv[1]))
peak = next(l for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""


def made(ends: bool = False) -> Milan:
    """Return a model of random weights, whose descriptions never end or end after some words.

    A cell of its LSTM counts words, and the likelihood of `stop` grows with it.
    """
    import torch

    from milan import Milan
    from milan.config import Config, EncoderConfig
    from milan.encoder import LAYERS, MINI

    torch.manual_seed(0)
    encoder = EncoderConfig(MINI, LAYERS[MINI], feature_size=FEATURES)
    model = Milan(Config(tuple(f"w{i}" for i in range(WORDS - 4)), encoder)).eval()
    decoder, stop = model.decoder, model.vocabulary.stop
    with torch.no_grad():
        decoder.output.weight *= PEAKED
        decoder.output.bias[stop] = -1e4
        if ends:
            decoder.init_c.weight[0] = decoder.init_c.bias[0] = 0
            for gate, bias in enumerate((20.0, 20.0, 0.25, 20.0)):  # c += tanh(0.25), h = tanh(c)
                row = gate * decoder.lstm.hidden_size
                decoder.lstm.weight_ih[row] = decoder.lstm.weight_hh[row] = 0
                decoder.lstm.bias_ih[row], decoder.lstm.bias_hh[row] = bias, 0.0
            decoder.output.weight[stop, 0], decoder.output.bias[stop] = ENDING
    return model


def seen(units: int) -> Tensor:
    """Return features of exemplars: not negative, many of them near 0, as after a ReLU."""
    import torch

    return torch.randn(units, K, FEATURES, generator=torch.Generator().manual_seed(1)).relu()


def plain(model: Milan, features: Tensor) -> tuple[list[str], list[float]]:
    """Return reranked descriptions, found in the plainest way that still is batched.

    Each place in the beam holds its own copy of its unit's features; at each word all of them
    are attended to, keys projected anew, finished descriptions too; log p(d) comes last.
    """
    import torch

    assert model.language_model is not None
    decoder, words = model.decoder, model.vocabulary
    units, width = len(features), BEAM
    copied = features.repeat_interleave(width, 0)
    mean = copied.mean(1)
    h, c = decoder.init_h(mean).tanh(), decoder.init_c(mean).tanh()
    tokens = torch.full((units * width, 1), words.start)
    scores = torch.full((units, width), -torch.inf)
    scores[:, 0] = 0
    done = torch.zeros(units * width, dtype=torch.bool)
    for place in range(LENGTH):
        hidden = decoder.query(h)[:, None] + decoder.key(copied)
        attention = decoder.energy(hidden.tanh()).softmax(1)
        context = (attention * copied).sum(1) * decoder.gate(h).sigmoid()
        h, c = decoder.lstm(torch.cat([decoder.embedding(tokens[:, -1]), context], 1), (h, c))
        log_probs = decoder.output(h).log_softmax(-1)
        log_probs[:, [words.start, words.pad, words.unk]] = -torch.inf
        if place == 0:
            log_probs[:, words.stop] = -torch.inf
        log_probs[done] = -torch.inf
        log_probs[done, words.stop] = 0
        best, said = log_probs.topk(width)
        proposed = (scores.reshape(-1, 1) + best).reshape(units, -1)
        scores, chosen = proposed.topk(width)
        parent = (chosen // width + torch.arange(units)[:, None] * width).flatten()
        word = said.reshape(units, -1).gather(1, chosen).flatten()
        h, c, tokens = h[parent], c[parent], torch.cat([tokens[parent], word[:, None]], 1)
        done = done[parent] | (word == words.stop)
        if done.all():
            break
    said = model.language_model(tokens[:, :-1]).gather(2, tokens[:, 1:, None])[..., 0]
    over = (tokens[:, :-1] == words.stop).cummax(1).values
    log_p = said.masked_fill(over, 0).sum(1).reshape(units, width)
    value, best = (scores - model.config.lam * log_p).max(1)
    rows = tokens.reshape(units, width, -1)[torch.arange(units), best, 1:]
    return [words.decode(row) for row in rows.tolist()], value.tolist()


def counted(work: Any) -> float:
    """Return the floating-point operations of all matrix products of some work."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def lstm(x: Any, into: Any, across: Any, *_: Any, **__: Any) -> int:
        rows = x[0] * x[1]
        return int(2 * rows * (into[0] * into[1] + across[0] * across[1]))

    layer = torch.ops.aten.mkldnn_rnn_layer
    with FlopCounterMode(display=False, custom_mapping={layer: lstm}) as counter:
        work()
    return float(counter.get_total_flops())


def rate(rows: int) -> float:
    """Return the operations a second of torch's matrix products at the decoder's shapes."""
    import torch

    shapes = [(512, 512), (512, FEATURES), (FEATURES, 2048), (512, 2048), (512, WORDS)]
    pairs = [(torch.randn(rows, n), torch.randn(m, n)) for n, m in shapes]
    operations = 2 * rows * sum(n * m for n, m in shapes)
    work = lambda: [torch.nn.functional.linear(x, w) for x, w in pairs]  # noqa: E731
    work()
    return operations / min(seconds(work) for _ in range(5))


def search(what: str, ends: bool, aim: str) -> None:
    import torch

    model, features = made(ends), seen(UNITS)
    found: list[Any] = [None, None]

    def ours() -> None:
        found[0] = model.describe_features(features)

    def theirs() -> None:
        found[1] = plain(model, features)

    with torch.no_grad():
        model.describe_features(features[:1])
        # turn and turn about: the machine's other work falls on both
        times = [(seconds(ours), seconds(theirs)) for _ in range(2)]
        work, their_work = counted(ours), counted(theirs)
    mine, other = (min(each) for each in zip(*times, strict=True))
    texts, values = found[1]
    words = sum(len(text.split()) for text in found[0].text) / UNITS
    same = sum(a == b for a, b in zip(found[0].text, texts, strict=True))
    apart = max(abs(a - b) for a, b in zip(found[0].score, values, strict=True))
    print(f"\nDescriptions reranked, beam {BEAM}: {what}, {words:.1f} words on average")
    line("units a second, plain loop", UNITS / other, "units/s")
    line("units a second, here", UNITS / mine, "units/s")
    line("that is", other / mine, "x", aim)
    line("operations of the plain loop, beside ours", their_work / work, "x")
    line("operations a second, matrix products alone counted", work / mine / 1e9, "GFLOP/s")
    line("the plain loop's", their_work / other / 1e9, "GFLOP/s")
    line("torch's matrix products at these shapes", rate(UNITS * BEAM) / 1e9, "GFLOP/s")
    line(f"descriptions that are the same (scores within {apart:.0e})", same, f"of {UNITS}")


def memory() -> None:
    def peak(width: int) -> float:
        ran = subprocess.run(
            [sys.executable, "-c", MEMORY, str(width)],
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return float(ran.stdout)

    none, narrow, wide = peak(0), peak(BEAM), peak(4 * BEAM)
    print(f"\nMemory of a search, {UNITS} units")
    line(f"of a beam of {BEAM}, over model and features", narrow - none, "MB")
    line(f"of a beam of {4 * BEAM}", wide - none, "MB")
    copies = UNITS * 3 * BEAM * K * FEATURES * 4 / 2**20
    line("growth, beside one copy of the features for each added place", (wide - narrow) / copies)


def encoding() -> None:
    import torch
    import torchvision

    from milan.config import EncoderConfig
    from milan.encoder import LAYERS, Encoder

    images = torch.rand(PICTURES, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(PICTURES, 1, 224, 224, dtype=torch.bool)
    masks[:, :, 60:160, 40:120] = True
    print(f"\nEncoding with {NETWORK}, {PICTURES} pictures of 224 pixels, five layers")
    network = torchvision.models.get_model(NETWORK, weights=None).eval()
    backbone = f"torchvision:{NETWORK}"
    encoder = Encoder(EncoderConfig(backbone, LAYERS[backbone]), network)
    stages = [child for key, child in network.named_children() if key not in ("avgpool", "fc")]
    trunk = torch.nn.Sequential(*stages)
    works = (lambda: encoder(images, masks), lambda: trunk(images), lambda: network(images))
    with torch.no_grad():
        for work in works:
            work()
        times = [[seconds(work) for work in works] for _ in range(5)]
    whole, bare, full = (min(each) for each in zip(*times, strict=True))
    line("pictures a second", PICTURES / whole, "img/s")
    line("beside the bare network up to its last layer", whole / bare, "x", "aim: at most 1.10")
    line("beside the whole network", whole / full)


def run() -> None:
    search("nothing ends early", False, "aim: at least 2.5")
    search("ends of themselves", True, "aim: well past 2.5")
    memory()
    encoding()


if __name__ == "__main__":
    run()
