"""Files of predictions: every known layout, and the errors of broken files."""

import csv
import hashlib
import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaderboard.evaluation import file_formats, predictions
from leaderboard.evaluation.predictions import Prediction, Predictions
from milannotations import InputError, Unit

SUITE = "network,layer,unit,description"
FULL = SUITE + ",rank,score,status"

# name of the layout: a file as its programs write it, with made-up words, and (layer, unit,
# description, score) of its rows
EXAMPLES = {
    "this suite; MILAN": (
        'layer,unit,description\nconv1,0,Red\nconv2,3,"dogs, cats"\n',
        [("conv1", 0, "Red", None), ("conv2", 3, "dogs, cats", None)],
    ),
    "CLIP-Dissect": (
        "layer,unit,description,similarity\nconv1,0,red,0.25\nconv1,1,sky,-1.5e-3\n",
        [("conv1", 0, "red", 0.25), ("conv1", 1, "sky", -0.0015)],
    ),
    "Linear Explanations": (
        "unit,description,sim correlation,sim ablation(norm)\n0,red,0.5,0.1\n1,sky,0.25,0.2\n",
        [("given", 0, "red", 0.5), ("given", 1, "sky", 0.25)],
    ),
    "MILAN's audit": (
        "layer,unit,caption\nconv1,0,red\n",
        [("conv1", 0, "red", None)],
    ),
    "Describe-and-Dissect": (
        "Neuron ID,Label 1,Label 2,Label 3\n7,red sky,blue sky, \n0,dogs,cats,birds\n",
        [("given", 7, "red sky", None), ("given", 0, "dogs", None)],
    ),
    "Describe-and-Dissect, one label": (
        "Neuron ID,label\n0,red\n1,sky\n",
        [("given", 0, "red", None), ("given", 1, "sky", None)],
    ),
    "INVERT": (
        "neuron,concept,concept_id,metric\n0,red,n01,0.9\n2,sky,n02,0.8\n",
        [("given", 0, "red", 0.9), ("given", 2, "sky", 0.8)],
    ),
    "FALCON": (
        "group,Unnamed: 0,concept_set_words,concept_set_noun_phrases\n"
        "8,8,\"[('sky', 0.1), ('red', 0.3), ('dog', 0.3)]\",[]\n9,9,[],[]\n",
        [("given", 8, "red", 0.3), ("given", 9, "", None)],
    ),
    "NetDissect": (
        "unit,category,label,score,color-label\n3,part,wheel,0.2,red-c\n1,color,red-c,0.1,red-c\n"
        "2,scene,tea_room-indoor-s,0.05,red-c\n",
        [
            ("given", 2, "wheel", 0.2),
            ("given", 0, "red", 0.1),
            ("given", 1, "tea room-indoor", 0.05),
        ],
    ),
}

# folder of real files: layout, column of units and column of descriptions
REAL = {
    "clip-dissect": ("CLIP-Dissect", "unit", "description"),
    "dnd": ("Describe-and-Dissect", "Neuron ID", "Label 1"),
    "falcon": ("FALCON", "group", "concept_set_words"),
    "invert": ("INVERT", "neuron", "concept"),
    "linear-explanations": ("Linear Explanations", "unit", "description"),
    "milan": ("this suite; MILAN", "unit", "description"),
    "netdissect": ("NetDissect", "unit", "label"),
}


def predictions_of(*rows):
    return Predictions(tuple(Prediction(Unit("n", "conv1", 0), *row) for row in rows))


def refused(path, *parts, **given):
    """Check that reading fails with a message that has all parts."""
    with pytest.raises(InputError) as error:
        predictions.read(path, **given)
    for part in parts:
        assert part in str(error.value)


# ---- layouts


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_every_layout_is_recognised_and_read(write_file, name, ends):
    text, expected = EXAMPLES[name]
    path = write_file("made.csv", text.replace("\n", ends))
    read = predictions.read(path, network="n", layer="given")
    assert read.layouts == (name,)
    assert [(*row.unit, row.description, row.score) for row in read.rows] == [
        ("n", *row) for row in expected
    ]


