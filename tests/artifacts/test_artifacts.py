import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdhelpers import artifacts
from kdhelpers.artifacts import files


def test_folders_are_under_the_root_and_made_on_demand(root):
    assert artifacts.folder("weights") == root / "pth_models"
    assert (root / "pth_models").is_dir()
    assert artifacts.data_root() == root / "data"


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(root):
    path = artifacts.save_json(root / "a.json", {"x": 1})

    def fails(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="cannot write .*a.json: No space left on device; free some space or set KD_ROOT"):
        artifacts.write_atomic(path, fails)
    assert artifacts.load_json(path) == {"x": 1}
    assert os.listdir(root) == ["a.json"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(("system", "refusals"), [("nt", 20), ("nt", 21), ("posix", 1)])
def test_windows_waits_for_readers_of_the_old_file(root, monkeypatch, system, refusals):
    old, new, left = root / "a.json", root / "a.tmp", list(range(refusals))
    replace = os.replace
    old.write_text("old")
    new.write_text("new")

    def refuse(*paths):
        if left:
            left.pop()
            raise PermissionError("a reader has it open")
        replace(*paths)

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", refuse)
        patched.setattr(files.os, "name", system)
        patched.setattr(files.time, "sleep", lambda seconds: None)
        given_up = None
        try:
            files._replace(new, old)
        except PermissionError as error:
            given_up = error
    assert not left
    assert bool(given_up) == (refusals != 20)
    assert old.read_text() == ("old" if given_up else "new")


def test_a_record_that_vanishes_during_a_search_is_passed_over(root, monkeypatch):
    finish("a", "a" * 64)
    finish("b", "b" * 64)
    module = importlib.import_module("kdhelpers.artifacts.records")
    paths = module._paths()
    artifacts.record_path("a").unlink()
    monkeypatch.setattr(module, "_paths", lambda: paths)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert [record["name"] for record in artifacts.records()] == ["b"]


def test_tensors_on_a_full_disk_say_so(root, monkeypatch):
    real = open

    def full(path, mode="r", **options):
        return real("/dev/full" if str(path).endswith(".tmp") else path, mode, **options)

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match="cannot write .*w.pth: No space left on device; free some space or set KD_ROOT"):
        artifacts.save_tensors(root / "w.pth", {"a": torch.arange(100_000)})
    assert not (root / "w.pth").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_names_the_remedy(root):
    root.chmod(0o500)
    with pytest.raises(OSError, match="set KD_ROOT"):
        artifacts.folder("weights")


def test_a_file_in_the_way_of_a_folder_names_the_remedy(root):
    (root / "pth_models").write_text("not a folder")
    with pytest.raises(OSError, match="cannot write .*pth_models.*set KD_ROOT"):
        artifacts.folder("weights")


def test_json_refuses_nan_and_names_damage(root):
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.save_json(root / "nan.json", {"x": float("nan")})
    (root / "bad.json").write_text('{"x": ')
    with pytest.raises(ValueError, match=r"bad.json: damaged JSON .* delete it"):
        artifacts.load_json(root / "bad.json")


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil_was_here",)


