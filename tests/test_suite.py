"""The suite: profiles refused before anything runs, real papermill runs of tiny notebooks, scheduling with fakes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import nbformat
import pytest

from kdhelpers.suite import run_suite
from kdhelpers.suite.profiles import fingerprints, load_profile, notebooks_folder, parameters_of, profile_names
from kdhelpers.suite.replay import MARKER, end_marker
from kdhelpers.suite.schedule import Suite
from kdhelpers.suite.workers import LocalWorkers, RayWorkers, default_workers, job_environment, replay_process

RECORD = """
import json, os, sys
record = {"schema": 1, "name": name, "identity": "0" * 64, "status": "finished", "notebook": os.environ["KD_EXECUTED"],
          "run": {"dataset": "digits", "role": "student", "method": "si", "model": "resnet8", "seed": seed,
                  "hyperparameters": {}}, "metrics": {"test_top1_pct": 62.5},
          "interpreter": sys.executable, "folder": os.getcwd(), "threads": os.environ["OMP_NUM_THREADS"]}
root = os.environ["KD_ROOT"]
os.makedirs(f"{root}/json_results", exist_ok=True); os.makedirs(f"{root}/pth_models", exist_ok=True)
open(f"{root}/pth_models/{name}.pth", "w").close()
json.dump(record, open(f"{root}/json_results/{name}.json", "w"))
"""
NOTEBOOKS = {
    "good": ["name: str = 'one'  # of the record\nseed: int = 0  # seed\nforce_retrain: bool = False  # anew", RECORD],
    "raises": ["rate: float = 0.1  # how fast", "raise ValueError(f'rate = {rate}:\\n too fast')", "1"],
    "killed": ["x = 1", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "1"],
    "leaves": ["x = 1", "raise SystemExit(0)", "1"],
    "sleeps": [
        "length = 60",
        "import os, time; open(os.environ['KD_ROOT'] + '/pid', 'w').write(str(os.getpid()))",
        "time.sleep(length)",
    ],
}


def write_notebook(folder: Path, name: str, cells: list[str]) -> None:
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    )
    notebook.cells = [nbformat.v4.new_markdown_cell(f"# The {name} one"), *map(nbformat.v4.new_code_cell, cells)]
    notebook.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, folder / f"{name}.ipynb")


def make_root(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (path / "notebooks" / "profiles").mkdir(parents=True)
    for name, cells in NOTEBOOKS.items():
        write_notebook(path / "notebooks", name, cells)
    monkeypatch.setenv("KD_ROOT", str(path))
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_root(tmp_path, monkeypatch)


def profile(root: Path, *jobs: dict, name: str = "tiny") -> str:
    path = root / "notebooks" / "profiles" / f"{name}.yaml"
    path.write_text(json.dumps(jobs))  # JSON is YAML
    return name


def job(name: str, notebook: str = "good", **rest) -> dict:
    return {"name": name, "notebook": notebook, **rest}


def state(root: Path, name: str = "tiny") -> dict:
    return json.loads((root / "notebooks" / "executed" / f"{name}.json").read_text())["jobs"]


# --- profiles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([job("a", "nowhere")], "job 'a': unknown notebook 'nowhere'; known: good, killed"),
        ([job("a", parameters={"epochs": 3})], "good has no parameter 'epochs'; it has force_retrain, name, seed"),
        ([job("a", "killed", seeds="each")], "notebook killed has no parameter 'seed'; it has x"),
        ([job("a", needs=["b"])], "job 'a' needs 'b', which is no job here; jobs: a"),
        ([job("a", needs=["b"]), job("b", needs=["a"])], "in a circle: a -> b -> a"),
        ([job("a"), job("a")], "two jobs are named 'a'"),
        ([job("a", seeds="each", parameters={"seed": 3})], "sets the parameter seed; remove one"),
        ([job("a", seeds="sometimes")], "job 'a': seeds: Input should be 'once' or 'each'"),
        ([job("a", need=["b"])], "job 'a': unknown key 'need'; known: name, notebook, parameters, needs, seeds"),
        ([job("../a")], "name: String should match pattern"),
        ([{"notebook": "good"}], "job 1: name: Field required"),
        (["good"], "job 1: entry: Input should be a valid dictionary"),
        ([], "a profile is a list of jobs"),
    ],
)
def test_a_faulty_profile_is_refused_in_one_line(root: Path, jobs: list, message: str):
    with pytest.raises(ValueError) as error:
        load_profile(profile(root, *jobs))
    assert message in str(error.value).replace("b -> a -> b", "a -> b -> a")
    assert "\n" not in str(error.value)
    assert not (root / "notebooks" / "executed").exists()


def test_unknown_profile_broken_yaml_and_broken_notebook(root: Path):
    profile(root, job("a"))
    with pytest.raises(ValueError, match="no such name or file; known: tiny"):
        load_profile("huge")
    (root / "mine.yaml").write_text("- {name: a")
    with pytest.raises(ValueError, match="mine.yaml: not YAML"):
        load_profile(str(root / "mine.yaml"))
    (root / "notebooks" / "good.ipynb").write_text("{")
    with pytest.raises(ValueError, match="good.ipynb: not a notebook"):
        load_profile("tiny")


def test_parameters_are_read_as_papermill_reads_them_and_where_it_stumbles(root: Path):
    from papermill import inspect_notebook

    cell = "name: str = 'one'  # of the record\nrate = 1e-3\noptions: dict = {'a': [1]}\n# a remark\nprint(rate)"
    write_notebook(root / "notebooks", "plain", [cell, "other = 2"])
    path = root / "notebooks" / "plain.ipynb"
    assert parameters_of(path) == {"name": "'one'", "rate": "0.001", "options": "{'a': [1]}"}
    assert set(parameters_of(path)) == set(inspect_notebook(str(path)))
    write_notebook(root / "notebooks", "plain", ['steps: str = "crop"  # e.g. "crop=4"; "none" for none'])
    assert list(parameters_of(path)) == ["steps"]
    assert inspect_notebook(str(path)) == {}
    write_notebook(root / "notebooks", "plain", ["rate = = 1"])
    with pytest.raises(ValueError, match="plain.ipynb: its parameters cell is not plain Python"):
        parameters_of(path)


def test_the_profiles_that_ship_are_sound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KD_ROOT", str(Path(__file__).resolve().parent.parent))
    assert {"paper", "short", "smoke"} <= set(profile_names())
    for name in profile_names():
        assert load_profile(name, seeds=[0, 1])[-1].notebook.stem == "30_results"
    notebooks = {job.notebook.stem for job in load_profile("smoke")}
    assert notebooks == {path.stem for path in notebooks_folder().glob("*.ipynb")}  # smoke replays every notebook


def test_seeds_replicate_jobs_and_their_needs(root: Path):
    name = profile(
        root,
        job("teacher"),
        job("a", seeds="each", needs=["teacher"]),
        job("b", seeds="each", needs=["a"]),
        job("results", needs=["b"]),
    )
    jobs = {each.name: each for each in load_profile(name, seeds=[0, 2])}
    assert list(jobs) == ["teacher", "a", "a_seed2", "b", "b_seed2", "results"]
    assert [jobs[each].parameters for each in ("teacher", "a", "a_seed2")] == [{}, {"seed": 0}, {"seed": 2}]
    assert {each: jobs[each].needs for each in ("b", "b_seed2", "a_seed2", "results")} == {
        "b": ("a",),
        "b_seed2": ("a_seed2",),
        "a_seed2": ("teacher",),
        "results": ("b", "b_seed2"),
    }
    assert [each.name for each in load_profile(name, [0, 2], only=["b_seed2"])] == ["teacher", "a_seed2", "b_seed2"]
    assert [each.name for each in load_profile(name, [0, 2], only=["a"])] == ["teacher", "a", "a_seed2"]
    with pytest.raises(ValueError, match="--only 'c' is no job here; jobs: teacher, a"):
        load_profile(name, only=["c"])
    with pytest.raises(ValueError, match="--seeds: 1 is given twice"):
        load_profile(name, [1, 1])


def test_fingerprint_follows_cells_parameters_and_needs_but_not_outputs(root: Path):
    def prints(**parameters) -> dict:
        jobs = job("a", parameters=parameters), job("b", needs=["a"]), job("c")
        return fingerprints(load_profile(profile(root, *jobs)))

    before, changed = prints(), prints(name="two")
    assert {name for name in before if before[name] != changed[name]} == {"a", "b"}
    path = root / "notebooks" / "good.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="hello")]
    nbformat.write(notebook, path)
    assert prints() == before
    notebook.cells[2].source += "\n1"
    nbformat.write(notebook, path)
    assert prints()["c"] != before["c"]


# --- real runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """One real suite run over good and bad notebooks: (root, what it printed, whether all went well)."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        root = make_root(tmp_path_factory.mktemp("suite"), monkeypatch)
        jobs = [
            job("after", needs=["middle"]),
            job("middle", needs=["raises"]),
            job("raises", "raises"),
            job("killed", "killed"),
            job("leaves", "leaves"),
            job("one"),
            job("two", parameters={"name": "two", "seed": 7}, needs=["one"]),
        ]
        monkeypatch.setenv("JUPYTER_PATH", "/nowhere")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            finished = run_suite(profile(root, *jobs), workers=2)
        return root, output.getvalue(), finished