def test_every_layout_has_an_example():
    assert list(EXAMPLES) == [layout.name for layout in file_formats.LAYOUTS]


def test_every_real_file_is_read(real):
    files = sorted((real / "descriptions").glob("*/*.csv"))
    assert {path.parent.name for path in files} == set(REAL)
    for path in files:
        name, unit, text = REAL[path.parent.name]
        with open(path, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        if "label" in rows[0] and name == "Describe-and-Dissect":
            name, text = "Describe-and-Dissect, one label", "label"
        shift = name == "NetDissect"
        read = predictions.read(path, network="n", layer=None if "layer" in rows[0] else "l")
        assert read.layouts == (name,), path
        assert [row.unit for row in read.rows] == [
            ("n", row.get("layer", "l"), int(row[unit]) - shift) for row in rows
        ], path
        first = rows[0][text]
        if name == "FALCON":
            first = re.match(r"\[\('(\w+)'", first)[1]
        elif name == "NetDissect":
            first = re.sub("-[cs]$", "", first).replace("_", " ")
        assert read.rows[0].description == first, path
        assert {row.status for row in read.rows} == {"ok"}, path


def test_netdissect_units_count_from_one(write_file):
    path = write_file("a.csv", "unit,category,label,score\n0,part,wheel,0.2\n")
    refused(path, " 2: unit 0", "count from 1", network="n", layer="l")


@pytest.mark.parametrize(
    "cell",
    [
        "__import__('os').system('touch pwned')",
        "[(__import__('os').system('touch pwned'), 1)]",
        "[('red', 1, 2)]",
        "[('red', 'high')]",
        "[('red', 1e999)]",
        "[('red', 1" + "0" * 400 + ")]",
        "[('red',",
        "(" * 10_000,
        "-" * 10_000 + "1",
        "5",
    ],
    ids=lambda cell: cell[:18],
)
def test_falcon_words_are_never_run(write_file, tmp_path, monkeypatch, cell):
    monkeypatch.chdir(tmp_path)
    path = write_file("a.csv", f'group,concept_set_words\n0,"{cell}"\n')
    refused(path, " 2: ", network="n", layer="l")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("header", ["unit,text", "unit,descripton", "Unit,Description", "a;b"])
def test_an_unknown_layout_is_refused_with_the_known_ones(write_file, header):
    path = write_file("a.csv", f"{header}\n1,{header.count(',') * 'x'}\n")
    refused(path, header.replace(",", ", "), "no known layout", *EXAMPLES, "[network]")


@pytest.mark.parametrize(
    ("typed", "meant"), [("scroe", "score"), ("statsu", "status"), ("netwrk", "network")]
)
def test_a_misspelt_column_is_named(write_file, typed, meant):
    path = write_file("a.csv", f"layer,unit,description,{typed}\nconv1,0,red,1\n")
    refused(path, f"'{typed}'", f"Did you mean '{meant}'?", network="n")


# ---- where network and layer come from


def test_network_and_layer_of_the_file_or_given(write_file):
    with_both = write_file("a.csv", SUITE + "\nalexnet/imagenet,conv1,0,red\n")
    with_none = write_file("b.csv", "unit,description\n0,red\n")
    for path, beside in (
        (with_both, {}),
        (with_both, {"network": "alexnet-imagenet"}),
        (with_none, {"network": "alexnet/imagenet", "layer": "conv1"}),
    ):
        read = predictions.read(path, **beside)
        assert read.units == [Unit("alexnet-imagenet", "conv1", 0)]


def test_a_layer_of_digits_stays_text(write_file):
    read = predictions.read(write_file("a.csv", SUITE + "\nn,0,0,red\nn,4,0,sky\n"))
    assert [unit.layer for unit in read.units] == ["0", "4"]


def test_several_parts_with_their_layers(write_file):
    first = write_file("one.csv", "unit,description\n0,red\n")
    second = write_file("two.csv", "unit,caption\n0,sky\n")
    read = predictions.read(f"conv1={first}", f"conv2={second}", network="n")
    assert [(row.unit.layer, row.description) for row in read.rows] == [
        ("conv1", "red"),
        ("conv2", "sky"),
    ]
    assert read.layouts == ("this suite; MILAN", "MILAN's audit")
    assert read.sources == tuple(
        (str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in (first, second)
    )


def test_a_file_whose_name_has_an_equals_sign(write_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_file("conv1=a.csv", "layer,unit,description\nconv2,0,red\n")
    assert predictions.read("conv1=a.csv", network="n").units == [Unit("n", "conv2", 0)]


def test_a_layer_given_for_a_file_must_agree_with_it(write_file):
    path = write_file("a.csv", "layer,unit,description\nconv2,0,red\n")
    assert len(predictions.read(f"conv2={path}", network="n")) == 1
    refused(f"conv1={path}", "layer 'conv2'", "given as conv1", network="n")


def test_no_network_no_layer_or_another_network(write_file):
    bare = write_file("a.csv", "unit,description\n0,red\n")
    refused(bare, "no network in the file", "--network", layer="conv1")
    refused(bare, "no layer in the file", "--layer", "layer1=FILE", network="n")
    named = write_file("b.csv", SUITE + "\nalexnet-imagenet,conv1,0,red\n")
    refused(named, "'alexnet-imagenet'", "not 'other'", network="other")


def test_no_file_at_all():
    with pytest.raises(InputError, match="No file"):
        predictions.read()


# ---- what a row may say


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("red,1,0.5,ok", ("red", 1, 0.5, "ok")),
        ("red,,,", ("red", 1, None, "ok")),
        ("red,01, ,", ("red", 1, None, "ok")),
        (",1,,abstained", ("", 1, None, "abstained")),
        (",1,,failed", ("", 1, None, "failed")),
        (",1,,", ("", 1, None, "failed")),
        (",1,,ok", ("", 1, None, "failed")),
        (" . ,1,,", ("", 1, None, "failed")),
        ("A Cat.,1,-1e-3,", ("A Cat.", 1, -0.001, "ok")),
    ],
)
def test_a_row_is_completed(write_file, cells, expected):
    read = predictions.read(write_file("a.csv", f"{FULL}\nn,conv1,0,{cells}\n"))
    row = read.rows[0]
    assert (row.description, row.rank, row.score, row.status) == expected


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "null", " NULL ", "<NA>", "N/A"])
def test_what_programs_write_for_nothing_is_a_failure(write_file, text):
    read = predictions.read(write_file("a.csv", f"{SUITE}\nn,conv1,0,{text}\nn,conv1,1,red\n"))
    assert [(row.description, row.status) for row in read.rows] == [("", "failed"), ("red", "ok")]
    assert read.n_not_text == 1