def test_pickled_objects_are_refused_and_do_not_run(root, monkeypatch):
    monkeypatch.chdir(root)
    torch.save({"model": Evil()}, root / "evil.pth")
    with pytest.raises(ValueError, match="pickled objects"):
        artifacts.load_tensors(root / "evil.pth")
    assert not (root / "evil_was_here").exists()


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_weight_file_is_named(root, share):
    path = artifacts.save_tensors(root / "w.pth", {"a": torch.arange(1000)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"w.pth: damaged"):
        artifacts.load_tensors(path)


def test_a_missing_weight_file_is_file_not_found(root):
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        artifacts.load_tensors(root / "none.pth")


def test_sha256(root):
    (root / "abc").write_bytes(b"abc")
    assert artifacts.sha256(root / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


HOLD = """
import sys, time
from kdhelpers import artifacts
with artifacts.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_seen_by_another_process_and_freed_when_its_holder_is_killed(root):
    process = hold(root / "x.lock")
    with pytest.raises(BlockingIOError, match="another process"), artifacts.lock(root / "x.lock", wait=False):
        pass
    process.kill()
    process.wait()
    with artifacts.lock(root / "x.lock", wait=False):
        pass


@pytest.mark.skipif(os.name == "nt", reason="no fcntl")
@pytest.mark.parametrize("reason", ["ENOTSUP", "ENOLCK", "ENOSYS", "EINVAL", "EPERM"])
def test_a_file_system_without_locks_is_named_once_and_works(root, monkeypatch, capsys, reason):
    number = getattr(errno, reason)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    files._inform_of_missing_locks.cache_clear()
    for wait in (True, False, True):
        with artifacts.lock(root / "x.lock", wait):
            pass
    assert artifacts.reserve("student", "a" * 64, {"status": "running"}) == "student"
    assert capsys.readouterr().err.count("the file system has no locks") == 1


@pytest.mark.skipif(os.name == "nt", reason="no fcntl")
@pytest.mark.parametrize("reason", ["EAGAIN", "EACCES"])
def test_a_held_lock_is_waited_for(root, monkeypatch, capsys, reason):
    """Network file systems answer EACCES."""
    answers = [OSError(getattr(errno, reason), "held")] * 2

    def held_twice(*_):
        if answers:
            raise answers.pop()

    monkeypatch.setattr("fcntl.flock", held_twice)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with artifacts.lock(root / "x.lock"):
        assert not answers
    assert capsys.readouterr().err == ""


def test_windows_locks_are_msvcrts(root, monkeypatch, capsys):
    answers = [OSError(errno.EACCES, "held"), OSError(errno.EINVAL, "no locks here")]

    class Msvcrt:
        LK_NBLCK = 2

        def locking(self, *_):
            raise answers.pop(0)

    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt())
    files._inform_of_missing_locks.cache_clear()
    with open(root / "x.lock", "a+b") as file:
        monkeypatch.setattr(files.os, "name", "nt")
        tried = files._try_lock(file), files._try_lock(file)
        monkeypatch.setattr(files.os, "name", "posix")
    assert tried == (False, True)
    assert "no locks" in capsys.readouterr().err


A, B = "a" * 64, "b" * 64


def finish(name, identity):
    artifacts.save_json(
        artifacts.record_path(name), {"schema": 1, "name": name, "identity": identity, "status": "finished"}
    )


def test_a_name_is_reserved_once_and_never_taken_from_a_finished_run(root):
    assert artifacts.reserve("student", A, {"status": "running"}) == "student"
    finish("student", A)
    assert artifacts.reserve("student", B, {"status": "running"}) == "student-bbbbbbbb"
    assert artifacts.load_record("student")["identity"] == A
    assert artifacts.reserve("student", A, {"status": "running"}) == "student"
    assert artifacts.load_record("student")["status"] == "finished"  # kept until the retraining is done


def test_an_unfinished_run_gives_its_name_up_unless_it_is_still_running(root):
    artifacts.reserve("student", A, {"status": "running"})
    process = hold(artifacts.run_lock_path(A))
    assert artifacts.reserve("student", B, {"status": "running"}) == "student-bbbbbbbb"
    process.kill()
    process.wait()
    assert artifacts.reserve("student", "c" * 64, {"status": "running"}) == "student"


def test_the_state_of_a_record_is_that_of_its_process(root):
    record = {"identity": "a" * 64, "status": "running"}
    assert artifacts.state(record) == "interrupted"
    assert not artifacts.run_lock_path("a" * 64).exists()  # to look leaves no trace
    with artifacts.lock(artifacts.run_lock_path("a" * 64)):
        assert artifacts.state(record) == "running"
    assert artifacts.state(record) == "interrupted"
    assert artifacts.state({"status": "failed", "error": "interrupted; the same run continues"}) == "interrupted"
    assert artifacts.state({"status": "failed", "error": "OSError: disk"}) == "failed"
    assert artifacts.state({}) == "unknown"


def test_a_foreign_json_is_left_alone(root):
    artifacts.folder("results")
    (root / "json_results" / "student.json").write_text("[1, 2]")
    assert artifacts.reserve("student", A, {"status": "running"}) == "student-aaaaaaaa"
    assert (root / "json_results" / "student.json").read_text() == "[1, 2]"


def test_records_pass_over_what_is_not_theirs(root):
    finish("b", B)
    finish("a", A)
    (root / "json_results" / "half.json").write_text("{")
    (root / "json_results" / "other.json").write_text('{"schema": 99}')
    assert [record["name"] for record in artifacts.records()] == ["a", "b"]


def test_weights_of_others_are_never_written_over(root):
    path = artifacts.write_atomic(artifacts.weights_path("student"), b"somebody's weights")
    assert artifacts.reserve("student", A, {"status": "running"}) == "student-aaaaaaaa"
    artifacts.save_json(path.with_suffix(".json"), {"identity": A})
    assert artifacts.reserve("student", A, {"status": "running"}) == "student"
    assert path.read_bytes() == b"somebody's weights"


def test_a_record_that_lacks_its_name_is_passed_over(root):
    artifacts.save_json(artifacts.folder("results") / "x.json", {"schema": 1})
    assert artifacts.records() == []


@pytest.fixture
def parsed(monkeypatch):
    """Names of the records whose files are parsed."""
    names = []

    def load_json(path):
        names.append(path.stem)
        return artifacts.load_json(path)

    # the package's `records` is the function
    monkeypatch.setattr(importlib.import_module("kdhelpers.artifacts.records"), "load_json", load_json)
    return names


def test_a_record_is_parsed_again_only_if_its_file_changed(root, parsed):
    for name, identity in (("a", A), ("b", B)):
        finish(name, identity)
    first = artifacts.records()
    assert artifacts.records() == first
    assert artifacts.load_record("b") == first[1]
    assert parsed == ["a", "b"]
    path = artifacts.record_path("a")
    before = path.stat()
    artifacts.save_json(path, first[0] | {"identity": B})  # as long as the old one,
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # and of the same time
    assert [record["identity"] for record in artifacts.records()] == [B, B]
    assert parsed == ["a", "b", "a"]
    path.unlink()
    assert [record["name"] for record in artifacts.records()] == ["b"]
    assert artifacts.load_record("a") is None


def test_a_record_of_another_process_is_seen(root):
    finish("a", A)
    assert artifacts.load_record("a")["identity"] == A
    code = f"""
from kdhelpers import artifacts
artifacts.save_json(artifacts.record_path("a"), artifacts.load_record("a") | {{"identity": "{B}"}})"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"KD_ROOT": str(root)}, timeout=60)
    assert artifacts.load_record("a")["identity"] == B


def test_a_caller_that_changes_a_record_changes_its_own_copy(root):
    artifacts.save_json(
        artifacts.record_path("a"),
        {"schema": 1, "name": "a", "identity": A, "status": "finished", "history": [{"epoch": 1}]},
    )
    artifacts.records()[0]["history"][0]["epoch"] = 7
    artifacts.load_record("a")["history"].clear()
    assert artifacts.records()[0]["history"] == [{"epoch": 1}]