def command(root: Path, *arguments: str) -> subprocess.Popen:
    checkout = Path(__file__).resolve().parent.parent
    environment = os.environ | {"KD_ROOT": str(root), "PYTHONPATH": str(checkout)}
    return subprocess.Popen(
        [sys.executable, "-m", "kdhelpers", *arguments],
        env=environment,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_failed_job_fails_its_dependants_and_no_other(finished):
    root, output, all_finished = finished
    assert not all_finished
    jobs = state(root)
    assert {name: each["state"] for name, each in jobs.items()} == {
        "after": "blocked",
        "middle": "blocked",
        "raises": "failed",
        "killed": "failed",
        "leaves": "failed",
        "one": "done",
        "two": "done",
    }
    reason = "ValueError: rate = 0.1: too fast"
    assert jobs["raises"]["error"] == reason
    assert jobs["after"]["error"] == jobs["middle"]["error"] == f"needs raises, which failed: {reason}"
    assert "after: blocked" in output
    assert re.fullmatch(r"two +done +\d+ s  SI 62.50 %", output.splitlines()[-1])


def test_a_killed_kernel_and_an_early_exit_are_failures(finished):
    """papermill's own metadata says `completed` for both."""
    root, *_ = finished
    jobs, executed = state(root), root / "notebooks" / "executed"
    assert [jobs[name]["exit_code"] for name in ("killed", "leaves")] == [138, 1]
    assert "the kernel died" in jobs["killed"]["error"]
    assert "stopped before its last cell" in jobs["leaves"]["error"]
    assert sorted(path.name for path in executed.glob("*.ipynb")) == [
        "killed.failed.ipynb",
        "leaves.failed.ipynb",
        "one.ipynb",
        "raises.failed.ipynb",
        "two.ipynb",
    ]


def test_the_kernel_runs_here_and_knows_its_executed_copy(finished):
    root, *_ = finished
    record = json.loads((root / "json_results" / "two.json").read_text())
    assert record["notebook"] == "notebooks/executed/two.ipynb"
    assert Path(record["interpreter"]) == Path(sys.executable)
    assert Path(record["folder"]) == root / "notebooks"
    assert record["run"]["seed"] == 7
    assert state(root)["two"]["records"] == ["two"]


def test_finished_jobs_are_kept_until_something_they_stand_on_changes(finished, monkeypatch: pytest.MonkeyPatch):
    root, *_ = finished
    monkeypatch.setenv("KD_ROOT", str(root))
    started: list[str] = []

    def again(**options) -> list[str]:
        """The jobs that a suite would start now, each failing at once, so that the stored state stays `done` or not."""
        started.clear()
        suite = Suite("tiny", load_profile("tiny", only=["two"]), **options)
        stored = suite.state_path.read_bytes()
        suite.run(FakeWorkers(started, exit_code=1))
        suite.state_path.write_bytes(stored)
        return started

    assert again() == []
    assert again(force=frozenset(["two"])) == ["two"]
    weights = root / "pth_models" / "one.pth"
    weights.unlink()
    assert again() == ["one"]  # `two` needs it and would follow
    weights.touch()
    copy = root / "notebooks" / "executed" / "two.ipynb"
    content = copy.read_text()
    copy.write_text(content.replace(end_marker(copy), "another"))
    assert again() == ["two"]
    copy.write_text(content)
    assert again() == []


def test_ctrl_c_ends_the_kernels_and_the_same_suite_continues(root: Path, capsys: pytest.CaptureFixture):
    name = profile(root, job("sleeps", "sleeps"), job("after", needs=["sleeps"]))
    process = command(root, "suite", "--profile", name, "--workers", "1")
    kernel = wait_for(root / "pid")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command continues" in errors
    assert gone(kernel)
    assert {key: each["state"] for key, each in state(root).items()} == {"sleeps": "interrupted", "after": "waiting"}
    assert Suite(name, load_profile(name)).run(FakeWorkers(started := []))
    assert started == ["sleeps", "after"]


def test_a_job_ends_with_the_suite_that_ordered_it(root: Path):
    """Also where the suite was killed: the job's stdin is then closed by the system."""
    order = {
        "notebook": str(root / "notebooks/sleeps.ipynb"),
        "copy": str(root / "copy.ipynb"),
        "parameters": {},
        "fingerprint": "",
    }
    process = replay_process(order, job_environment("x"), str(root / "log"))
    kernel = wait_for(root / "pid")
    process.stdin.close()
    assert process.wait(20) == 130
    assert gone(kernel)


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.is_file() and path.read_text():
            return int(path.read_text())
        time.sleep(0.1)
    raise TimeoutError(path)


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").is_file() and Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
            return True
        time.sleep(0.1)
    return False


# --- scheduling with fakes --------------------------------------------------------------------------------------------


class FakeWorkers:
    """Runs nothing: a started job ends at the next poll, with its end marker set where it succeeds."""

    description = "fakes"

    def __init__(self, started: list[str], exit_code: int = 0, marked: bool = True, count: int = 2):
        self.started, self.exit_code, self.marked, self.count = started, exit_code, marked, count
        self.at_work, self.most, self.orders, self.stopped = 0, 0, {}, []

    def free(self) -> bool:
        return self.at_work < self.count

    def start(self, job, order: dict, log: str, copy: str) -> dict:
        self.started.append(job.name)
        self.orders[job.name] = order
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        marker = {MARKER: {"fingerprint": order["fingerprint"]}} if self.marked else {}
        Path(order["copy"]).write_text(json.dumps({"metadata": marker}))
        Path(log).write_text("")
        return order

    def poll(self, handle: dict) -> int:
        self.at_work -= 1
        return self.exit_code

    def stop(self, handles: list) -> None:
        self.stopped += handles


def test_order_capacity_and_forced_training(root: Path):
    jobs = load_profile(
        profile(
            root,
            job("last", needs=["b", "c"]),
            job("b", needs=["a"]),
            job("c", needs=["a"]),
            job("a"),
            job("d", "raises"),
        )
    )
    started: list[str] = []
    workers = FakeWorkers(started)
    assert Suite("tiny", jobs, frozenset(["a", "d"])).run(workers)
    assert started == ["a", "d", "b", "c", "last"]
    assert workers.most == 2
    given = {name: order["parameters"] for name, order in workers.orders.items()}
    assert given["a"] == {"force_retrain": True}
    assert given["b"] == given["d"] == {}  # b is not forced, d has no such parameter


def test_exit_code_zero_without_the_end_marker_is_a_failure(root: Path):
    jobs = load_profile(profile(root, job("a")))
    suite = Suite("tiny", jobs)
    assert not suite.run(FakeWorkers([], marked=False))
    assert suite.status["a"].state == "failed"
    assert "no end marker" in suite.status["a"].error


def test_a_failure_keeps_the_last_good_copy(root: Path):
    jobs = load_profile(profile(root, job("a")))
    Suite("tiny", jobs).run(FakeWorkers([]))
    good = (root / "notebooks/executed/a.ipynb").read_bytes()
    suite = Suite("tiny", jobs, frozenset(["a"]))
    suite.run(FakeWorkers([], exit_code=-9, marked=False))
    assert (root / "notebooks/executed/a.ipynb").read_bytes() == good
    assert (root / "notebooks/executed/a.failed.ipynb").is_file()
    assert "killed by signal 9" in suite.status["a"].error


def test_two_suites_at_once_are_refused(root: Path):
    jobs = load_profile(profile(root, job("a")))

    class Nested(FakeWorkers):
        def start(self, *arguments):
            with pytest.raises(BlockingIOError, match="another suite is at work"):
                Suite("tiny", jobs).run(FakeWorkers([]))
            return super().start(*arguments)

    assert Suite("tiny", jobs).run(Nested([]))


def test_a_full_disk_stops_the_running_jobs(root: Path):
    jobs = load_profile(profile(root, job("a"), job("b")))

    class Full(FakeWorkers):
        def poll(self, handle):
            raise OSError("no space left")

    workers = Full([])
    suite = Suite("tiny", jobs)
    with pytest.raises(OSError, match="no space left"):
        suite.run(workers)
    assert len(workers.stopped) == 2
    assert suite.status["a"].state == "interrupted"


# --- workers ----------------------------------------------------------------------------------------------------------


def test_workers_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kdhelpers.suite.workers.cores", lambda: 8)
    monkeypatch.setattr("kdhelpers.suite.workers.visible_gpus", lambda: ["0", "3"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen = []
    monkeypatch.setattr("kdhelpers.suite.workers.replay_process", lambda _, environment, log: seen.append(environment))
    workers = LocalWorkers(4)
    for _ in range(4):
        workers.start(None, {}, "", "")
    assert not workers.free()
    assert [each["CUDA_VISIBLE_DEVICES"] for each in seen] == ["0", "3", "0", "3"]
    assert {each["OMP_NUM_THREADS"] for each in seen} == {"2"}
    assert default_workers(gpus=2) == 2
    assert 1 <= default_workers(gpus=0) <= 8


def test_the_job_finds_this_interpreters_kernel_first(root: Path):
    from jupyter_client.kernelspec import KernelSpecManager

    environment = job_environment("notebooks/executed/a.ipynb")
    home = Path(environment["JUPYTER_PATH"].split(os.pathsep)[0])
    spec = KernelSpecManager(kernel_dirs=[str(home / "kernels")], ensure_native_kernel=False).get_kernel_spec("python3")
    assert spec.argv[0] == "python"  # which jupyter_client replaces with its own interpreter
    assert environment["KD_EXECUTED"] == "notebooks/executed/a.ipynb"


def test_ray_missing_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="--ray needs Ray, which is not installed: pip install"):
        RayWorkers("local")


def test_ray_runs_the_same_jobs(root: Path, monkeypatch: pytest.MonkeyPatch):
    """A stand-in for Ray's five calls; the job's own process is real."""
    asked = []

    def remote(**options):
        asked.append(options)
        return lambda function: types.SimpleNamespace(remote=function)

    fake = types.SimpleNamespace(
        init=lambda **_: None,
        is_initialized=lambda: False,
        cluster_resources=lambda: {"CPU": 2.0, "GPU": 1.0},
        remote=remote,
        wait=lambda handles, timeout: (handles, []),
        get=lambda handle: handle,
        cancel=None,
        exceptions=types.SimpleNamespace(RayError=RuntimeError),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(ConnectionError, match="--ray 127.0.0.1:1: no Ray cluster answers there"):
        RayWorkers("127.0.0.1:1")
    name = profile(root, job("raises", "raises", num_gpus=0.5))
    assert not run_suite(name, ray="auto")
    assert state(root)["raises"]["error"] == "ValueError: rate = 0.1: too fast"
    assert [each["num_gpus"] for each in asked] == [0.5]


def test_the_command_that_records_quote_is_papermills_own():
    from kdhelpers.suite.replay import command

    quoted = command("anywhere/notebooks/02_independent_student.ipynb", {"epochs": 3, "augmentation": "crop flip"})
    assert quoted == (
        "papermill -k python3 --cwd notebooks notebooks/02_independent_student.ipynb out.ipynb"
        " -p epochs 3 -p augmentation 'crop flip'"
    )
