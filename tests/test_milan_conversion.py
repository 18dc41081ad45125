"""Checkpoints of 2022: what they hold, what they may not hold, and how they are damaged."""

import builtins
import contextlib
import http.server
import json
import pickle
import random
import struct
import subprocess
import sys
import threading
import warnings
import zipfile

import confection
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaderboard.cli import main
from milan import Milan
from milan.legacy import convert, pickle_reader
from milannotations import InputError
from milannotations.published.download import MODELS, address
from milannotations.published.lock_file import LOCK

WORDS = ("a", "dog", "dogs", "of", "sky")
V, F = len(WORDS) + 4, 1024
E, H, A = 3, 4, 4
"""Sizes of words, of the LSTM and of the attention; of the language model, 2 and 3."""

SHAPES = {
    "lm.embedding.weight": (V, 2),
    "lm.lstm.weight_ih_l0": (12, 2),
    "lm.lstm.weight_hh_l0": (12, 3),
    "lm.lstm.bias_ih_l0": (12,),
    "lm.lstm.bias_hh_l0": (12,),
    "lm.lstm.weight_ih_l1": (12, 3),
    "lm.lstm.weight_hh_l1": (12, 3),
    "lm.lstm.bias_ih_l1": (12,),
    "lm.lstm.bias_hh_l1": (12,),
    "lm.output.0.weight": (V, 3),
    "lm.output.0.bias": (V,),
    "init_h.0.weight": (H, F),
    "init_h.0.bias": (H,),
    "init_c.0.weight": (H, F),
    "init_c.0.bias": (H,),
    "embedding.weight": (V, E),
    "attend.query_to_hidden.weight": (A, H),
    "attend.query_to_hidden.bias": (A,),
    "attend.key_to_hidden.weight": (A, F),
    "attend.key_to_hidden.bias": (A,),
    "attend.output.0.weight": (1, A),
    "attend.output.0.bias": (1,),
    "feature_gate.0.weight": (F, H),
    "feature_gate.0.bias": (F,),
    "lstm.weight_ih": (4 * H, E + F),
    "lstm.weight_hh": (4 * H, H),
    "lstm.bias_ih": (4 * H,),
    "lstm.bias_hh": (4 * H,),
    "output.1.weight": (V, H),
    "output.1.bias": (V,),
}


def indexer():
    nlp = confection.Config({"nlp": {"lang": "en", "pipeline": []}, "training": {"seed": 0}})
    tokenize = {
        "nlp": (nlp, b"spaCy's own state \xff"),
        "lemmatize": False,
        "lowercase": True,
        "ignore_stop": False,
        "ignore_punct": False,
    }
    return {
        "properties": {
            "vocab": {"properties": {"tokens": WORDS}, "children": {}},
            "tokenize": {"properties": tokenize, "children": {}},
            **dict.fromkeys(("start", "stop", "pad", "unk"), True),
            "length": None,
        },
        "children": {},
    }


def checkpoint(lm=True, network=True):
    """Return what a checkpoint of 2022 holds: sizes of a toy, a network of zeros."""
    numbers = torch.Generator().manual_seed(0)
    shapes = SHAPES if lm else {k: v for k, v in SHAPES.items() if not k.startswith("lm.")}
    state = {name: torch.randn(shape, generator=numbers) for name, shape in shapes.items()}
    state["encoder.mean"] = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    state["encoder.std"] = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    if network:
        with torch.device("meta"):
            resnet = torchvision.models.resnet18().state_dict()
        for name, value in resnet.items():  # one number each, to stay small
            zero = torch.zeros((), dtype=value.dtype).expand(value.shape)
            state[f"encoder.encoder.model.{name}"] = zero
    lm_properties = {
        "indexer": indexer(),
        "embedding_size": 2,
        "hidden_size": 3,
        "layers": 2,
        "dropout": 0.5,
    }
    return {
        "properties": {
            "indexer": indexer(),
            "encoder": {"properties": {"config": "resnet18", "pretrained": True}, "children": {}},
            "lm": {"properties": lm_properties, "children": {}} if lm else None,
            "embedding_size": 3,
            "hidden_size": 4,
            "attention_hidden_size": None,
            "dropout": 0.5,
            "length": 15,
            "strategy": "rerank" if lm else "beam",
            "temperature": 0.3,
            "beam_size": 7,
        },
        "children": {"encoder": "PyramidConvEncoder"},
        "state_dict": torch.nn.Module().state_dict() | state,
    }