def test_a_frame_with_the_word_nan_is_a_failure_too():
    frame = pd.DataFrame({"unit": [0], "description": ["nan"]})
    read = predictions.from_frame(frame, network="n", layer="conv1")
    assert (read.rows[0].description, read.rows[0].status) == ("", "failed")
    assert read.n_not_text == 1


def test_a_description_of_ten_thousand_characters_is_the_longest(write_file):
    text = "x" * 10_000
    assert len(predictions.read(write_file("a.csv", f"{SUITE}\nn,conv1,0,{text}\n"))) == 1
    refused(write_file("b.csv", f"{SUITE}\nn,conv1,0,{text}x\n"), "10,001", "10,000 is the most")


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (["0,red,,,", "0,sky,,,"], ["Described twice", "n/conv1/0"]),
        (["0,red,1,,", "0,sky,1,,"], ["Described twice", "n/conv1/0", "one per rank"]),
        (["0,red,1,,", "0,sky,2,,", "0,sea,2,,"], ["Described twice"]),
        (["0,red,0,,"], [" 2: ", "rank 0", "count from 1"]),
        (["0,red,-1,,"], [" 2: rank '-1'", "whole number"]),
        (["0,red,2,,", "1,sky,1,,"], ["No rank 1 for n/conv1/0"]),
        (["0,red,,nan,"], [" 2: ", "score is 'nan'", "finite"]),
        (["0,red,,inf,"], [" 2: ", "score is 'inf'", "finite"]),
        (["0,red,,-Infinity,"], ["score is '-Infinity'"]),
        (["0,red,,high,"], [" 2: ", "score 'high' is not a number"]),
        (["1.5,red,,,"], [" 2: ", "unit '1.5'", "whole number from 0"]),
        (["-1,red,,,"], ["unit '-1'"]),
        ([",red,,,"], ["unit ''"]),
        (["0,red,,,", "1,sky"], [" 3: ", "needs quotes"]),
        (["0,red, sky,,,"], [" 2: ", "needs quotes"]),
        (["0,red,,,abstained"], [" 2: ", "status is abstained", "'red'"]),
        (["0,red,,,failed"], ["status is failed", "'red'"]),
        (["0,,,,done"], [" 2: ", "status 'done'", "ok, abstained, failed"]),
    ],
    ids=lambda value: value[-1] if isinstance(value[0], str) else "",
)
def test_a_broken_row_is_refused_with_its_line(write_file, rows, parts):
    body = "".join(f"n,conv1,{row}\n" for row in rows)
    refused(write_file("a.csv", f"{FULL}\n{body}"), *parts)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", b"", ["is empty"]),
        ("a.csv", SUITE.encode(), ["a header and no rows"]),
        ("a.csv", b"unit,unit,description\n0,0,red\n", ["'unit' twice"]),
        ("a.csv", SUITE.encode() + b'\nn,conv1,0,"red\n', ["is a quote left open?"]),
        ("a.csv", SUITE.encode() + b"\nn,conv1,0,caf\xe9\n", ["is not UTF-8"]),
        ("a.csv", f"{SUITE}\nn,conv1,0,red\n".encode("utf-16"), ["is not UTF-8"]),
        ("a.parquet", b"", ["is not a parquet file"]),
        ("a.parquet", SUITE.encode() + b"\nn,conv1,0,red\n", ["is not a parquet file"]),
        ("a.parquet", b"PAR1" + bytes(20) + b"PAR1", ["is not a parquet file"]),
        ("a.csv", b"unit\xff\xfe", ["is not UTF-8"]),
        ("a.csv", b"PAR1\x00\xff\xfe", ["is not a parquet file"]),
        ("a.csv", b"\x1f\x8b\x08", ["is compressed; unpack it first"]),
    ],
)
def test_a_broken_file_is_refused(write_file, name, content, parts):
    path = write_file(name, content)
    refused(path, str(path), *parts)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_folder_or_nothing_is_refused(tmp_path, name):
    refused(tmp_path / name, "No such file", name)
    (tmp_path / name).mkdir()
    refused(tmp_path / name, "is a directory", name)


