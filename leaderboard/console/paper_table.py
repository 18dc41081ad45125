"""Table of a reproduced table of the paper: methods beside each other, and the paper's figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leaderboard.reproduction.paper_scores import PAPER
from leaderboard.reproduction.table_scores import METHODS, ONE_HUMAN

if TYPE_CHECKING:
    import pandas as pd

    from leaderboard.reproduction.tables import ReproducedTable

HEADINGS = {ONE_HUMAN: "human"}
"""Headings of columns whose name in the table's file is another."""


def render(table: ReproducedTable) -> Any:
    """Return a rich renderable of a reproduced table, with notes on how to read it."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    if table.made_from["synthetic"]:
        parts.append(
            Text(
                "A synthetic edition, with simulated annotators: it shows that the pipeline works, "
                "not what it is worth on photographs.\n"
            )
        )
    for metric, rows in table.rows.groupby("metric", sort=False):
        parts += [_metric_grid(table.name, str(metric), rows), Text("")]
    figures = ", ".join(
        f"{fold} {_paper_cell(table.name, fold, ' ')}" for fold in PAPER[table.name]
    )
    seeds = ", ".join(map(str, table.made_from["seeds"]))
    parts += [
        _difference_grid(table.differences),
        Text(
            f"\nLambda is {table.lam:g}, chosen once on validation units. Random seeds: {seeds}. "
            f"Differences by fold: {table.name}.json.\n"
            "The paper's p(d|E) was greedy; the beam without mutual information stands beside it. "
            "The paper's figures are BERTScore F on other data and cannot be compared with these: "
            f"{figures}."
        ),
    ]
    return Group(*parts)


def _metric_grid(name: str, metric: str, rows: pd.DataFrame) -> Any:
    columns = [*METHODS, ONE_HUMAN]
    grid = _grid(f"{metric}: mean (lift over shuffled)")
    grid.add_column("test network")
    for column in columns:
        grid.add_column(HEADINGS.get(column, column), justify="right")
    grid.add_column("paper: p(d|E), MILAN", justify="right")
    for fold, part in rows.groupby("fold", sort=False):
        cells = part.set_index("method")
        grid.add_row(
            fold,
            *(_cell(cells, column) for column in columns),
            _paper_cell(name, str(fold), ", ") or "-",
        )
    return grid


def _difference_grid(differences: pd.DataFrame) -> Any:
    grid = _grid("MILAN (pmi) minus other methods, paired by unit, with 95 % intervals")
    for heading in ("metric", "test network", "minus"):
        grid.add_column(heading)
    for heading in ("difference", "p, Holm", "units"):
        grid.add_column(heading, justify="right")
    for row in differences[differences.fold == "all"].to_dict("records"):
        grid.add_row(
            row["metric"], row["fold"], row["pmi less"],
            f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})",
            f"{row['p_holm']:.3f}", f"{row['n']:,}",
        )  # fmt: skip
    return grid


def _grid(title: str) -> Any:
    from rich.table import Table

    return Table(
        box=None, pad_edge=False, title=title, title_justify="left", title_style="bold",
        header_style="bold",
    )  # fmt: skip


def _paper_cell(name: str, fold: str, separator: str) -> str:
    """Return the paper's figures for a fold."""
    return separator.join(f"{value:.2f}" for value in PAPER[name].get(fold, {}).values())


def _cell(cells: pd.DataFrame, method: str) -> str:
    """Return a mean with its lift, and the spread of lift over seeds if there are several."""
    if method not in cells.index:
        return "-"
    row = cells.loc[method]
    spread = "" if row.spread != row.spread else f" ±{row.spread:.3f}"  # NaN of one seed
    lift = "" if row.lift != row.lift else f" ({row.lift:+.3f}{spread})"
    return f"{row['mean']:.3f}{lift}"
