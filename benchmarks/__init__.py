"""Speed and memory as ratios, each measured against its bound and a peer-style case in one run.

    python -m benchmarks NAME|all [--threads 1] [--json PATH]

Every module named in `BENCHMARKS` has `run(threads=1) -> list[dict]`; a row is made by `measure.row`.
"""

BENCHMARKS = (
    "input_pipeline",
    "image_pipeline",
    "kd_step",
    "shake_step",
    "cache_teacher",
    "crd",
    "dispatch",
    "sweep",
    "startup",
    "interruption",
)
