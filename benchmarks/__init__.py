"""Speed and memory as ratios, each measured against its bound and a peer-style case in one run.

    python -m benchmarks NAME|all [--threads 1] [--device cpu] [--json PATH]
    python -m benchmarks gpu check|real    (see `benchmarks.gpu`; not part of `all`)

Every module named in `BENCHMARKS` has `run(threads=1, device="cpu") -> list[dict]`; a row is made by `measure.row`.
`startup` has no device.
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
    "methods",
    "startup",
    "ranks",
    "lost_rank",
)
LONG = ("bad_files", "kills", "disks", "cluster")  # minutes to an hour; not part of `all`
