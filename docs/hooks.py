"""Hooks of mkdocs: the page of the command line is written from the commands themselves."""

from __future__ import annotations

from typing import Any

MARK = "<!-- every verb -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the mark of the command-line page by every verb with its options."""
    return markdown.replace(MARK, "\n\n".join(_verbs())) if MARK in markdown else markdown


def _verbs() -> list[str]:
    from leaderboard.cli.main import VERBS, load_verb

    sections, heading = [], ""
    for verb, (group, _) in VERBS.items():
        if group != heading:
            heading = group
            sections.append(f"## {group}")
        command = load_verb(verb)
        commands = getattr(command, "commands", None) or {"": command}
        if "" not in commands:
            sections.append(f"### milan {verb}\n\n{_text(command.help)}")
        sections += [
            _section(f"milan {verb} {name}".strip(), each, "####" if name else "###")
            for name, each in commands.items()
        ]
    return sections


def _section(title: str, command: Any, level: str) -> str:
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for parameter in command.params:
        if "--help" in parameter.opts:
            continue
        spelling = ", ".join([*parameter.opts, *parameter.secondary_opts])
        if not spelling.startswith("-"):
            spelling = parameter.metavar or spelling.upper()
        default = "" if parameter.required else _default(parameter.default)
        rows.append(f"| `{spelling}` | {_cell(default)} | {_cell(parameter.help or '')} |")
    examples = [line.strip() for line in (command.epilog or "").split("\n\n")[1:]]
    code = "\n".join(["```text", *examples, "```"]) if examples else ""
    return "\n\n".join([f"{level} {title}", _text(command.help), "\n".join(rows), code])


def _default(value: Any) -> str:
    if value is None or value is False or value == []:
        return ""
    return f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("\\[", "[").split())


def _text(text: str | None) -> str:
    return (text or "").replace("\\[", "[").strip()
