"""Conversion of the published checkpoints of 2022 to model folders.

    from milan.legacy.convert import convert, download

    convert("milan-base.pth", "milan-base")
    download("base", "milan-base")

The commands are `milan convert` and `milan download`.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from milan.config import Config, EncoderConfig
from milan.decoder import Decoder
from milan.encoder import LAYERS, Encoder, feature_size, restore
from milan.language_model import LanguageModel
from milan.legacy import pickle_reader
from milan.model import Milan
from milan.pretrained import CONFIG, WEIGHTS
from milannotations import exemplars
from milannotations.errors import InputError, some
from milannotations.exemplars.networks.weights import BATCH_COUNTER
from milannotations.published.download import MODELS, address, fetch
from milannotations.utils.cache import DEFAULT_FOLDER
from milannotations.utils.files import check_is_file, replacing, sha256

DECODER = {
    "init_h": "init_h.0",
    "init_c": "init_c.0",
    "embedding": "embedding",
    "query": "attend.query_to_hidden",
    "key": "attend.key_to_hidden",
    "energy": "attend.output.0",
    "gate": "feature_gate.0",
    "lstm": "lstm",
    "output": "output.1",
}
LANGUAGE_MODEL = {"embedding": "lm.embedding", "lstm": "lm.lstm", "output": "lm.output.0"}
"""Names of 2022 by our names of the layers; `DECODER` likewise."""

NETWORK = "encoder.encoder.model."
"""Prefix of the encoder network's weights in a checkpoint."""

NORMALISATION = ("encoder.mean", "encoder.std")
CLIP = "reranker."
KINDS = {"PyramidConvEncoder": "pyramid", "SpatialConvEncoder": "spatial"}
TOKENIZER = {"lemmatize": False, "lowercase": True, "ignore_stop": False, "ignore_punct": False}
SPECIAL = ("start", "stop", "pad", "unk")
LARGEST = 1 << 14
"""Largest size of a layer, the vocabulary aside: bounds the memory that a file can ask for."""

MODEL_FILES = {CONFIG, WEIGHTS, "README.md"}
State = dict[str, Tensor]


class _Checkpoint(NamedTuple):
    """Checked content of a checkpoint of 2022."""

    path: Path
    state: State
    config: Config


