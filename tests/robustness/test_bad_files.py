"""Damaged and hostile files, a few for each reader; `python -m benchmarks bad_files` tries thousands."""

import ctypes
import os
import time

import pytest

from benchmarks.bad_files import child, judge, readers
from benchmarks.bad_files.child import Reader, try_readers

if not hasattr(os, "fork") or not os.path.exists("/proc/self/clear_refs"):
    pytest.skip("the inputs are read in forked children, whose memory Linux reports", allow_module_level=True)
COUNT, SEED = 25, 1


def one(read, count=1):
    """The result of a reader of one text file."""

    def prepare(root):
        (root / "a.txt").write_text("x" * 100)
        return [root / "a.txt"]

    def first_whole(root, path):
        marker = root / "read"
        if marker.exists():
            return read(path)
        return marker.touch()

    (result,) = try_readers([Reader("a reader", prepare, first_whole)], count, SEED)
    return result


@pytest.mark.parametrize("reader", readers(), ids=lambda reader: reader.name)
def test_a_reader_reads_or_refuses_in_one_line(reader):
    (result,) = try_readers([reader], COUNT, SEED)
    assert not result.faults
    assert result.tried == COUNT


def test_the_same_inputs_come_in_every_run():
    seen = []

    def read(path):
        raise ValueError(f"{path.read_bytes()[:20]!r} {path}; no")

    for _ in range(2):
        result = one(read, 3)
        seen.append((result.read, result.refused))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda path: os.system("true"), "code"),
        (lambda path: (path.parent.parent / "outside" / "x").write_text("x"), "code"),
        (lambda path: (path.parent.parent / "outside" / "secret.png").read_bytes(), "code"),
        (lambda path: {}["x"], "error"),
        (lambda path: int("x"), "error"),
        (lambda path: print("\x1b[2J"), "output"),
        # far more than a full machine may drop meanwhile of the pages of libraries
        (lambda path: (b"x" * (1 << 30)).count(b"y"), "memory"),
        (lambda path: bytes(1 << 40), "memory"),
        (lambda path: os._exit(3), "crash"),
        (lambda path: ctypes.string_at(0), "crash"),
    ],
)
def test_a_fault_of_a_reader_is_seen(read, outcome):
    (fault,) = one(read).faults
    assert fault["outcome"] == outcome


@pytest.mark.parametrize("read", [lambda path: time.sleep(9), lambda path: [None for _ in iter(int, 1)]])
def test_a_reader_that_does_not_end_is_killed(monkeypatch, read):
    monkeypatch.setattr(child, "SECONDS", 0.5)
    monkeypatch.setattr(child, "SILENT", 2.0)
    monkeypatch.setattr(judge, "SLOW", 0.4)
    (fault,) = one(read).faults
    assert fault["outcome"] == "hang"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{path}: damaged; delete it", ""),
        ("{path}: damaged\nbadly; delete it", "several lines"),
        ("a.txt: damaged; delete it", "without the path"),
        ("{path}: damaged", "without a remedy"),
        ("{path}: \x1b[2J; delete it", "prints"),
        ("{path}: \u202egnp; delete it", "prints"),
        ("{path}: " + "x" * 2000 + "; delete it", "characters"),
    ],
)
def test_an_error_is_one_printable_line_with_file_and_remedy(tmp_path, text, fault):
    judged = judge.fault_of(ValueError(text.format(path=tmp_path / "a.txt")), tmp_path)
    assert fault in judged
    assert bool(fault) == bool(judged)
