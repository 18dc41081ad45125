"""Measure costs: all of them, or those named.

    python -m bench [exemplars] [scoring] [mini] [release] [milan] [dissection] [ablation] [board]
                    [grounding]

Machines are noisy and differ, so most lines are ratios of two times of this run.
"""

import sys

from bench import ablation, board, dissection, exemplars, grounding, milan, mini, release, scoring

PARTS = {
    "exemplars": exemplars.run,
    "scoring": scoring.run,
    "mini": mini.run,
    "release": release.run,
    "milan": milan.run,
    "dissection": dissection.run,
    "ablation": ablation.run,
    "board": board.run,
    "grounding": grounding.run,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