def convert(
    old: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    encoder_weights: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert a checkpoint of 2022 to a model folder, which `Milan.from_pretrained` opens.

    Nothing in the file is run; see `milan.legacy.pickle_reader`.

    Args:
        old: checkpoint, such as `milan-base.pth`.
        out: folder; written whole or not at all.
        encoder_weights: file of the encoder's weights, under torchvision's names, for checkpoints
            that were saved without them.
        overwrite: replace a model that is in `out`.

    Returns:
        `out`.

    Raises:
        InputError: `old` is not a checkpoint of 2022, is damaged or holds something that may run
            code; weights are missing, or do not fit the settings or the vocabulary; `out` is
            taken.
    """
    out = check_free(out, overwrite)
    checkpoint = _read_checkpoint(Path(old))
    path, config = checkpoint.path, checkpoint.config
    encoder = _encoder(checkpoint, encoder_weights)
    prefixes = (*NORMALISATION, NETWORK)
    state = {
        name: value for name, value in checkpoint.state.items() if not name.startswith(prefixes)
    }
    _check_stored(state, path)
    _check_fits(state, _entries(config, encoder.config.feature_size), path)
    model = Milan(replace(config, encoder=encoder.config), encoder)
    _load(model.decoder, state, DECODER)
    if model.language_model is not None:
        _load(model.language_model, state, LANGUAGE_MODEL)
    with replacing(out) as temporary:
        model.save_pretrained(temporary)
    return out


def download(
    name: str,
    out: str | os.PathLike[str] | None = None,
    *,
    folder: str | os.PathLike[str] = DEFAULT_FOLDER,
    encoder_weights: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Download a published model and convert it to a model folder; see `convert`.

    Args:
        name: base, cls, gen, imagenet, places365, alexnet, resnet152 or biggan.
        out: folder of the model; None is `milan-NAME`.
        folder: folder of the downloaded file, and of the lock file with its checksum.
        encoder_weights, overwrite: see `convert`.
        options: `base` (address of a mirror), `lock`, `require_checksum` and others of
            `milannotations.published.download.fetch`.

    Returns:
        `out`.

    Raises:
        InputError: see `convert` and `milannotations.published.download.fetch`.
    """
    address(name, options.get("base"), MODELS)  # checks the name before folders are made
    out = check_free(f"milan-{name}" if out is None else out, overwrite)
    path = fetch(name, Path(folder).expanduser(), published=MODELS, **options)
    return convert(path, out, encoder_weights=encoder_weights, overwrite=overwrite)


def check_free(out: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Return the folder as a Path if a model can be written there.

    Raises:
        InputError: it is a file, holds something else than a model, or a model that must not be
            overwritten.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a model is a folder. Give another name.")
    held = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if held and (CONFIG not in held or held - MODEL_FILES):
        raise InputError(
            f"{out} holds {some(sorted(held - MODEL_FILES) or sorted(held), 3)}, which is no "
            "model. Give another folder, or a new one."
        )
    if held and not overwrite:
        raise InputError(f"{out} holds a model. Give another folder, or --overwrite.")
    return out


# ---- reading a checkpoint


def _read_checkpoint(path: Path) -> _Checkpoint:
    """Return the content of a checkpoint, checked as far as it can be without its encoder."""
    content = pickle_reader.read(check_is_file(path))
    expected = "Expected a decoder's checkpoint of 2022: properties, children and state_dict."
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}. {expected}")
    properties, state = content.get("properties"), content.get("state_dict")
    if not isinstance(properties, dict) or not isinstance(state, dict):
        raise InputError(f"{path} holds {_names(content)}. {expected}")
    if "encoder" not in properties and "indexer" in properties:
        raise InputError(
            f"{path} is a language model alone. {expected} A decoder's file has its language "
            "model in it: give that."
        )
    notes = []
    if "reranker_kwargs" in properties:
        state = {name: value for name, value in state.items() if not name.startswith(CLIP)}
        notes.append("CLIP, by which descriptions could be reranked, was left out.")
    not_tensors = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if not_tensors:
        raise InputError(f"{path}: {_names(not_tensors)} in state_dict are no tensors.")
    words = _vocabulary(properties, path)
    lm = properties.get("lm")
    if lm is not None:
        lm = _dict(lm, "properties", path)
        if _vocabulary(lm, path) != words:
            raise InputError(
                f"{path}: the decoder and its language model have different vocabularies, or one "
                "in another order. They are from different trainings."
            )
    rows = state["embedding.weight"].shape[:1] if "embedding.weight" in state else ()
    if rows != (len(words) + len(SPECIAL),):
        raise InputError(
            f"{path} has {len(words):,} words and 4 special tokens; its weights (embedding.weight) "
            f"are of {rows[0] if rows else 'no'} tokens. They do not belong together."
        )
    mean, std = (_channels(state, name, path) for name in NORMALISATION)
    name, kind = _network(content, properties, path)
    layers = LAYERS[name] if kind == "pyramid" else LAYERS[name][-1:]
    asked = {key: properties.get(key) for key in ("strategy", "temperature", "beam_size", "length")}
    # the settings do not hold the size of the attention: its weights do
    query = state.get("attend.query_to_hidden.weight")
    attention = query.shape[0] if query is not None and query.dim() else 1
    config = Config(
        vocabulary=words,
        encoder=EncoderConfig(name, layers, kind, mean, std),
        embedding_size=_size(properties, "embedding_size", path),
        hidden_size=_size(properties, "hidden_size", path),
        attention_size=_size({"attention_hidden_size": attention}, "attention_hidden_size", path),
        dropout=_number(properties, "dropout", path, 0.0, 1.0),
        length=_size(properties, "length", path),
        beam=_size(properties, "beam_size", path),
        lam=_number(properties, "temperature", path, -1e6, 1e6),
        lm_layers=0 if lm is None else _size(lm, "layers", path, 16),
        **{} if lm is None else _lm_sizes(lm, path),
    )
    made = {
        "by": "milan convert",
        "from": {"file": path.name, "sha256": sha256(path)},
        "settings_of_2022": {key: _plain(value) for key, value in asked.items()},
        "notes": notes,
    }
    return _Checkpoint(path, state, replace(config, made=made))


def _lm_sizes(lm: Mapping[str, Any], path: Path) -> dict[str, Any]:
    return {
        "lm_embedding_size": _size(lm, "embedding_size", path),
        "lm_hidden_size": _size(lm, "hidden_size", path),
        "lm_dropout": _number(lm, "dropout", path, 0.0, 1.0),
    }


def _vocabulary(owner: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return the words of a decoder or language model.

    Raises:
        InputError: they are not distinct words, or texts were tokenized in another way than ours.
    """
    indexer = _dict(owner.get("indexer"), "properties", path)
    words = _dict(indexer.get("vocab"), "properties", path).get("tokens")
    if not isinstance(words, tuple | list) or not all(type(word) is str for word in words):
        raise InputError(f"{path}: its vocabulary is {_kind(words)}; expected a tuple of words.")
    if len(set(words)) != len(words):
        raise InputError(f"{path}: its vocabulary holds a word twice.")
    tokenizer = _dict(indexer.get("tokenize"), "properties", path)
    wanted = {**TOKENIZER, **dict.fromkeys(SPECIAL, True)}
    for key, value in wanted.items():
        setting = (tokenizer if key in TOKENIZER else indexer).get(key)
        if setting is not value:
            raise InputError(
                f"{path}: its texts are indexed with {key}={_plain(setting)}; this reader knows "
                f"only {key}={value}, as in all published models."
            )
    return tuple(words)


def _network(
    content: Mapping[str, Any], properties: Mapping[str, Any], path: Path
) -> tuple[str, str]:
    """Return the name of the encoder's network, as `milan exemplars` takes it, and its kind."""
    children = _dict(content.get("children"), None, path)
    kind = children.get("encoder")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"{path}: its encoder is {_plain(kind)}; expected {' or '.join(KINDS)}.")
    name = _dict(properties.get("encoder"), "properties", path).get("config")
    if not isinstance(name, str) or f"torchvision:{name}" not in LAYERS:
        known = [network.partition(":")[2] for network in LAYERS if ":" in network]
        raise InputError(
            f"{path}: its encoder's network is {_plain(name)}; known: {some(known, 9)}."
        )
    return f"torchvision:{name}", KINDS[kind]


def _channels(state: State, name: str, path: Path) -> tuple[float, ...]:
    """Return the numbers of an entry that has one per colour channel."""
    value = state.get(name)
    if value is None or value.shape != (1, 3, 1, 1) or not value.isfinite().all():
        raise InputError(f"{path}: expected 3 numbers {name}, of shape 1 x 3 x 1 x 1.")
    # the shortest decimals of a float32: 0.485, not 0.4850000143051147
    return tuple(float(str(number)) for number in value.float().flatten().numpy())


def _dict(value: Any, inside: str | None, path: Path) -> dict[str, Any]:
    """Return a dict of the file, or the one under a key of it."""
    content = value.get(inside) if isinstance(value, dict) and inside else value
    if not isinstance(content, dict):
        raise InputError(
            f"{path} has not the structure of a checkpoint of 2022: {_kind(content)} where "
            f"{inside or 'settings'} were expected."
        )
    return content


def _size(owner: Mapping[str, Any], name: str, path: Path, largest: int = LARGEST) -> int:
    value = owner.get(name)
    if type(value) is not int or not 1 <= value <= largest:
        raise InputError(
            f"{path}: {name} is {_plain(value)}; expected a whole number from 1 to {largest:,}."
        )
    return value


def _number(owner: Mapping[str, Any], name: str, path: Path, low: float, high: float) -> float:
    value = owner.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or not is_number or not low <= value <= high:
        raise InputError(f"{path}: {name} is {_plain(value)}; expected a number {low:g}-{high:g}.")
    return float(value)


def _plain(value: Any) -> Any:
    """Return a setting for a record or a message: the value if it is small, else its type."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < 1e12:
        return value
    return ascii(value[:50])[1:-1] if isinstance(value, str) else _kind(value)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _names(names: Any) -> str:
    return some([ascii(name[:50])[1:-1] for name in names], 3) or "nothing"


# ---- weights


def _encoder(checkpoint: _Checkpoint, weights: str | os.PathLike[str] | None) -> Encoder:
    """Return the encoder, with the weights of the checkpoint or of a file."""
    config, path = checkpoint.config.encoder, checkpoint.path
    state = {name: value for name, value in checkpoint.state.items() if name.startswith(NETWORK)}
    if not state and weights is None:
        raise InputError(
            f"{path} was saved without its encoder's weights. Give those of "
            f"{config.backbone.partition(':')[2]}, under torchvision's names: "
            "--encoder-weights FILE"
        )
    if state and weights is not None:
        raise InputError(f"{path} has its encoder's weights; leave out --encoder-weights.")
    if weights is None:
        network = restore(config).backbone
        entries = network.state_dict().items()
        _check_fits(state, {f"{NETWORK}{name}": value for name, value in entries}, path)
        # not strict: counters of batches may be missing, and nothing depends on them
        network.load_state_dict(
            {name.removeprefix(NETWORK): value for name, value in state.items()}, strict=False
        )
        config = replace(config, weights={"from": path.name})
    else:
        loaded = exemplars.load_model(config.backbone, weights=Path(weights))
        network = loaded.model
        config = replace(config, weights=loaded.source, missing=loaded.missing)
    return Encoder(replace(config, feature_size=feature_size(config, network)), network)


def _entries(config: Config, features: int) -> State:
    """Return the entries that a checkpoint must have, under the names of 2022.

    They are on the device `meta`: shapes and types without memory.
    """
    words = len(config.vocabulary) + len(SPECIAL)
    with torch.device("meta"):
        sizes = (config.embedding_size, config.hidden_size, config.attention_size)
        modules: list[tuple[nn.Module, dict[str, str]]] = [
            (Decoder(words, features, *sizes), DECODER)
        ]
        if config.lm_layers:
            sizes = (config.lm_embedding_size, config.lm_hidden_size, config.lm_layers)
            modules.append((LanguageModel(words, 0, *sizes), LANGUAGE_MODEL))
        return {
            _name_of_2022(name, names): value
            for module, names in modules
            for name, value in module.state_dict().items()
        }


def _name_of_2022(name: str, names: Mapping[str, str]) -> str:
    layer, _, parameter = name.rpartition(".")
    return f"{names[layer]}.{parameter}"


def _check_fits(state: State, expected: State, path: Path) -> None:
    """Raise InputError unless a state has the expected entries, shapes and types."""
    missing = [name for name in expected if name not in state and not name.endswith(BATCH_COUNTER)]
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        parts = [f"missing {_names(missing)}"] if missing else []
        parts += [f"unexpected {_names(unexpected)}"] if unexpected else []
        raise InputError(f"{path}: its weights are not those of its settings: {'; '.join(parts)}.")
    for name, value in state.items():
        shape = expected[name].shape
        if value.shape != shape:
            raise InputError(
                f"{path}: {name} is {_shape(value)}; its settings say {_shape(expected[name])}."
            )
        if value.is_floating_point() != expected[name].is_floating_point():
            raise InputError(
                f"{path}: {name} is of {value.dtype}; expected {expected[name].dtype}."
            )
        if not value.isfinite().all():
            raise InputError(f"{path}: {name} holds infinite numbers or NaN.")


def _check_stored(state: State, path: Path) -> None:
    """Raise InputError if the entries are larger than the file.

    A tensor of stride 0 has many elements and one number in the file; converting it would write
    them all.
    """
    numbers, size = sum(value.numel() for value in state.values()), path.stat().st_size
    if numbers > size:
        raise InputError(
            f"{path} has {size:,} bytes, and its weights are {numbers:,} numbers: it is damaged, "
            "or made to fill the memory."
        )


def _load(module: nn.Module, state: State, names: Mapping[str, str]) -> None:
    """Load a module's weights from a state with the names of 2022."""
    module.load_state_dict(
        {name: state[_name_of_2022(name, names)] for name in module.state_dict()}
    )


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
