"""The stored settings, each with its runs: one entry for all seeds."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pandas

from kdhelpers.display.text import paired_text
from kdhelpers.report.labels import distinctions, run_title
from kdhelpers.report.paired import GAIN, by_setting, with_gains
from kdhelpers.report.results import METHOD_FIELDS, results, summarize

EMBEDDED = "digits"  # toy data: these runs show that the code works
NOT_BUDGET = (*METHOD_FIELDS, "untrained_teacher")


@dataclass(frozen=True)
class Setting:
    """`row`: of `summarize`, with `run`. `records`: by seed. `gains`: name of a record -> its gain in points."""

    row: dict[str, Any]
    records: list[dict]
    gains: dict[str, float]
    slug: str  # the name of its page
    method: str  # without hyperparameters
    teacher: str  # short name; empty without one
    budget: str  # with the fields in which budgets that read the same differ
    budget_key: str
    teacher_sha256: str | None
    profiles: list[str] = field(default_factory=list)

    @property
    def is_student(self) -> bool:
        return self.row["role"] == "student"

    @property
    def is_control(self) -> bool:
        """A placebo or an untrained teacher: never the best student."""
        return bool(self.row["run"].get("placebo") or self.row["run"].get("untrained_teacher"))

    @property
    def gain(self) -> str:
        """`+1.20 ± 0.30 (3 seeds)`, in points; a dash without a baseline."""
        return paired_text(*(self.row[name] for name in GAIN))

    @property
    def baseline(self) -> str:
        """What the gain is over."""
        return self.row["baseline"] or "the student alone"

    @property
    def gain_sentence(self) -> str:
        """`+1.20 ± 0.30 points over the student alone (3 seeds)`."""
        points, _, seeds = self.gain.partition(" (")
        return f"{points} points over {self.baseline} ({seeds}" if seeds else ""

    @property
    def is_embedded(self) -> bool:
        return self.row["dataset"] == EMBEDDED

    @property
    def pair(self) -> str:
        return f"{self.teacher or 'no teacher'} → {self.row['model']}" if self.is_student else str(self.row["model"])


def stored_settings(stored: Sequence[dict], profiles: Mapping[str, Sequence[str]]) -> list[Setting]:
    """The settings of all finished runs with a test accuracy, in the order of `summarize`.

    stored: the result records. profiles: name of a job without its seed -> the profiles that have it.
    """
    frame = results()
    by_name = {record["name"]: record for record in stored}
    gains, budgets, teachers = _gains(frame), _budgets(frame), _teachers(frame)
    groups = by_setting(frame)
    return [
        _setting(row, groups[row["setting"]], by_name, gains, budgets, teachers, profiles)
        for _, part in frame.groupby("dataset", sort=True)
        for row in summarize(part).to_dict("records")
    ]


def _setting(
    row: dict, group: list[dict], by_name: dict, gains: dict, budgets: dict, teachers: dict, profiles: Mapping
) -> Setting:
    first, names = group[0], [run["name"] for run in group]
    row = row | {"run": first["run"]}
    records = [by_name[name] for name in names if name in by_name]
    records.sort(key=lambda record: (str(record["run"].get("seed", 0)).zfill(9), record["name"]))
    teacher = (first["teacher"], first["teacher_sha256"])
    return Setting(
        row=row,
        records=records,
        gains={name: gains[name] for name in names if name in gains},
        slug=_slug(row),
        method="teacher" if row["role"] == "teacher" else run_title(row["run"]),
        teacher=teachers.get(teacher, ""),
        budget=budgets[first["budget_key"]],
        budget_key=first["budget_key"],
        teacher_sha256=None if pandas.isna(first["teacher_sha256"]) else first["teacher_sha256"],
        profiles=sorted({profile for record in records for profile in profiles.get(_job(record), ())}),
    )


def _slug(row: dict) -> str:
    """Readable words and a hash of the setting: a file name that other records do not change."""
    kind = "teacher" if row["role"] == "teacher" else row["run"].get("method")
    words = [re.sub(r"[^A-Za-z0-9.]+", "-", str(word)).strip("-.") for word in (row["dataset"], row["model"], kind)]
    return "_".join([*(word[:40] for word in words if word), hashlib.sha256(row["setting"].encode()).hexdigest()[:8]])


def _job(record: dict) -> str:
    """The suite's job that made the record, without its seed."""
    return re.sub(r"_seed\d+$", "", PurePosixPath(str(record.get("notebook") or "")).stem)


def _gains(frame) -> dict[str, float]:
    """Name of a record -> its gain over its baseline of the same seed."""
    paired = with_gains(frame).dropna(subset=["gain_points"])
    return dict(zip(paired["name"], paired["gain_points"], strict=True))


def _budgets(frame) -> dict[str, str]:
    """budget_key -> `10 epochs, batch 64`; budgets of a network that read the same name what differs."""
    firsts = frame.drop_duplicates("budget_key").to_dict("records")
    alike: dict[tuple, list[dict]] = {}
    for row in firsts:
        row["facts"] = {name: value for name, value in row["run"].items() if name not in NOT_BUDGET}
        row["text"] = _budget_text(row)
        alike.setdefault((row["dataset"], row["role"], row["model"], row["text"]), []).append(row["facts"])
    return {
        row["budget_key"]: ", ".join(
            [row["text"], *distinctions(row["facts"], alike[row["dataset"], row["role"], row["model"], row["text"]])]
        )
        for row in firsts
    }


def _budget_text(row: dict) -> str:
    made_here = not pandas.isna(row["epochs"]) and "origin" not in row["run"]
    return f"{row['epochs']:.0f} epochs, batch {row['batch_size']:.0f}" if made_here else "made elsewhere"


def _teachers(frame) -> dict[tuple, str]:
    """(Name, sha256) of a teacher -> its short name: without `teacher_` and its data set; with a hash if needed."""
    taught = frame[frame["teacher_sha256"].notna()].drop_duplicates(["teacher", "teacher_sha256"])
    several = taught.duplicated("teacher", keep=False)
    return {
        (row["teacher"], row["teacher_sha256"]): str(row["teacher"])
        .removeprefix("teacher_")
        .replace(f"_{row['dataset']}", "")
        + (f" ({str(row['teacher_sha256'])[:8]})" if same_name else "")
        for row, same_name in zip(taught.to_dict("records"), several, strict=True)
    }
