"""Train and test units, fixed by hashing: the same on every machine.

`split` reads the official splits, one for every condition of Hernandez et al. 2022, from
`v1.json`. `partition` and `within` apply the rule that made them to any units.
"""

from milannotations.splits.hashing import TEST_SHARE, Split, hash_order, partition, within
from milannotations.splits.official import VERSION, Condition, conditions, digest, names, split

__all__ = [
    "TEST_SHARE",
    "VERSION",
    "Condition",
    "Split",
    "conditions",
    "digest",
    "hash_order",
    "names",
    "partition",
    "split",
    "within",
]