def test_a_cell_of_100_megabytes_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(f"{SUITE}\nn,conv1,0,".encode() + b"a" * 100_000_000 + b"\n")
    refused(path, "line 2", "131,072 characters")
    path.unlink()  # pytest keeps the folder


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    header=st.sampled_from(
        ["", *(",".join(layout.required + layout.optional) for layout in file_formats.LAYOUTS)]
    ),
    body=st.binary(max_size=80)
    | st.text("aé0129.-,\"\r\n[](')\x00\u2028", max_size=80).map(str.encode),
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, header, body):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(header.encode() + b"\n" + body)
    try:
        read = predictions.read(path, network="n", layer="conv1")
    except InputError:
        return
    assert isinstance(read, Predictions)
    assert len(read) >= 1


# ---- frames and texts


def test_a_frame_is_read_like_a_file():
    frame = pd.DataFrame(
        {
            "layer": ["conv1", "conv1"],
            "unit": [0.0, 1.0],
            "description": ["red", None],
            "similarity": [0.5, None],
        }
    )
    read = predictions.from_frame(frame, network="n")
    assert read.layouts == ("CLIP-Dissect",)
    assert read.rows == (
        Prediction(Unit("n", "conv1", 0), "red", 1, 0.5, "ok"),
        Prediction(Unit("n", "conv1", 1), "", 1, None, "failed"),
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"unit": [0], "text": ["red"]}, "no known layout"),
        ({"unit": [0.5], "description": ["red"]}, "unit '0.5'"),
        ({"unit": [None], "description": ["red"]}, "unit ''"),
        ({"unit": [0, 0], "description": ["red", "sky"]}, "Described twice"),
        ({"unit": [0], "description": ["red"], "score": [float("inf")]}, "finite"),
        ({"unit": [], "description": []}, "no rows"),
    ],
)
def test_a_broken_frame_is_refused(columns, message):
    with pytest.raises(InputError, match=re.escape(message)):
        predictions.from_frame(pd.DataFrame(columns), network="n", layer="conv1")


