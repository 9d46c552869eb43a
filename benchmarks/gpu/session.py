"""A command as a list of sections: a deadline for each, a JSON after each, a traceback in place of a crash."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.measure import note, row
from kdhelpers import artifacts
from kdhelpers.device import device_name, resolve_precision


class Scale(NamedTuple):
    """How large the measured work is."""

    steps: int  # that a timing lasts, after as many that warm up
    batch: int
    side: int  # of an image of the size of CIFAR's
    images: int  # of an epoch whose parts are timed


LARGE, SMALL = Scale(steps=64, batch=64, side=32, images=50_000), Scale(steps=2, batch=2, side=16, images=512)


class Section(NamedTuple):
    """`function(session)` yields rows; between two rows the deadline is checked. `seconds`: its share of the time.

    needed: later sections depend on it, so it runs whole and at any time. repeated: it sums the others up, so it also
    runs in each call.
    """

    name: str
    seconds: float
    function: Callable[[Session], Iterator[dict]]
    needed: bool = False
    repeated: bool = False


class Session:
    """Runs sections and keeps what they found. `results`: section -> status, rows, seconds, traceback.

    On the CPU everything is small: it shows that the sections run, and measures nothing of interest.
    """

    def __init__(self, command: str, device: torch.device, seconds: float, out: Path, state: Path | None = None):
        self.started, self.seconds, self.device = time.monotonic(), seconds, device
        self.out, self.state = out, state or out
        self.work = self.state / "state" / "work"
        self.scale = SMALL if device.type == "cpu" else LARGE
        self.device_name = device_name(device)
        self.precision = "fp32" if device.type == "cpu" else resolve_precision("auto", device)
        self.file = f"gpu_{command}.json"
        self.ends = self.started + seconds  # of the section that runs
        self.results: dict[str, dict[str, Any]] = self._earlier()

    def _earlier(self) -> dict[str, dict[str, Any]]:
        path = self.state / self.file
        return artifacts.load_json(path)["sections"] if path.is_file() else {}

    @property
    def small(self) -> bool:
        return self.scale is SMALL

    def left(self) -> float:
        """Seconds until the end of the section that runs."""
        return self.ends - time.monotonic()

    def run(self, sections: Sequence[Section], only: Sequence[str] = (), skip: Sequence[str] = ()) -> None:
        """Time that a section leaves is the later ones'."""
        chosen = [section for section in sections if section.name in (only or [section.name])]
        chosen = [section for section in chosen if section.name not in skip and not self._is_finished(section)]
        total, share = sum(section.seconds for section in chosen), 0.0
        for section in chosen:
            share += section.seconds
            self.ends = self.started + self.seconds * share / total
            self._section(section)

    def _is_finished(self, section: Section) -> bool:
        finished = not section.repeated and self.results.get(section.name, {}).get("status") == "finished"
        if finished:
            note(f"{section.name}: finished earlier")
        return finished

    def _section(self, section: Section) -> None:
        name, needed = section.name, section.needed or section.repeated
        if self.left() <= 0 and not needed:
            note(f"{name}: no time left")
            self.results[name] = {"status": "out of time", "device": self.device_name, "rows": [], "seconds": 0.0}
            return self.write()
        note(f"{name} ({self.left():.0f} s) ...")
        start, entry = time.monotonic(), {"status": "finished", "device": self.device_name, "rows": []}
        try:
            for found in section.function(self):
                entry["rows"].append(_plain(found) | {"section": name, "device": self.device_name})
                if self.left() <= 0 and not needed:
                    entry["status"] = "out of time"
                    break
        except Exception:
            entry |= {"status": "failed", "traceback": traceback.format_exc()}
            note(entry["traceback"])
        self.results[name] = entry | {"seconds": time.monotonic() - start}
        self.write()

    def write(self) -> None:
        """The JSON of all sections until now: in the state's folder, then in `out`."""
        path = artifacts.save_json(self.state / self.file, {"device": self.device_name, "sections": self.results})
        if self.state != self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, self.out / self.file)

    def rows(self) -> list[dict]:
        return [line for entry in self.results.values() for line in entry["rows"]]

    @property
    def failed(self) -> list[str]:
        return [name for name, entry in self.results.items() if "traceback" in entry]


def skipped(case: str, reason: str) -> dict:
    return row(case, None, "") | {"note": f"skipped: {reason}"}


def attempt(case: str, work: Callable[[], dict]) -> dict:
    """The row of `work`, or a missed row with the error: the section's other rows do not depend on it."""
    return next(attempts(case, (work() for _ in range(1))))


def attempts(case: str, rows: Iterator[dict]) -> Iterator[dict]:
    """The rows; at an error a missed row in place of the others."""
    try:
        yield from rows
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        yield row(case, None, "", goal="runs", met=False) | {"note": reason, "traceback": traceback.format_exc()}


def keep_artifacts_in(folder: Path) -> None:
    """Artifacts go there; data sets stay where they are."""
    os.environ["KD_DATA"] = str(artifacts.data_root())
    os.environ["KD_ROOT"] = str(folder)


def _plain(found: dict) -> dict:
    """JSON has neither NaN nor infinity."""
    plain = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in found.items()}
    return json.loads(json.dumps(plain, default=str))
