"""Profiles: reading, checks, replicas over seeds, matrices and patterns."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from suite_fixtures import job, make_root, profile, write_notebook

from kdhelpers import optimizer_runs, run_of, starting_point
from kdhelpers.report.results import METHOD_FIELDS
from kdhelpers.suite.profiles import fingerprints, load_profile, notebooks_folder, parameters_of, profile_names
from kdhelpers.training.run import distinctive


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_root(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([job("a", "nowhere")], "job 'a': unknown notebook 'nowhere'; known: good, killed"),
        ([job("a", parameters={"epochs": 3})], "good has no parameter 'epochs'; it has name, seed, force_retrain"),
        ([job("a", "killed", seeds="each")], "notebook killed has no parameter 'seed'; it has x"),
        ([job("a", needs=["b"])], "job 'a' needs 'b', which is not a job here; known: a"),
        ([job("a", needs=["b"]), job("b", needs=["a"])], "in a circle: a -> b -> a"),
        ([job("a"), job("a")], "two jobs are named 'a'"),
        ([job("a", seeds="each", parameters={"seed": 3})], "sets the parameter seed; remove one"),
        ([job("a_$x", matrix=[{"y": 1}])], "job 'a_$x': $x: `matrix` lacks this name in {'y': 1}; it has y"),
        ([job("a", matrix={"x": 1})], "job 'a': matrix: must be a list of mappings"),
        ([job("a", matrix=[])], "job 'a': matrix: must be a list of mappings"),
        ([job("a", matrix=[{"x": 1}, {"x": 2}])], "two jobs are named 'a'"),
        ([job("a_$x", matrix=[{"x": "b c"}])], "job 'a_$x': name: String should match pattern"),
        ([job("a_$x", parameters={"size": "$x"}, matrix=[{"x": 1}])], "good has no parameter 'size'"),
        ([job("a", needs=["b*"])], "job 'a' needs 'b*', which is not a job here; known: a"),
        ([job("a", seeds="sometimes")], "job 'a': seeds: Input should be 'once', 'each' or 'all'"),
        (
            [job("a", need=["b"])],
            "unknown key 'need'; known: name, notebook, parameters, needs, after, seeds, num_gpus, time_limit, matrix",
        ),
        ([job("../a")], "name: String should match pattern"),
        ([job("a.failed")], "job 'a.failed': name = a.failed: ends like a copy of another job; leave .failed out"),
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


def test_without_a_checkout_there_are_no_profiles(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kdhelpers.suite.notebooks.PACKAGE", root / "site-packages" / "kdhelpers")
    with pytest.raises(ValueError, match="profile = smoke: no such name or file; clone the repository"):
        load_profile("smoke")


def test_unknown_profile_broken_yaml_and_broken_notebook(root: Path):
    profile(root, job("a"))
    with pytest.raises(ValueError, match="no such name or file; known: tiny"):
        load_profile("huge")
    (root / "mine.yaml").write_text("- {name: a")
    with pytest.raises(ValueError, match="mine.yaml: not YAML"):
        load_profile(str(root / "mine.yaml"))
    (root / "notebooks" / "good.ipynb").write_text("{")
    with pytest.raises(ValueError, match="good.ipynb: damaged JSON"):
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
    monkeypatch.setenv("KD_ROOT", str(Path(__file__).resolve().parents[2]))
    assert {"crd_benchmark", "paper", "short", "smoke"} <= set(profile_names())
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
    jobs = {replica.name: replica for replica in load_profile(name, seeds=[0, 2])}
    assert list(jobs) == ["teacher", "a", "a_seed2", "b", "b_seed2", "results"]
    assert [jobs[replica].parameters for replica in ("teacher", "a", "a_seed2")] == [{}, {"seed": 0}, {"seed": 2}]
    assert {replica: jobs[replica].needs for replica in ("b", "b_seed2", "a_seed2", "results")} == {
        "b": ("a",),
        "b_seed2": ("a_seed2",),
        "a_seed2": ("teacher",),
        "results": ("b", "b_seed2"),
    }
    assert [replica.name for replica in load_profile(name, [0, 2], only=["b_seed2"])] == [
        "teacher",
        "a_seed2",
        "b_seed2",
    ]
    assert [replica.name for replica in load_profile(name, [0, 2], only=["a"])] == ["teacher", "a", "a_seed2"]
    with pytest.raises(ValueError, match="--only = c: is not a job of tiny; known: teacher, a"):
        load_profile(name, only=["c"])
    with pytest.raises(ValueError, match="--seeds: 1 is given twice"):
        load_profile(name, [1, 1])


def test_after_orders_jobs_and_selects_none(root: Path):
    name = profile(
        root,
        job("a", seeds="each"),
        job("b", needs=["a"]),
        job("first_results", after=["*"]),
        job("results", after=["*"]),
        job("c"),
    )
    jobs = {one.name: one for one in load_profile(name, [0, 1])}
    assert jobs["results"].after == ("a", "a_seed1", "b", "first_results")  # those above it
    assert jobs["results"].needs == ()
    (alone,) = load_profile(name, [0, 1], only=["results"])
    assert alone.after == ()
    some = load_profile(name, [0, 1], only=["results", "b"])
    assert [one.name for one in some] == ["a", "a_seed1", "b", "results"]
    assert some[-1].after == ("a", "a_seed1", "b")
    before = fingerprints(list(jobs.values()))
    changed = profile(root, job("a", parameters={"seed": 7}), job("results", after=["*"]))
    assert fingerprints(load_profile(changed))["results"] != before["results"]
    with pytest.raises(ValueError, match="job 'a' is after 'b\\*', which is not a job above it"):
        load_profile(profile(root, job("a", after=["b*"]), job("b")))
    with pytest.raises(ValueError, match="in a circle: a -> b -> a"):
        load_profile(profile(root, job("a", after=["b"]), job("b", needs=["a"])))


def test_what_19_optimisers_trains_has_the_student_alone_of_its_own_optimiser(monkeypatch):
    monkeypatch.setenv("KD_ROOT", str(Path(__file__).resolve().parents[2]))
    checked = 0
    for jobs in (load_profile(name) for name in ("laptop", "paper", "short")):
        by_notebook = {"02_independent_student": [], "19_optimisers": []}
        for one in jobs:
            by_notebook.setdefault(one.notebook.stem, []).append(_parameters(one))
        alone = [_budget(_run(values)) for values in by_notebook["02_independent_student"]]
        for values in by_notebook["19_optimisers"]:
            lr, decay = starting_point(values["optimizer"], values["lr"], values["weight_decay"])
            runs = optimizer_runs(_run(values | {"lr": lr, "weight_decay": decay}), values["beside"])
            assert [run.optimizer for run in runs if _budget(run) not in alone] == []
            checked += len(runs)
    assert checked == 9


def _parameters(one) -> dict:
    return {name: ast.literal_eval(text) for name, text in parameters_of(one.notebook).items()} | one.parameters


def _run(values: dict):
    chosen = {name: value for name, value in values.items() if name not in ("beside", "sweep", "training", "student")}
    return run_of(chosen | {"model": values["student"]})


def _budget(run) -> dict:
    fields = distinctive(run.model_dump())
    return {name: value for name, value in fields.items() if name not in METHOD_FIELDS}


def test_seeds_all_runs_once_with_every_seed_and_needs_every_replica(root: Path):
    write_notebook(root / "notebooks", "study", ["seeds: str = '0'  # of the students", "1"])
    jobs = load_profile(profile(root, job("a", seeds="each"), job("b", "study", seeds="all", needs=["a"])), [0, 2])
    assert (jobs[-1].name, jobs[-1].parameters, jobs[-1].needs) == ("b", {"seeds": "0 2"}, ("a", "a_seed2"))
    with pytest.raises(ValueError, match="notebook good has no parameter 'seeds'"):
        load_profile(profile(root, job("a", seeds="all")))
    with pytest.raises(ValueError, match="`seeds: all` sets the parameter seeds; remove one"):
        load_profile(profile(root, job("b", "study", seeds="all", parameters={"seeds": "1"})))


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


def test_a_matrix_repeats_its_job_for_every_mapping(root: Path):
    matrix = [{"student": "small", "lr": 0.05, "unused": 1}, {"student": "big", "lr": 3}]
    parameters = {"name": "of_${student}_$lr", "seed": "$lr", "force_retrain": "1$lr"}
    name = profile(
        root,
        job("teacher_small"),
        job("teacher_big"),
        job("a_${student}_x", seeds="each", needs=["teacher_$student"], parameters={"name": "$student"}, matrix=matrix),
        job("b_$student", needs=["a_${student}_x"], parameters=parameters, matrix=matrix),
        job("results", needs=["*"]),
    )
    jobs = {replica.name: replica for replica in load_profile(name, seeds=[0, 1])}
    students = ["a_small_x", "a_small_x_seed1", "a_big_x", "a_big_x_seed1"]
    assert list(jobs) == ["teacher_small", "teacher_big", *students, "b_small", "b_big", "results"]
    assert jobs["a_big_x_seed1"].parameters == {"name": "big", "seed": 1}
    assert jobs["a_big_x_seed1"].needs == ("teacher_big",)
    assert jobs["b_small"].parameters == {"name": "of_small_0.05", "seed": 0.05, "force_retrain": "10.05"}  # a number
    assert jobs["b_big"].needs == ("a_big_x", "a_big_x_seed1")
    assert jobs["results"].needs == tuple(list(jobs)[:-1])


def test_patterns_choose_jobs(root: Path):
    name = profile(root, job("t"), job("a_1", needs=["t"]), job("a_2", seeds="each"), job("b", needs=["a_*", "a_1"]))
    assert [replica.name for replica in load_profile(name, [0, 1], only=["a_?"])] == ["t", "a_1", "a_2", "a_2_seed1"]
    assert [replica.name for replica in load_profile(name, [0, 1], only=["*_seed1"])] == ["a_2_seed1"]
    assert load_profile(name, [0, 1])[-1].needs == ("a_1", "a_2", "a_2_seed1")  # each once
    with pytest.raises(ValueError, match=r"--only = c\*: is not a job of tiny; known: t, a_1"):
        load_profile(name, only=["a_1", "c*"])
