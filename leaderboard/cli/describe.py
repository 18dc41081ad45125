"""`milan describe`: descriptions of an edition's units by a method, as a file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import baselines
from leaderboard.cli.network import DeviceOptions, Probe, SubjectModel, open_subject
from leaderboard.cli.options import (
    Cache,
    Edition,
    MethodOptions,
    OptionsOf,
    examples,
    method_options,
    progress_wanted,
    with_options,
)
from milannotations.errors import InputError
from milannotations.exemplars.options import NetworkOptions
from milannotations.utils.files import check_writable

app = typer.Typer()


@app.command(
    epilog=examples(
        "milan describe mini --method nearest --split test --out nearest.csv",
        "milan describe mini --method path/to/my_method.py --split test --out mine.csv",
        "milan describe mine --method netdissect --subject torchvision:resnet18@DEFAULT "
        "--probe broden:DIR --out netdissect.csv",
        "milan describe mine --method captioner --model NAME "
        "--set url=http://localhost:8000/v1 --set show=crops",
    )
)
@with_options
def describe(
    edition: Edition,
    method: Annotated[
        str, typer.Option(help="Name of a method (milan list methods), or path/to/file.py.")
    ],
    selection: Annotated[
        dict[str, Any],
        OptionsOf(
            baselines.describe,
            only=(
                "config",
                "split",
                "network",
                "layers",
                "training",
                "blind",
                "seed",
                "batch_size",
            ),
            names={"layers": "--layer"},
        ),
    ],
    network: Annotated[NetworkOptions, OptionsOf(NetworkOptions)],
    device: Annotated[dict[str, Any], DeviceOptions],
    out: Annotated[str, typer.Option(help="File to write: .csv or .parquet.")] = "predictions.csv",
    model: Annotated[
        str | None, typer.Option(help="Folder or name of the method's model, if it has one.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Description of --method constant.")] = None,
    set_: MethodOptions = None,
    subject: SubjectModel = None,
    probe: Probe = None,
    cache: Cache = None,
) -> None:
    """Describe units with a method, and write its predictions.

    After an interruption the same command resumes.
    """
    from baselines.framework.provenance import Account
    from baselines.framework.resume import DescriptionLog
    from leaderboard.evaluation.predictions import from_descriptions

    if Path(out).suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"--out {out}: expected a name that ends in .csv or .parquet.")
    check_writable(out)
    log, account = DescriptionLog(out), Account()
    described = baselines.describe(
        edition,
        method,
        options=method_options(method, model=model, text=text, given=set_),
        subject=open_subject(subject, probe, network, device, cache),
        progress=progress_wanted(),
        log=log,
        account=account,
        **selection,
    )
    predictions = from_descriptions(described)
    predictions.write(out)
    account.write(out)
    log.close()
    units = predictions.to_pandas().drop_duplicates(["network", "layer", "unit"])
    counts = ", ".join(f"{n:,} {status}" for status, n in units.status.value_counts().items())
    print(f"{out}: {len(predictions):,} units ({counts})")
    words = ["milan", "score", out, "--data", edition]
    if not _has_annotations(edition, selection):
        words += ["--ground", subject or "MODEL", "--images", "DIR"]
    for option in ("config", "split"):
        if selection.get(option):
            words += [f"--{option}", selection[option]]
    if selection.get("network") or selection.get("layers"):
        words.append("--allow-missing")
    print(f"Score it: {shlex.join(words)}")


def _has_annotations(edition: str, selection: Mapping[str, Any]) -> bool:
    """Return whether any unit of the config is annotated; else scores need the network."""
    import milannotations

    column = milannotations.load(
        edition, selection.get("config"), split=selection.get("split"), columns=["descriptions"]
    )
    parts = column.values() if isinstance(column, dict) else [column]
    return any(texts for part in parts for texts in part["descriptions"])
