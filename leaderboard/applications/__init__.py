"""Applications of descriptions: three tasks that run on any method's predictions.

| task | question | headline number |
|---|---|---|
| analyze | Which kinds of units does accuracy depend on? | area between curve and control |
| audit | Which units are described with given words? | flagged units, and differences |
| edit | Does ablating the units described as text repair a network? | accuracy gained |

Hernandez et al. 2022, sections 5 to 7. Each task is a package, writes a record with its options,
seeds, digests, curves and a figure (`record_format.application_record`), and ends in one number
with its interval.
"""

from __future__ import annotations

TASKS: dict[str, str] = {
    "analyze": "Which units matter: ablation in the order of a score of their descriptions",
    "audit": "Which units respond to what should not matter, such as faces: words of descriptions",
    "edit": "Repair a network: ablation of the units described as text",
}
"""Summary of each task by name."""
