"""The readers of JSON: records, run files, studies, states of the suite, descriptions of exports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path

from benchmarks.bad_files.child import Reader
from benchmarks.bad_files.text_readers import write_profile
from benchmarks.bad_files.values import forge_json
from kdhelpers import Run, artifacts
from kdhelpers.deploy.place import Exported, stored
from kdhelpers.report.results import results, summarize
from kdhelpers.suite.profiles import load_profile
from kdhelpers.suite.rehearsal import Estimate, estimate_path, stored_estimates
from kdhelpers.suite.schedule import Suite
from kdhelpers.training.command import run_from
from kdhelpers.tuning.study import Study, make_study
from kdhelpers.tuning.table import summary_frame, trial_frame

STORED = Path(__file__).parents[2] / "json_results"
NAME = "student_lm_resnet8_cifar100"


@cache
def _record() -> dict:
    """The smallest stored record of a student."""
    paths = sorted(STORED.glob("student_*.json"), key=lambda path: path.stat().st_size)
    return json.loads(paths[0].read_bytes()) | {"name": NAME, "notes": ["a note"]}


def _records(root: Path) -> Sequence[Path]:
    first = artifacts.save_json(artifacts.record_path(NAME), _record())
    artifacts.save_json(artifacts.record_path("whole"), _record() | {"name": "whole", "identity": "1" * 64})
    return [first]


def _read_records(root: Path, path: Path) -> None:
    """Loading a damaged record names its fault, and the tables leave it out."""
    names = [record["name"] for record in artifacts.records()]
    if "whole" not in names or not {*names} <= {"whole", NAME}:
        raise AssertionError(f"the records are {names}")
    artifacts.load_record(NAME)
    summarize(results())


def _runs(root: Path) -> Sequence[Path]:
    run = Run(dataset="digits", model="resnet8", method="lm", teacher="resnet20", hyperparameters={"temperature": 2})
    return [
        artifacts.save_json(root / "run.json", run.model_dump()),
        artifacts.save_json(root / "record.json", _record()),
    ]


def _read_runs(root: Path, path: Path) -> None:
    run = run_from([str(path)])
    _ = run.id, run.artifact_name


@cache
def _study_of_two() -> Study:
    return make_study({"dataset": "digits", "model": "resnet8", "teacher": "resnet20", "epochs": 2}, "si; lm", 2)


def _studies(root: Path) -> Sequence[Path]:
    study, paths = _study_of_two(), []
    study.check_stored()
    for key, number in study.order:
        facts = {"trial": {"study": study.name, "key": key, "number": number, "values": study._values(key, 0)}}
        name = study.trial_name(key, number)
        content = {
            "schema": 1,
            "name": name,
            "identity": "0" * 64,
            "status": "finished",
            "metrics": {"val_top1_pct": 50.0, "train_seconds": 1.0},
            **facts,
        }
        paths.append(artifacts.save_json(artifacts.record_path(name), content))
    return [artifacts.record_path(f"trials/{study.name}/study"), *paths]


def _read_study(root: Path, path: Path) -> None:
    study = _study_of_two()
    study.check_stored()
    study.open_trials()
    trial_frame(study)
    summary_frame(study)


def _states(root: Path) -> Sequence[Path]:
    suite, names = _suite(root), ["whole", "trials/a/b"]
    jobs = {
        job.name: {"state": "done", "seconds": 1.5, "exit_code": 0, "fingerprint": "f", "error": None, "records": names}
        for job in suite.jobs
    }
    estimates = {"teacher": {each.name: 1 for each in fields(Estimate)}}
    return [
        artifacts.save_json(suite.state_path, {"schema": 1, "jobs": jobs}),
        artifacts.save_json(estimate_path("mine"), estimates),
    ]


def _suite(root: Path) -> Suite:
    write_profile(root)
    return Suite("mine", load_profile(str(root / "mine.yaml")))


def _read_states(root: Path, path: Path) -> None:
    suite = _suite(root)
    suite.earlier = suite._read_state()
    for job in suite.jobs:
        suite._is_unchanged(job)
    for estimate in stored_estimates("mine").values():
        _ = estimate.seconds * 2


def _export(root: Path) -> Sequence[Path]:
    path = root / "x.onnx"
    path.write_bytes(b"x" * 99)
    path.with_name("x.onnx.md").write_text("# A card")
    facts = {
        "file": "x.onnx",
        "format": "onnx",
        "int8": False,
        "pixels": "uint8",
        "sha256": artifacts.sha256(path),
        "class_names": ["a"],
        "mean": [0.5] * 3,
    }
    return [artifacts.save_json(root / "x.onnx.json", facts)]


def _read_export(root: Path, path: Path) -> None:
    stored(Exported(root / "x.onnx", {"format": "onnx", "int8": False, "pixels": "uint8"}))


READERS = (
    Reader("records (JSON)", _records, _read_records, forge_json),
    Reader("run files (JSON)", _runs, _read_runs, forge_json),
    Reader("studies and trials (JSON)", _studies, _read_study, forge_json),
    Reader("states of the suite (JSON)", _states, _read_states, forge_json),
    Reader("descriptions of exports (JSON)", _export, _read_export, forge_json),
)
