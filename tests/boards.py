"""A small edition with images, records on it, some of them hostile, and the site of both."""

import io

import pandas as pd
import pyarrow.parquet as parquet
from PIL import Image

from leaderboard import site
from leaderboard.evaluation import predictions, references, scoring
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.record_format import application_record
from leaderboard.record_format.application_record import Number
from leaderboard.record_format.method_info import About
from milannotations.editions.configs import list_files
from milannotations.editions.writing import write_config
from milannotations.schema import Unit

METRICS = ("retrieval-tfidf-auc", "rouge-l", "distinct")
FEW = ScoreConfig(draws=50)
RUNS = "window.hacked = true"
HOSTILE = (
    f"<script>{RUNS}</script>",
    f'"><img src=x onerror="{RUNS}">',
    f"</script><script>{RUNS}</script>",
    f"'-{RUNS}-'",
    "{{ 7 * 191 }} {% raw %}",
    "\u202ederorrim\u202c and zero\u200bwidth\ufeff",
    '=HYPERLINK("http://elsewhere.invalid")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "שלום עולם",
    "e" + "\u0301" * 300,
    "<b>" * 50,
)
"""Texts that run code, leave their element, reorder or hide, unless a page shows them safely."""

LAYER = "x<b>y"
"""Hostile name of a layer, as a user's edition may have it."""


def small_edition(folder):
    """Write an edition of 60 planted units of two layers, one of them with a hostile name."""
    whole = parquet.read_table(list_files("mini", "mini")["test"][0]).to_pylist()
    rows = [row for row in whole if row["network"] == "mini-sharp" and row["truth_formula"]]
    first, second = (
        [r for r in rows if r["layer"] == layer][:30] for layer in ("layer1", "layer2")
    )
    made = [*first, *({**row, "layer": LAYER} for row in second)]
    for row in made:
        row["duplicate_of"] = None
    made[1]["descriptions"] = list(HOSTILE[:4])
    write_config(folder, "small", {"test": made})
    return folder


def say(rows, kind):
    """Return a fake method's description of each unit."""
    truths = [row["truth"] for row in rows]
    return {
        "good": truths,
        "half": [text if i % 2 else truths[i - 1] for i, text in enumerate(truths)],
        "poor": [truths[i // 9] for i in range(len(truths))],
        "none": ["" if i % 3 else text for i, text in enumerate(truths)],
        "hostile": [HOSTILE[i % len(HOSTILE)] for i in range(len(truths))],
    }[kind]


def records(edition, folder, kinds=("good", "half", "poor", "none", "hostile"), seeds=()):
    """Write one record per method; `hostile` has hostile texts in every field."""
    known = references.from_edition(edition, "small")
    rows = [
        row
        for path in list_files(edition, "small")["test"]
        for row in parquet.read_table(
            path, columns=["network", "layer", "unit", "truth"]
        ).to_pylist()
    ]
    units = [Unit(row["network"], row["layer"], row["unit"]) for row in rows]
    for kind in kinds:
        said = predictions.from_texts(units, say(rows, kind))
        method = f"{HOSTILE[1]}{HOSTILE[5]}@{HOSTILE[0]}" if kind == "hostile" else f"{kind}@1.0"
        score = scoring.score(said, known, METRICS, split="test", method=method, settings=FEW)
        score.record = score.record.model_copy(update={"about": about(kind)})
        score.save(folder / kind)
    return folder


def about(kind):
    if kind != "hostile":
        return About(title=f"what {kind} does", command=f"milan describe small --method {kind}")
    lists = ("authors", "requires", "trained_on", "external_data", "external_models")
    texts = ("paper", "licence", "code", "commit", "command", "hardware", "cost")
    return About(
        title=HOSTILE[0],
        **{name: list(HOSTILE) for name in lists},
        **{name: HOSTILE[i % 3] for i, name in enumerate(texts)},
    ).model_copy(update={"paper": f"javascript:{RUNS}"})


def outcome(folder, method="good@1.0", value=0.2, says="It says what was found."):
    """Write the record of an application, with a figure."""
    made = application_record.create(
        "edit",
        method=method,
        data="mini",
        number=Number(
            name="accuracy gained", value=value, low=value - 0.1, high=value + 0.1, control=0.05,
            p=0.05, n=5, over="training seeds", says=says,
        ),
        asked={}, settings={}, networks={"mini-sharp": {}}, images={}, results={}, seconds={},
        synthetic=True,
    )  # fmt: skip
    figure = io.BytesIO()
    Image.new("RGB", (320, 200), "white").save(figure, "PNG")
    curves = pd.DataFrame({"deleted": [0, 1], "accuracy": [0.5, 0.6]})
    application_record.save(folder, made, curves=curves, files={"figure.png": figure.getvalue()})
    return folder


def whole(folder):
    """Write edition, records and site to a folder; return the site."""
    edition = small_edition(folder / "small")
    found = records(edition, folder / "records")
    outcome(found / "work", says=HOSTILE[0])
    outcome(found / "work-2", "half@1.0", 0.1)
    site.build(folder / "site", [found], editions=[edition], cache=folder / "cache")
    return folder / "site"