@pytest.fixture
def save(tmp_path):
    """Return a function that saves a checkpoint, or anything else."""

    def write(content, name="old.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return write


def with_pickle(path, program, **more):
    """Write a checkpoint with another pickle, or other files, whole; return its path."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    (root,) = {name.split("/")[0] for name in held}
    held[f"{root}/data.pkl"] = program(held[f"{root}/data.pkl"])
    held |= {f"{root}/{name}": content for name, content in more.items()}
    made = path.with_name("made.pth")
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    return made


def handmade(tmp_path, program, **members):
    """Write a file as torch.save does, of a pickle written by hand."""
    path = tmp_path / "handmade.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("handmade/data.pkl", program)
        for name, content in members.items():
            archive.writestr(f"handmade/{name}", content)
    return path


# --- what is read


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_contents_come_back_as_plain_data_whatever_the_protocol(save, protocol):
    content = checkpoint()
    read = pickle_reader.read(save(content, pickle_protocol=protocol))
    assert read["children"] == content["children"]
    nlp, state = read["properties"]["indexer"]["properties"]["tokenize"]["properties"]["nlp"]
    assert type(nlp) is dict
    assert nlp["nlp"]["lang"] == "en"
    assert state == (b"" if protocol == 2 else b"spaCy's own state \xff")
    assert list(read["state_dict"]) == list(content["state_dict"])
    for name, value in content["state_dict"].items():
        torch.testing.assert_close(read["state_dict"][name], value, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["thinc.config", "confection", "confection._config"])
def test_the_config_is_known_by_its_names_of_all_years(save, name):
    old = b"cconfection._config\nConfig\n"
    assert save(checkpoint()).read_bytes().count(old) == 1
    path = with_pickle(save(checkpoint()), lambda p: p.replace(old, f"c{name}\nConfig\n".encode()))
    assert pickle_reader.read(path)["properties"]["length"] == 15


def test_tensors_of_all_kinds_shapes_and_overlaps_come_back(save):
    base = torch.arange(24.0).view(2, 3, 4)
    content = {
        "transposed": base.permute(2, 0, 1),
        "part": base[1, 1:, ::2],
        "number": torch.tensor(3),
        "none": torch.zeros(0, 5),
        "parameter": torch.nn.Parameter(base),
        **{str(d): torch.ones(3).to(d) for d in pickle_reader.DTYPES.values()},
    }
    read = pickle_reader.read(save(content))
    for name, value in content.items():
        torch.testing.assert_close(read[name], value.detach(), rtol=0, atol=0)
    assert not read["parameter"].requires_grad


# --- what would run code


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def attacks(marker):
    import os

    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "posix.system": Calls(os.system, f"touch {marker}"),
        "builtin__.eval": Calls(eval, code),
        "builtin__.exec": Calls(exec, code),
        ".check_call": Calls(subprocess.check_call, ["touch", str(marker)]),
        "builtin__.getattr": Calls(builtins.getattr, {}, "clear"),
        "io.open": Calls(open, str(marker), "w"),
        "torch.serialization.load": Calls(torch.load, str(marker)),
        "torch.hub.load": Calls(torch.hub.load, str(marker), "x"),
        "multiarray._reconstruct": np.zeros(3),
        "torch.device": torch.device("cpu"),
        "torch._utils._rebuild_device_tensor_from_numpy": Calls(
            torch._utils._rebuild_device_tensor_from_numpy, 1, 2, 3, 4
        ),
        "posix.remove": Calls(os.remove, str(marker)),
    }


PLACES = {
    "alone": lambda evil: evil,
    "in the state": lambda evil: {**checkpoint(), "state_dict": {"embedding.weight": evil}},
    "in a config": lambda evil: {"properties": confection.Config({"nlp": {"lang": evil}})},
    "in a tuple in a list": lambda evil: [{"a": (evil,)}],
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", attacks("marker"))
def test_what_may_run_code_is_refused_by_name_and_not_run(save, tmp_path, name, place, protocol):
    marker = tmp_path / "marker"
    evil = attacks(marker)[name]
    path = save(PLACES[place](evil), pickle_protocol=protocol)
    if protocol == 4:
        name = name.replace("builtin__", "builtins")
    with pytest.raises(InputError, match=name) as error:
        pickle_reader.read(path)
    assert "refused" in str(error.value)
    assert "Nothing" in str(error.value)
    assert not marker.exists()
    assert error.value.__cause__ is None


@pytest.mark.parametrize("name", ["posix.system", "builtin__.eval", ".check_call"])
def test_the_attacks_are_real(save, tmp_path, name):
    marker = tmp_path / "marker"
    torch.load(save([attacks(marker)[name]]), weights_only=False)
    assert marker.exists()


def test_attributes_of_a_config_are_dropped(save):
    class Config(confection.Config):
        def __reduce_ex__(self, _):
            return confection.Config, (), {"update": Calls(print), "__class__": 1}

    with pytest.raises(InputError, match=r"print"):
        pickle_reader.read(save({"c": Config()}))
    program = (
        b"\x80\x02cthinc.config\nConfig\n)\x81}(X\x09\x00\x00\x00__class__K\x01"
        b"X\x06\x00\x00\x00updateK\x02ub."
    )
    made = pickle_reader.read(handmade(save({}).parent, program))
    assert type(made) is dict
    assert made == {}


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


HAND = {
    "a dotted name": (
        b"\x80\x02ctorch\nos.system\n" + text("touch x") + b"\x85R.",
        "torch.os.system",
    ),
    "a dotted name, protocol 4": (
        b"\x80\x04" + text("torch") + text("os.system") + b"\x93" + text("x") + b"\x85R.",
        "torch.os.system",
    ),
    "a known name's own": (
        b"\x80\x04" + text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93.",
        "_rebuild_tensor_v2.__globals__",
    ),
    "a class's own": (b"\x80\x02ccollections\nOrderedDict.fromkeys\n.", "OrderedDict.fromkeys"),
    "codecs": (b"\x80\x02c_codecs\nencode\n" + text("a") + text("rot13") + b"\x86R.", "encode"),
    "other codecs": (b"\x80\x02c_codecs\ndecode\n.", "_codecs.decode"),
    "names that are no texts": (b"\x80\x04K\x01K\x02\x93.", "a name that is not a string"),
    "INST": (b"(S'touch x'\nios\nsystem\n.", "the opcode STRING"),
    "INST, bare": (b"(ios\nsystem\n.", "os.system"),
    "INST of a known name": (b"(icollections\nOrderedDict\n.", "collections.OrderedDict"),
    "OBJ": (b"\x80\x02(ccollections\nOrderedDict\no.", "the opcode OBJ"),
    "an extension": (b"\x80\x02\x82\x01.", "the opcode EXT1"),
    "a reducer of reducers": (b"\x80\x02ccopyreg\n_reconstructor\n.", "copyreg._reconstructor"),
    "a call of a text": (b"\x80\x02" + text("os.system") + text("x") + b"\x85R.", "call of a str"),
    "a call of what a call made": (b"\x80\x02ccollections\nOrderedDict\n)R)R.", "call of a dict"),
    "a call of a storage's type": (b"\x80\x02ctorch\nFloatStorage\nK\x05\x85R.", "FloatStorage"),
    "attributes of a text": (b"\x80\x02" + text("a") + b"}b.", "attributes of a str"),
    "attributes of a type": (b"\x80\x02cthinc.config\nConfig\n}b.", "attributes of a _Name"),
    "a persistent id of protocol 0": (b"Pos.system\n.", "the opcode PERSID"),
    "a persistent id that is a text": (
        b"\x80\x02" + text("os") + b"Q.",
        "that torch does not write",
    ),
    "terminal codes": (b"\x80\x02c\x1b[2J\x1b]0;x\x07\nsystem\n.", "x1b"),
    "keys that are no texts": (b"\x80\x02}K\x01K\x02s.", "keys"),
    "a dict with half a pair": (b"\x80\x02}(K\x01u.", "with keys"),
    "an append to a dict": (b"\x80\x02}K\x01a.", "appended to"),
    "keys of a list": (b"\x80\x02]" + text("a") + b"K\x01s.", "with keys"),
    "references to nothing": (b"\x80\x02h\x07.", "a memo reference that was never stored"),
    "an end without beginning": (b"\x80\x02t.", "no MARK to return to"),
    "too few": (b"\x80\x02\x86.", "too few operands"),
    "nothing": (b"\x80\x02.", "too few operands"),
    "no end": (b"\x80\x02N", "damaged"),
    "an unknown step": (b"\x80\x02\xff.", "damaged"),
    "half a text": (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
    "texts that are no UTF-8": (b"\x80\x02X\x02\x00\x00\x00\xff\xff.", "damaged"),
    "bytes": (b"", "damaged"),
}


@pytest.mark.parametrize("case", HAND)
def test_pickles_written_by_hand(tmp_path, case):
    program, says = HAND[case]
    with pytest.raises(InputError) as error:
        pickle_reader.read(handmade(tmp_path, program))
    assert says in str(error.value)
    assert str(error.value).isprintable()


def storage(kind=b"FloatStorage", key="0", count=4, module=b"torch"):
    return (
        b"(" + text("storage") + b"c" + module + b"\n" + kind + b"\n" + text(key) + text("cpu")
        + b"J" + struct.pack("<i", count) + b"tQ"
    )  # fmt: skip


def tensor(size, stride, offset=0, of=None):
    def numbers(values):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", v) for v in values) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + (of or storage()) + numbers([offset])[1:-1]
        + numbers(size) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


LIES = {
    "more numbers than there are": (tensor([4], [1], of=storage(count=5)), "5 numbers"),
    "fewer": (tensor([1], [1], of=storage(count=3)), "3 numbers"),
    "a negative count": (tensor([1], [1], of=storage(count=-1)), "-1 numbers"),
    "a size beyond": (tensor([5], [1]), "beyond its 4 numbers"),
    "an offset beyond": (tensor([1], [1], 4), "beyond its 4 numbers"),
    "a stride beyond": (tensor([2], [4]), "beyond its 4 numbers"),
    "a negative offset": (tensor([1], [1], -1), "invalid sizes of a tensor"),
    "a negative stride": (tensor([2], [-1], 3), "invalid sizes of a tensor"),
    "a negative size": (tensor([-1], [1]), "invalid sizes of a tensor"),
    "strides that are fewer": (tensor([1, 1], [1]), "invalid sizes of a tensor"),
    "sixty-four axes": (tensor([1] * 64, [1] * 64), "invalid sizes of a tensor"),
    "more than 64 bits count": (tensor([1 << 39] * 4, [0] * 4), "damaged"),
    "nothing, by so many": (tensor([0] + [1 << 39] * 4, [0] * 5), "damaged"),
    "no storage": (tensor([1], [1], of=b"K\x01"), "invalid sizes of a tensor"),
    "no file": (tensor([1], [1], of=storage(key="7")), "without its file"),
    "another folder": (tensor([1], [1], of=storage(key="../../etc/passwd")), "without its file"),
    "a function as type": (tensor([1], [1], of=storage(b"system", module=b"os")), "os.system"),
    "a class as type": (
        tensor([1], [1], of=storage(b"OrderedDict", module=b"collections")),
        "that torch does not write",
    ),
    "a type of another size": (tensor([1], [1], of=storage(b"DoubleStorage")), "4 numbers"),
    "two types": (b"(" + storage() + storage(b"IntStorage") + b"t", "two types"),
    "a type that is unknown": (tensor([1], [1], of=storage(b"BoolStorage")), "BoolStorage"),
}


@pytest.mark.parametrize("case", LIES)
def test_sizes_that_are_lies(tmp_path, case):
    made, says = LIES[case]
    path = handmade(tmp_path, b"\x80\x02" + made + b".", **{"data/0": b"\0" * 16})
    with pytest.raises(InputError) as error:
        pickle_reader.read(path)
    assert says in str(error.value)


def test_tensors_that_are_none_are_read(tmp_path):
    good = b"\x80\x02" + tensor([2, 2], [2, 1]) + b"."
    path = handmade(tmp_path, good, **{"data/0": struct.pack("4f", 1, 2, 3, 4)})
    assert pickle_reader.read(path).tolist() == [[1, 2], [3, 4]]
    wide = b"\x80\x02" + tensor([1 << 30], [0]) + b"."
    path = handmade(tmp_path, wide, **{"data/0": struct.pack("4f", 1, 2, 3, 4)})
    assert pickle_reader.read(path).shape == (1 << 30,)  # one number: nothing is allocated


BOMBS = {
    "a place far off in the memo": b"\x80\x02Nr\xff\xff\xff\xff.",
    "a hundred thousand tuples, one in the other": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "the same as a key": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.",
    "a million open marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "doubled a thousand times": b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 1000 + b".",
    "copies of bytes": (
        b"\x80\x02" + text("a" * 1_000_000) + b"q\x00("
        + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 30_000 + b"t."
    ),
    "two million steps": b"\x80\x02(" + b"N" * 2_000_000 + b"t.",
}  # fmt: skip


def test_bombs_end_soon_in_little_memory(tmp_path):
    """In a process of its own: a crash would be seen."""
    paths = []
    for place, program in enumerate(BOMBS.values()):
        (tmp_path / str(place)).mkdir()
        paths.append(str(handmade(tmp_path / str(place), program)))
    code = f"""
import resource
from milan.legacy import pickle_reader
from milannotations import InputError
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 300_000_000,) * 2)
for path in {paths!r}:
    try:
        pickle_reader.read(path)
        print("read", flush=True)
    except InputError:
        print("refused", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-500:]
    found = dict(zip(BOMBS, done.stdout.split(), strict=True))
    assert [name for name, how in found.items() if how == "refused"] == [
        "the same as a key",
        "a million open marks",
        "two million steps",
    ]


