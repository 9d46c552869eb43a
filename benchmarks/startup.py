"""Goal 7: seconds until `import kdhelpers`, and until all its public names, are there, against `import torch` alone.

Fresh interpreters take turns; no device takes part. Also shown: what a notebook pays that imports its plotting and
table libraries first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

from benchmarks.measure import interleave, row

GOAL = 1.10
CASES = {
    "import torch": "import torch",
    "import kdhelpers": "import kdhelpers",
    "from kdhelpers import *": "from kdhelpers import *",
    "torch, torchvision, pandas, sklearn, matplotlib": "import torch, torchvision, pandas, sklearn, matplotlib.pyplot",
}


def run(threads: int = 1, rounds: int = 6) -> list[dict]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    start = partial(subprocess.run, check=True, env=environment)
    timings = interleave({case: partial(start, [sys.executable, "-c", code]) for case, code in CASES.items()}, rounds)
    rows = []
    for case, timing in timings.items():
        ratio = timing.ratio_to(timings["import torch"])
        ours = "kdhelpers" in case
        goal, met = (f"<= {GOAL:.2f}x import torch", ratio <= GOAL) if ours else ("", None)
        rows.append(row(case, timing, "s", ratio, goal, met) | {"peak_mib": None})
    return rows