def test_texts_become_predictions_in_order():
    units = [Unit("n", "conv1", i) for i in (3, 1, 2)]
    read = predictions.from_texts(units, iter(["red", " . ", "sky"]))
    assert read.units == units
    assert [row.status for row in read.rows] == ["ok", "failed", "ok"]
    assert read.first(units[0]).description == "red"
    assert read.first(Unit("n", "conv1", 0)) is None


def test_a_text_for_every_unit_is_needed():
    with pytest.raises(ValueError, match="shorter"):
        predictions.from_texts([Unit("n", "conv1", 0), Unit("n", "conv1", 1)], ["red"])


def test_first_is_rank_one_wherever_it_stands():
    read = predictions_of(("second", 2), ("first", 1), ("third", 3))
    assert len(read) == 1
    assert read.first(Unit("n", "conv1", 0)).description == "first"


# ---- writing


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_what_is_written_is_read_back(tmp_path, name):
    unit, other, third = (Unit("n", layer, 7) for layer in ("0", "conv2", "conv3"))
    rows = (
        Prediction(unit, "red", 1, 0.1 + 0.2),
        Prediction(unit, "sky", 2, -1e-300),
        Prediction(other, "", 1, None, "abstained"),
        Prediction(third, "", 1, 0.0, "failed"),
    )
    Predictions(rows).write(tmp_path / name)
    read = predictions.read(tmp_path / name)
    assert read.rows == rows
    assert predictions.from_frame(Predictions(rows).to_pandas()).rows == rows
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
@pytest.mark.parametrize(
    "text",
    [
        "dogs, cats",
        'so-called "dogs"',
        'one " two',
        "café ☃ 狗 \U0001f436",
        " spaces kept ",
        "two\nlines",
        "two\r\nlines",
        "two\rlines",
        "=1+1",
        "0012",
        "true",
        "\ufeffmark",
    ],
    ids=ascii,
)
def test_any_text_is_written_and_read_back(tmp_path, name, text):
    predictions_of((text,)).write(tmp_path / name)
    assert [row.description for row in predictions.read(tmp_path / name).rows] == [text]


def test_the_file_has_the_columns_of_a_submission(tmp_path):
    predictions_of(("red", 1, 0.5), ("sky", 2, None)).write(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes().decode() == (
        f"{FULL}\r\nn,conv1,0,red,1,0.5,ok\r\nn,conv1,0,sky,2,,ok\r\n"
    )


def test_a_parquet_of_other_programs_is_read(tmp_path):
    table = pa.table({"layer": ["conv1"], "unit": pa.array([2.0]), "caption": ["red"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    read = predictions.read(tmp_path / "a.parquet", network="n")
    assert read.rows == (Prediction(Unit("n", "conv1", 2), "red"),)


def test_a_parquet_with_text_that_is_not_utf8_is_refused(tmp_path):
    text = pa.array([b"caf\xe9"]).view(pa.string())  # arrow does not look inside
    table = pa.table({"unit": [0], "description": text})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "UTF-8", network="n", layer="conv1")


def test_writing_over_a_folder_is_refused(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "precious").write_text("kept")
    with pytest.raises((InputError, OSError)):
        predictions_of(("red",)).write(tmp_path / "work")
    assert (tmp_path / "work" / "precious").read_text() == "kept"
