"""What is stored: the files of a training, and the runs that are missing."""

from pathlib import Path

from kdhelpers import artifacts
from kdhelpers.display.text import state_text
from kdhelpers.methods import METHODS
from kdhelpers.report.styling import folded, table_of


def missing(dataset: str | None = None):
    """The methods without a finished run, per data set, and the runs that are not finished, folded."""
    stored = [r for r in artifacts.records() if r.get("run") and dataset in (None, r["run"]["dataset"])]
    finished = [r["run"] for r in stored if r.get("status") == "finished"]
    unfinished = [r for r in stored if r.get("status") != "finished"]
    rows = [(r["name"], state_text(r)) for r in unfinished]
    reason = "no finished run; `python -m kdhelpers list` names the notebooks"
    for name in [dataset] if dataset else sorted({r["run"]["dataset"] for r in stored}) or ["any data set"]:
        runs = [run for run in finished if name in (run["dataset"], "any data set")]
        rows += [(f"{name}: {role}", reason) for role in _without_run(runs)]
    counts = f"{len(unfinished)} runs not finished, {len(rows) - len(unfinished)} methods without a run"
    return folded(table_of(rows, counts if rows else "nothing is missing", ["missing", "why"]))


def _without_run(runs: list[dict]) -> list[str]:
    """`teacher` and the methods of students that none of these runs has."""
    roles = {"teacher" if run["role"] == "teacher" else run.get("method") for run in runs}
    return [role for role in ("teacher", *METHODS) if role not in roles]


def saved(trained):
    """The files that a training stored: each file, relative to the artifacts' root, and its size."""
    files = {
        "weights": trained.weights_path,
        "description of the weights": trained.weights_path.with_suffix(".json"),
        "result record": trained.record_path,
    }
    if trained.record.get("notebook"):
        files["executed notebook"] = artifacts.root() / trained.record["notebook"]
    rows = [(kind, _relative(path), _size_text(path.stat().st_size)) for kind, path in files.items() if path.is_file()]
    note = "loaded: trained before" if trained.cached else "trained now"
    name = trained.record.get("name")
    return table_of(rows, f"{name}: {note} · files in {artifacts.root()}", ["content", "file", "size"])


def _relative(path: Path) -> str:
    return path.relative_to(artifacts.root()).as_posix() if path.is_relative_to(artifacts.root()) else str(path)


def _size_text(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
