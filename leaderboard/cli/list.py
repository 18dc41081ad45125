"""`milan list`: methods, metrics, tracks, networks, editions, splits and tasks."""

from __future__ import annotations

import typer

from leaderboard.cli.options import Json, examples, print_json, print_table

app = typer.Typer(
    no_args_is_help=True,
    help="List methods, metrics, tracks, networks, editions, splits and tasks.",
    epilog=examples("milan list metrics", "milan list networks --json"),
)


@app.command("metrics", epilog=examples("milan list metrics", "milan list metrics --json"))
def list_metrics(as_json: Json = False) -> None:
    """List the metrics of words, and the metrics of activations (--ground)."""
    from leaderboard import metrics
    from leaderboard.grounding import metrics as grounded

    specs = metrics.catalogue()
    if as_json:
        print_json([spec.to_dict() for spec in (*specs, *grounded.specs())])
        return
    print_table(
        ("metric", "measures", "better", "source"),
        [(spec.name, spec.title, spec.direction or "-", spec.source) for spec in specs],
    )
    print(
        "\nA name that ends in -allref scores against all references instead of matched ones.\n"
        f"Sets: {', '.join(metrics.SETS)}. A text model is named after @: "
        "bertscore@path/to/folder:LAYER, embedding@path/to/folder.\n"
        "As modules of evaluate: evaluate.load(leaderboard.metrics.path(NAME)).\n\n"
        "On the network's activations, with --ground MODEL (sets: headline, all):"
    )
    tested = [kind for kind in grounded.ACTIVATION_METRICS if kind.name != "prevalence"]
    fails = {kind.name: ", ".join(kind.fails) or "none" for kind in tested}
    print_table(
        ("metric", "measures", "fails (milan check --metric)", "source"),
        [(s.name, s.title, fails.get(s.name, "not tested"), s.source) for s in grounded.specs()],
    )


@app.command("networks", epilog=examples("milan list networks", "milan list networks --json"))
def list_networks(as_json: Json = False) -> None:
    """List the published networks of MILANNOTATIONS, their layers and units."""
    from milannotations import catalog

    if as_json:
        print_json(
            [
                {
                    "name": network.name,
                    "task": network.task,
                    "image_source": network.image_source,
                    "layers": network.layers,
                    "units": network.n_units,
                    "archive": network.archive,
                    "groups": [
                        group
                        for group, members in catalog.GROUPS.items()
                        if network.name in members
                    ],
                }
                for network in catalog.NETWORKS.values()
            ]
        )
        return
    print_table(
        ("network", "task", "images", "layers", "units"),
        [
            (
                network.name,
                network.task,
                network.image_source,
                " ".join(
                    f"{layer}:{count}"
                    if (shown := network.display_layer(layer)) == layer
                    else f"{layer}({shown}):{count}"
                    for layer, count in network.layers.items()
                ),
                f"{network.n_units:,}",
            )
            for network in catalog.NETWORKS.values()
        ],
    )
    print(
        f"\n{catalog.N_UNITS:,} units, {catalog.N_DESCRIPTIONS:,} descriptions. "
        f"Groups: {', '.join(catalog.GROUPS)}."
    )


@app.command("editions", epilog=examples("milan list editions", "milan list editions --json"))
def list_editions(as_json: Json = False) -> None:
    """List the editions that ship with the package, their configs and splits."""
    from milannotations.editions.configs import EMBEDDED, list_configs

    listed = {name: list_configs(name) for name in EMBEDDED}
    if as_json:
        print_json(listed)
        return
    print_table(
        ("edition", "config", "splits"),
        [
            (name, config, " ".join(splits))
            for name, configs in listed.items()
            for config, splits in configs.items()
        ],
    )
    print("\nmini is synthetic: its units are planted and its annotators simulated.")
    print("Folders that milan exemplars and milan data write are editions too.")


@app.command("splits", epilog=examples("milan list splits", "milan list splits --json"))
def list_splits(as_json: Json = False) -> None:
    """List the official splits: train and test units of the paper's conditions."""
    from milannotations import splits

    listed = splits.conditions()
    if as_json:
        print_json(
            [
                {
                    "name": split.name,
                    "version": splits.VERSION,
                    "train": split.n_train,
                    "test": split.n_test,
                    "digest": split.digest,
                }
                for split in listed
            ]
        )
        return
    print_table(
        ("split", "train", "test", "sha256"),
        [
            (split.name, f"{split.n_train:,}", f"{split.n_test:,}", split.digest[:12])
            for split in listed
        ],
    )
    print(
        f"\nUnits of version {splits.VERSION}; whole digests: --json. @1 to @4 are other seeds."
        "\nIn Python: milannotations.split(NAME), milannotations.load(EDITION, condition=NAME)."
    )


@app.command("tracks", epilog=examples("milan list tracks", "milan list tracks --json"))
def list_tracks(as_json: Json = False) -> None:
    """List the tracks of the leaderboard: what may stand in one table."""
    from leaderboard.ranking import tracks

    listed = tracks.all_tracks()
    if as_json:
        print_json([track.to_dict() for track in listed])
        return
    print_table(
        ("track", "condition", "units", "ranked by"),
        [
            (
                track.key,
                track.title,
                "-" if track.n_units is None else f"{track.n_units:,}",
                track.ranked_by or "the application's number",
            )
            for track in listed
        ],
    )
    print(
        "\nScores compare only within one version (after @). Tracks of mini are synthetic.\n"
        "To enter one: milan submit new NAME --track TRACK, or milan run --track mini."
    )


@app.command("methods", epilog=examples("milan list methods", "milan list methods --json"))
def list_methods(as_json: Json = False) -> None:
    """List the methods that can describe units, floors first, and their options."""
    import baselines
    from baselines.framework import registry

    specs = baselines.specs()
    options = {spec.name: registry.options(spec.name) for spec in specs}
    if as_json:
        print_json(
            [
                {
                    **spec.to_dict(),
                    "options": [
                        {**vars(option), "default": str(option.default)}
                        for option in options[spec.name]
                    ],
                }
                for spec in specs
            ]
        )
        return
    print_table(
        ("method", "kind", "describes a unit by", "needs", "source"),
        [
            (spec.name, spec.kind, spec.title, ", ".join(spec.requires) or "-", spec.paper or "-")
            for spec in specs
        ],
    )
    print("\nOptions, with --set NAME=VALUE (--model for model):")
    print_table(
        ("method", "option", "default", "meaning"),
        [
            (name, option.name, "" if option.default is None else str(option.default), option.help)
            for name, listed in options.items()
            for option in listed
        ],
    )
    print("\nYour own method: milan describe EDITION --method path/to/file.py")


@app.command("tasks", epilog=examples("milan list tasks", "milan list tasks --json"))
def list_tasks(as_json: Json = False) -> None:
    """List the applications of descriptions."""
    from leaderboard.applications import TASKS

    if as_json:
        print_json(TASKS)
        return
    print_table(("task", "question"), list(TASKS.items()))
    print("\nEvery method on the mini world: milan run --tasks all. Your own networks:")
    print("milan analyze, milan audit, milan edit.")