# --- files that are something else


def truncated(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def zipped(path, files, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one name twice
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, content in files:
                archive.writestr(name, content)
    return path


def lying(path):
    """Write another size of a stored file into the zip's directory."""
    content = path.read_bytes()
    entry = content.rindex(b"PK\x01\x02")
    size = entry + 20  # packed and unpacked, four bytes each
    told = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(content[:size] + told + content[size + 8 :])
    return path


def flipped(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"properties") + 3] ^= 1  # the zip has a checksum
    path.write_bytes(content)
    return path


def scripted(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    return path


def written(path, content):
    path.write_bytes(content)
    return path


PLAIN = [("old/data.pkl", b"\x80\x02}."), ("old/data/0", b"\0" * 100_000)]
NO_CHECKPOINTS = {
    "empty": (lambda p: written(p, b""), "is empty"),
    "text": (lambda p: written(p, b"not a checkpoint"), "begins with b'not a checkpoint'"),
    "a page": (lambda p: written(p, b"<!DOCTYPE html><html>"), "begins with b'<!DOCTYPE"),
    "a pointer": (
        lambda p: written(p, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "git lfs pull",
    ),
    "a pickle": (lambda p: written(p, pickle.dumps({"a": 1})), "before 1.6"),
    "before zip": (
        lambda p: torch.save({}, p, _use_new_zipfile_serialization=False) or p,
        "before 1.6",
    ),
    "a program": (scripted, "TorchScript"),
    "another zip": (lambda p: zipped(p, [("a.txt", b"a")]), "zip of a.txt"),
    "a zip of nothing": (lambda p: zipped(p, []), "not a checkpoint"),
    "two pickles": (
        lambda p: zipped(p, [*PLAIN, ("new/data.pkl", b"N.")]),
        "a folder of data.pkl and data/",
    ),
    "one name twice": (lambda p: zipped(p, [*PLAIN, PLAIN[1]]), "several files of one name"),
    "packed": (
        lambda p: zipped(p, PLAIN, compression=zipfile.ZIP_DEFLATED),
        "compressed or encrypted (old/data",
    ),
    "a size that is a lie": (lambda p: lying(zipped(p, PLAIN)), "made to fill the memory"),
    "big-endian": (lambda p: zipped(p, [*PLAIN, ("old/byteorder", b"big")]), "little-endian"),
    "nine tenths": (lambda p: truncated(zipped(p, PLAIN), 0.9), "damaged"),
    "one tenth": (lambda p: truncated(zipped(p, PLAIN), 0.1), "is the copy complete?"),
    "a flipped bit": (lambda p: flipped(torch.save({"properties": 1}, p) or p), "damaged"),
}


@pytest.mark.parametrize("case", NO_CHECKPOINTS)
def test_files_that_are_no_checkpoints(tmp_path, case):
    make, says = NO_CHECKPOINTS[case]
    path = make(tmp_path / "old.pth")
    with pytest.raises(InputError) as error:
        pickle_reader.read(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        pickle_reader.read(tmp_path / "none.pth")
    with pytest.raises(InputError, match="directory"):
        pickle_reader.read(tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02"]))
def test_random_bytes_are_refused(tmp_path_factory, content, head):
    path = tmp_path_factory.getbasetemp() / "random.pth"
    path.write_bytes(head + content)
    with pytest.raises(InputError):
        pickle_reader.read(path)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_random_pickles_give_plain_data_or_are_refused(tmp_path_factory, program):
    path = handmade(tmp_path_factory.getbasetemp(), b"\x80\x02" + program + b".")
    with contextlib.suppress(InputError):
        pickle_reader.read(path)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "old.pth"
    torch.save(checkpoint(network=False), path)
    return path


def mutate(content, seed):
    draw = random.Random(seed)
    made = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(len(made))
        how = draw.randrange(4)
        if how == 0:
            made[at] = draw.randrange(256)
        elif how == 1:
            made[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            del made[at : at + draw.choice((1, 2, 40))]
        else:
            there = draw.randrange(len(made))
            made[at:at] = made[there : there + draw.choice((1, 5, 60))]
    return bytes(made)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.booleans())
def test_a_checkpoint_that_was_changed_is_refused(good, seed, inside):
    """Inside: the pickle is changed and the zip's checksums are made right."""
    if inside:
        path = with_pickle(good, lambda program: mutate(program, seed))
    else:
        path = good.with_name("changed.pth")
        path.write_bytes(mutate(good.read_bytes(), seed))
    with pytest.raises(InputError) as error:  # without the encoder's weights it ends there
        convert.convert(path, good.with_name("out"))
    assert str(error.value).isprintable()


# --- what a checkpoint must say


def edited(*keys, value=None, remove=False):
    """Return a function that changes a checkpoint at a path of keys."""

    def edit(content):
        place = content
        for key in keys[:-1]:
            place = place[key]
        if remove:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
        return content

    return edit


INDEXER = ("properties", "indexer", "properties")
TOKENIZE = (*INDEXER, "tokenize", "properties")
LM = ("properties", "lm", "properties")


def fewer_words(content):
    for indexed in (INDEXER, (*LM, "indexer", "properties")):
        edited(*indexed, "vocab", "properties", "tokens", value=WORDS[:-1])(content)
    return content


WRONG = {
    "no properties": (edited("properties", remove=True), "holds children, state_dict"),
    "no state": (edited("state_dict", remove=True), "holds properties, children"),
    "a state": (lambda c: c["state_dict"], "Expected a decoder's checkpoint"),
    "a payload": (lambda c: {"state_dict": c["state_dict"]}, "holds state_dict"),
    "a list": (lambda c: [c], "holds a list"),
    "a language model": (lambda c: {**c, "properties": c["properties"]["lm"]["properties"]},
                         "a language model alone"),
    "no indexer": (edited(*INDEXER[:2], remove=True), "nothing where properties"),
    "words that are a text": (edited(*INDEXER, "vocab", "properties", "tokens", value="abc"),
                              "its vocabulary is a str"),
    "a word twice": (edited(*INDEXER, "vocab", "properties", "tokens", value=("a",) * 5), "twice"),
    "a word less": (fewer_words,
                    "4 words and 4 special tokens; its weights (embedding.weight) are of 9"),
    "another order": (edited(*LM, "indexer", "properties", "vocab", "properties", "tokens",
                             value=WORDS[::-1]), "another order"),
    "lemmas": (edited(*TOKENIZE, "lemmatize", value=True), "lemmatize=True"),
    "no special token": (edited(*INDEXER, "unk", value=False), "unk=False"),
    "no kind of encoder": (edited("children", value={}), "its encoder is None"),
    "another kind": (edited("children", "encoder", value="os.system"), "its encoder is os.system"),
    "another network": (edited("properties", "encoder", "properties", "config", value="vgg16"),
                        "network is vgg16; known: alexnet, resnet18"),
    "a size of nothing": (edited("properties", "hidden_size", value=0), "hidden_size is 0"),
    "a size of all": (edited("properties", "hidden_size", value=10**12), "hidden_size is a int"),
    "a size that is true": (edited("properties", "length", value=True), "length is True"),
    "a size that is a text": (edited("properties", "beam_size", value="50"), "beam_size is 50"),
    "a temperature": (edited("properties", "temperature", value=float("nan")), "temperature"),
    "another size": (edited("properties", "embedding_size", value=5),
                     "embedding.weight is 9 x 3; its settings say 9 x 5"),
    "another layer": (edited(*LM, "layers", value=1), "unexpected"),
    "no language model": (edited("properties", "lm", value=None), "unexpected lm.embedding.weight"),
    "no weight": (edited("state_dict", "output.1.bias", remove=True), "missing output.1.bias"),
    "no embedding": (edited("state_dict", "embedding.weight", remove=True), "are of no tokens"),
    "no mean": (edited("state_dict", "encoder.mean", remove=True), "encoder.mean"),
    "no layer": (edited("state_dict", "encoder.encoder.model.conv1.weight", remove=True),
                 "missing encoder.encoder.model.conv1.weight"),
    "a weight too many": (edited("state_dict", "evil", value=torch.ones(1)), "unexpected evil"),
    "no number": (edited("state_dict", "init_h.0.bias", value=torch.full((H,), torch.nan)),
                  "init_h.0.bias holds infinite"),
    "whole numbers": (edited("state_dict", "init_h.0.bias", value=torch.ones(H).long()), "int64"),
    "a weight that is a text": (edited("state_dict", "init_h.0.bias", value="x"), "no tensors"),
    "weights of nothing": (edited("state_dict", "attend.query_to_hidden.weight",
                                  value=torch.ones(()).expand(16384, 16384)), "fill the memory"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_checkpoints_that_say_something_else(save, tmp_path, case):
    edit, says = WRONG[case]
    path = save(edit(checkpoint()))
    with pytest.raises(InputError) as error:
        convert.convert(path, tmp_path / "out")
    assert says in str(error.value)
    assert not (tmp_path / "out").exists()


# --- conversion


@pytest.mark.parametrize("lm", [True, False])
def test_a_checkpoint_becomes_a_folder_that_opens(save, tmp_path, lm):
    content = checkpoint(lm=lm)
    out = convert.convert(save(content), tmp_path / "out")
    model = Milan.from_pretrained(out)
    assert model.config.vocabulary == WORDS
    assert (model.config.beam, model.config.lam, model.config.length) == (7, 0.3, 15)
    assert model.config.made["settings_of_2022"]["strategy"] == ("rerank" if lm else "beam")
    state = content["state_dict"]
    assert torch.equal(model.decoder.gate.weight, state["feature_gate.0.weight"])
    assert torch.equal(model.decoder.lstm.weight_hh, state["lstm.weight_hh"])
    assert (model.language_model is not None) == lm
    found = model.describe_features(torch.randn(2, 4, F), strategy="pmi" if lm else "beam")
    assert len(found) == 2
    again = convert.convert(save(content), tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (out / name).read_bytes() == (again / name).read_bytes()


def test_clip_is_left_out_with_a_note(save, tmp_path):
    content = checkpoint()
    content["properties"]["reranker_kwargs"] = {"name": "ViT-B/32", "jit": False, "device": "cpu"}
    content["state_dict"]["reranker.clip.visual.proj"] = torch.ones(3, 3)
    model = Milan.from_pretrained(convert.convert(save(content), tmp_path / "out"))
    assert "CLIP" in model.config.made["notes"][0]
    assert not [name for name in model.state_dict() if "clip" in name]


def test_the_encoders_weights_come_from_the_file_or_are_given(save, tmp_path):
    path = save(checkpoint(network=False))
    with pytest.raises(InputError, match=r"of resnet18, under .*: --encoder-weights FILE"):
        convert.convert(path, tmp_path / "out")
    weights = save(torchvision.models.resnet18().state_dict(), "resnet18.pth")
    out = convert.convert(path, tmp_path / "out", encoder_weights=weights)
    kept = json.loads((out / "config.json").read_text())["encoder"]["weights"]
    assert "resnet18.pth" in str(kept)
    with pytest.raises(InputError, match="leave out --encoder-weights"):
        convert.convert(save(checkpoint(), "whole.pth"), tmp_path / "two", encoder_weights=weights)
    other = save(torchvision.models.squeezenet1_1().state_dict(), "squeezenet.pth")
    with pytest.raises(InputError, match=r"squeezenet\.pth"):
        convert.convert(path, tmp_path / "two", encoder_weights=other)


def test_what_is_there_is_not_lost(save, tmp_path):
    path, out = save(checkpoint()), tmp_path / "out"
    convert.convert(path, out)
    with pytest.raises(InputError, match="--overwrite"):
        convert.convert(path, out)
    convert.convert(path, out, overwrite=True)
    (out / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        convert.convert(path, out, overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        convert.convert(path, out / "thesis.tex", overwrite=True)
    assert (out / "thesis.tex").read_text() == "years"


# --- the commands


@pytest.fixture
def run(capsys):
    """Return a function that runs the command and returns its status, output and errors."""

    def command(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main.main([str(word) for word in words])
        return (left.value.code or 0, *capsys.readouterr())

    return command


@pytest.fixture
def site(tmp_path):
    """Serve a folder on this machine."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_):
            pass

        def copyfile(self, source, outputfile):
            with contextlib.suppress(OSError):  # who asked has gone
                super().copyfile(source, outputfile)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_convert_on_the_command_line(run, save, tmp_path):
    status, said, errors = run("convert", save(checkpoint()), tmp_path / "out")
    assert status == 0, errors
    assert "5 words, encoder resnet18" in said
    assert "from_pretrained" in said
    status, said, errors = run("convert", save([Calls(print, "x")]), tmp_path / "two")
    assert status == 1
    assert errors.startswith("error: ")
    assert "__builtin__.print" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("command", ["convert", "download"])
def test_help_ends_with_two_commands(run, command):
    status, said, _ = run(command, "--help")
    assert status == 0
    assert said.count(f"milan {command} ") >= 3  # usage and two
    assert "Examples" in said


def test_download_fetches_once_and_converts(run, site, save, tmp_path, monkeypatch):
    folder, base = site
    save(checkpoint()).rename(folder / "milan-base.pth")
    words = ["download", "base", "--mirror", base, "--downloads", tmp_path / "kept"]
    monkeypatch.chdir(tmp_path)
    status, _, errors = run(*words)
    assert status == 0, errors
    assert "plain http" in errors
    assert "sha256" in errors
    assert Milan.from_pretrained(tmp_path / "milan-base").config.beam == 7
    lock = json.loads((tmp_path / "kept" / LOCK).read_text())
    assert list(lock["archives"]) == ["milan-base.pth"]

    made = convert.download(  # from what is kept: nothing is asked
        "base", tmp_path / "again", folder=tmp_path / "kept", base="http://127.0.0.1:9"
    )
    assert Milan.from_pretrained(made).config.vocabulary == WORDS

    torch.save(checkpoint(lm=False), folder / "milan-base.pth")
    (tmp_path / "kept" / "milan-base.pth").unlink()
    with pytest.raises(InputError, match=r"lock file says|sha256"):
        convert.download("base", tmp_path / "third", folder=tmp_path / "kept", base=base)
    assert not (tmp_path / "third").exists()


def test_download_of_a_file_of_2022(run, site, parity, tmp_path):
    folder, base = site
    (folder / "milan-cls.pth").write_bytes((parity / "a1_decoder_full_keys.pth").read_bytes())
    out = tmp_path / "model"
    status, said, errors = run(
        "download", "cls", "--mirror", base, "--downloads", tmp_path, "--out", out
    )
    assert status == 0, errors
    assert "125 words, encoder resnet18" in said
    assert len(Milan.from_pretrained(out).vocabulary) == 129


def test_download_says_what_is_wrong(run, site, tmp_path, monkeypatch):
    folder, base = site
    status, _, errors = run("download", "bas", "--downloads", tmp_path / "kept")
    assert status == 1
    assert "No published model of 'bas' (published: base, cls, gen," in errors
    assert "Did you mean 'base'?" in errors
    assert not (tmp_path / "kept").exists()
    monkeypatch.setenv("MILAN_MODELS_URL", base)
    with pytest.raises(InputError, match=r"404.*MILAN_MODELS_URL.*milan convert"):
        convert.download("gen", tmp_path / "out", folder=tmp_path / "kept", progress=False)
    (folder / "milan-gen.pth").write_text("<html>")
    with pytest.raises(InputError, match="not a whole zip file"):
        convert.download("gen", tmp_path / "out", folder=tmp_path / "kept", progress=False)


def test_addresses_are_the_published_ones(monkeypatch):
    monkeypatch.delenv("MILAN_MODELS_URL", raising=False)
    assert [address(name, published=MODELS) for name in MODELS.files] == [
        f"http://milan.csail.mit.edu/models/milan-{name}.pth"
        for name in (
            "base",
            "cls",
            "gen",
            "imagenet",
            "places365",
            "alexnet",
            "resnet152",
            "biggan",
        )
    ]
