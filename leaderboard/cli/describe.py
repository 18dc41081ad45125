"""`milan describe`: a method's descriptions of an edition's units, as a file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from leaderboard.cli.options import Options, examples, options_of
from leaderboard.cli.subject import Cache, Device, Model, Probe, Random, Weights, subject_of
from milannotations.errors import InputError
from milannotations.utils.files import check_writable

EPILOG = examples(
    "milan describe mini --method nearest --split test --out nearest.csv",
    "milan describe mini --method path/to/my_method.py --split test --out mine.csv",
    "milan describe mine --method netdissect --subject torchvision:resnet18@DEFAULT "
    "--probe broden:DIR --out netdissect.csv",
    "milan describe mine --method captioner --model NAME --set url=http://localhost:8000/v1 "
    "--set show=crops",
)


def describe(
    edition: Annotated[str, typer.Argument(help="An edition: a folder, or mini.")],
    method: Annotated[
        str, typer.Option(help="Name of a method (milan list methods), or path/to/file.py.")
    ],
    out: Annotated[str, typer.Option(help="File to write: .csv or .parquet.")] = "predictions.csv",
    model: Annotated[
        str | None, typer.Option(help="Folder or name of the method's model, if it has one.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="What --method constant says.")] = None,
    set_: Options = None,
    subject: Model = None,
    probe: Probe = None,
    weights: Weights = None,
    random: Random = False,
    device: Device = None,
    cache: Cache = None,
    blind: Annotated[
        bool,
        typer.Option("--blind", help="Show it other units' exemplars: a control without lift."),
    ] = False,
    config: Annotated[str | None, typer.Option(help="Config of the edition.")] = None,
    split: Annotated[str | None, typer.Option(help="Describe one split (test) alone.")] = None,
    network: Annotated[str | None, typer.Option(help="Describe this network alone.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Describe these layers alone.")] = None,
    training: Annotated[
        str | None, typer.Option(help="Edition to learn from (default: the same).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every draw.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Units described at a time.", min=1)] = 256,
) -> None:
    """Describe units with a method, and write its predictions.

    Interrupted, the same command goes on where it was.
    """
    import baselines
    from baselines.framework.provenance import Account
    from baselines.framework.resume import Journal
    from leaderboard.evaluation.predictions import of_descriptions

    if Path(out).suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"--out {out}: a name that ends in .csv or .parquet was expected.")
    check_writable(out)
    journal, account = Journal(out), Account()
    described = baselines.describe(
        edition,
        method,
        config=config,
        split=split,
        network=network,
        layers=layer or (),
        training=training,
        options=options_of(method, model=model, text=text, given=set_),
        subject=subject_of(subject, probe, weights, random, device, cache),
        blind=blind,
        seed=seed,
        batch_size=batch_size,
        progress=sys.stderr.isatty(),
        journal=journal,
        account=account,
    )
    made = of_descriptions(described)
    made.write(out)
    account.write(out)
    journal.close()
    counts = [made.to_pandas().drop_duplicates(["network", "layer", "unit"]).status.value_counts()]
    listed = ", ".join(f"{n:,} {status}" for status, n in counts[0].items())
    print(f"{out}: {len(made):,} units ({listed})")
    words = ["milan", "score", out, "--data", edition]
    for option, value in (("--config", config), ("--split", split)):
        words += [option, value] if value else []
    words += ["--allow-missing"] if network or layer else []
    print(f"Score it: {shlex.join(words)}")
