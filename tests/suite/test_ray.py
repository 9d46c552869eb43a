"""The suite and the tuning as Ray tasks, by Ray itself. `python -m benchmarks cluster` loses a machine of two."""

import os
import signal
import threading

import pytest
import torch
from suite_fixtures import gone, job, make_root, profile, state, wait_for

from kdhelpers import artifacts
from kdhelpers.suite import run_suite
from kdhelpers.suite.ray_workers import SLOW_START, RayWorkers
from kdhelpers.tuning import tune

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
TINY = {"dataset": "digits", "student": "resnet8", "epochs": 1, "augmentation": "none", "training": "image_size=16"}


@pytest.fixture(scope="module", autouse=True)
def started(tmp_path_factory):
    """Ray on this machine, as `--ray local` starts it. jsonschema would compile a grammar for 4 s in each process."""
    stub = tmp_path_factory.mktemp("stub")
    (stub / "rfc3987_syntax.py").write_text("raise ImportError")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(stub), prepend=os.pathsep)
        patched.setenv("RAY_worker_niceness", "0")  # 15 by default, which waits for ever on a busy machine
        workers = next(filter(None, (start() for _ in range(3))), None)
        if not workers:
            pytest.skip(SLOW_START)
        yield workers
        ray.shutdown()


def start():
    """None if Ray took too long, as on a busy machine."""
    try:
        return RayWorkers("local")
    except ConnectionError as error:
        if str(error) != SLOW_START:
            raise
    return None


@pytest.fixture
def root(tmp_path, monkeypatch):
    return make_root(tmp_path, monkeypatch)


def test_ray_reports_its_use_to_nobody(started):
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert started.at_once >= 1


def test_a_failed_job_blocks_its_dependants_and_no_other(root):
    name = profile(root, job("raises", "raises"), job("after", needs=["raises"]), job("killed", "killed"), job("one"))
    assert not run_suite(name, ray="local")
    jobs = state(root)
    assert {key: one["state"] for key, one in jobs.items()} == {
        "raises": "failed",
        "after": "blocked",
        "killed": "failed",
        "one": "done",
    }
    reason = "ValueError: rate = 0.1: too fast"
    assert (jobs["raises"]["error"], jobs["killed"]["exit_code"]) == (reason, 138)
    assert jobs["after"]["error"] == f"needs raises, which failed: {reason}"
    executed = sorted(path.name for path in (root / "notebooks/executed").glob("*.ipynb"))
    assert executed == ["killed.failed.ipynb", "one.ipynb", "raises.failed.ipynb"]
    assert run_suite(profile(root, job("one")), ray="local")
    assert state(root)["one"]["state"] == "unchanged"


def test_ctrl_c_ends_the_kernel_before_the_suite(root):
    name = profile(root, job("sleeps", "sleeps"))

    def interrupt():
        wait_for(root / "pid")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_suite(name, ray="local")
    thread.join()
    assert gone(wait_for(root / "pid"))
    assert state(root)["sleeps"]["state"] == "interrupted"
    assert (root / "notebooks/executed/sleeps.running.ipynb").is_file()  # what it had done


def test_weights_have_the_bits_of_the_local_suite(tmp_path, monkeypatch):
    weights = {}
    for kind, options in {"local": {"workers": 1}, "ray": {"ray": "local"}}.items():
        root = tmp_path / kind
        (root / "notebooks").mkdir(parents=True)  # without notebooks of its own: the checkout's
        monkeypatch.setenv("KD_ROOT", str(root))
        (root / "two.yaml").write_text(str([job("student", "02_independent_student", seeds="each", parameters=TINY)]))
        assert run_suite(str(root / "two.yaml"), seeds=(0, 1), **options)
        records = sorted(artifacts.records(), key=lambda record: record["name"])
        stored = [artifacts.load_tensors(artifacts.weights_path(record["name"])) for record in records]
        weights[kind] = [record["metrics"]["test_top1_pct"] for record in records], stored
    (figures, local), (others, by_ray) = weights.values()
    assert figures == others
    assert len(figures) == 2
    for first, second in zip(local, by_ray, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_trials_are_those_of_one_process(root):
    settings = {"dataset": "digits", "image_size": 16, "model": "resnet8", "epochs": 1, "augmentation": "none"}
    alone = tune(settings, "si", 2, name="alone")[0]
    by_ray = tune(settings, "si", 2, name="by_ray", ray="local")[0]
    assert by_ray.open_trials() == 0
    values = [[study.ended_record(*place)["trial"]["values"] for place in study.order] for study in (alone, by_ray)]
    assert values[0] == values[1]
    accuracies = [[study.ended_record(*p)["metrics"]["val_top1_pct"] for p in study.order] for study in (alone, by_ray)]
    assert accuracies[0] == accuracies[1]


def test_an_address_that_nothing_answers_is_an_error_at_once():
    with pytest.raises(ConnectionError, match="--ray 127.0.0.1:1: no Ray cluster answers there"):
        RayWorkers("127.0.0.1:1")
