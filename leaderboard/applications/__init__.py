"""Descriptions at work: three tasks, run for any method's predictions, each with a number.

| task | module | what it asks | its number |
|---|---|---|---|
| analyze | `analysis` | do descriptions tell which units matter? | area between curve and control |
| audit | `audit` | which units are described with given words? | flagged units, and differences |
| edit | `edit` | does deleting the units so described mend a network? | accuracy gained |

Hernandez et al. 2022, sections 5 to 7. Each task writes an outcome (`outcome`): what was asked,
with seeds and digests, curves, a figure, and one number with its interval.
"""

from __future__ import annotations

TASKS: dict[str, str] = {
    "analyze": "Which units matter: ablation by what their descriptions score",
    "audit": "Which units respond to what they should not: faces, by the words of descriptions",
    "edit": "Mend a network: delete the units whose descriptions speak of text",
}
"""The tasks by name, and what each is, in a line."""
