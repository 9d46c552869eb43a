"""The profile of the CRD benchmark: each row of the settings in each of its pairs, at the published recipe."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from kdhelpers import METHODS, Run
from kdhelpers.display import notebook
from kdhelpers.suite.profiles import cells_of, load_profile, parameters_of, source_of
from kdhelpers.training.named import FIT_OPTIONS
from kdhelpers.training.options import complete_options
from kdhelpers.training.published import published_settings
from kdhelpers.zoo import benchmark
from kdhelpers.zoo.benchmark import matches, nearness

RECIPE = {
    "dataset": "cifar100",
    "epochs": 240,
    "batch_size": 64,
    "weight_decay": 5e-4,
    "optimizer": "sgd",
    "optimizer_options": {"momentum": 0.9, "nesterov": False},
    "schedule": "multistep",
    "augmentation": "crop flip",  # crop pads 4 pixels
    "val_fraction": 0.0,
    "selection": "last",
    "pretrained": False,
}


STRONG = "crop flip randaugment=2/10 cutout"


def runs_of(job) -> list[Run]:
    """What the job's notebook would train: its imports, its parameters, and the cell that makes the Run, executed here.

    `settings` adds the parameters that the parameter cell lacks, as in a notebook that papermill executes.
    """
    sources = [source_of(cell) for cell in cells_of(job.notebook) if cell["cell_type"] == "code"]
    names, declared = {}, {*parameters_of(job.notebook), *FIT_OPTIONS}
    exec(sources[0][sources[0].index("from kdhelpers") :].replace("notebook.setup()", ""), names)
    beyond = {name: value for name, value in job.parameters.items() if name not in declared}
    names["tables"] = SimpleNamespace(run_table=lambda run: None)
    for source in sources[1:]:
        if source.startswith("dataset: str = "):
            exec(source, names)
            names |= job.parameters
        elif "run = run_of(" in source:
            with (
                patch.object(notebook, "added_parameters", lambda: beyond),
                patch.object(notebook, "passed_parameters", lambda: job.parameters),
            ):
                exec(source, names)
            return names.get("runs") or [names["run"]]
    raise AssertionError(f"{job.notebook}: makes no Run")


@pytest.fixture(scope="module")
def runs():
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KD_ROOT", str(Path(__file__).resolve().parents[2]))
        jobs = load_profile("crd_benchmark")
    found = [runs_of(job) for job in jobs if job.notebook.stem != "30_results"]
    assert {len(each) for each in found} == {1}
    return [run for (run,) in found]


def label_of(run) -> str:
    """The row of the tables whose settings the run has."""
    rows = published_settings()
    (label,) = [label for label in rows if rows[label].method == run.method and rows[label].fits(run.hyperparameters)]
    return label


def test_every_run_has_the_published_recipe(runs):
    for run in runs:
        known, small = run.model_dump(), run.model.startswith(("mobilenet", "shufflenet"))
        recipe, lr, milestones = RECIPE, 0.05, []  # 150, 180, 210 of 240
        if run.method == "mlkd":
            long = run.teacher == "resnet32x4" and run.model.startswith("shufflenet")
            recipe = RECIPE | {"epochs": 960 if long else 480, "augmentation": STRONG}
            lr, milestones = 0.025, [150, 180, 210]
        assert {field: known[field] for field in recipe} == recipe
        assert run.lr == (0.01 if small else lr)
        assert run.schedule_options == {"milestones": milestones, "gamma": 0.1}


def test_each_pair_is_in_each_row_of_the_settings_once_with_its_values(runs):
    taught = [run for run in runs if run.method != "si"]
    for run in taught:
        row = published_settings()[label_of(run)]
        values = row.values(f"{run.teacher}>{run.model}")
        assert run.hyperparameters == complete_options(METHODS[run.method], values, run.method)
    places = Counter((label_of(run), run.teacher, run.model) for run in taught)
    pairs = {f"{teacher}>{student}": (teacher, student) for teacher, student in benchmark.published_pairs()}
    expected = {
        (label, *pairs[pair])
        for label, row in published_settings().items()
        for pair in row.known_pairs
        if pair in pairs  # NKD has no other
    }
    assert set(places) == expected
    assert {run.model for run in runs if run.method == "si"} == {student for _, student in benchmark.published_pairs()}
    assert set(places.values()) == {1}


def test_each_run_stands_in_its_row_of_the_published_figures(runs):
    for run in runs:
        pair = (run.teacher, run.model) if run.teacher else ("wrn_40_2", "wrn_16_2")
        rows = benchmark.figures_of(pair, "cifar100")
        found = [row for row in rows if row["role"] != "teacher" and matches(run.model_dump(), row)]
        labels = {"si": ["student"], "normkd": []}  # NormKD has no printed figure that was verified
        assert [row["label"] for row in found] == labels.get(run.method, [label_of(run)] if run.teacher else [])
        assert all(nearness(run.model_dump(), row) == len(row["recipe"] | row["by_pair"]) for row in found)


def test_no_two_runs_share_a_weight_file_and_names_say_the_teacher(runs):
    assert max(Counter(run.artifact_name for run in runs).values()) == 1
    assert all(run.teacher in run.artifact_name for run in runs if run.teacher)
