"""The profile of the CRD benchmark: each pair in each row of the published tables, at the published recipe."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from kdhelpers import Run
from kdhelpers.display import notebook
from kdhelpers.suite.profiles import cells_of, load_profile, parameters_of, source_of
from kdhelpers.training.named import FIT_OPTIONS
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
            with patch.object(notebook, "added_parameters", lambda: beyond):
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


def test_every_run_has_the_published_recipe(runs):
    for run in runs:
        known = run.model_dump()
        assert {field: known[field] for field in RECIPE} == RECIPE
        assert run.lr == (0.01 if run.model.startswith(("mobilenet", "shufflenet")) else 0.05)
        assert run.schedule_options == {"milestones": [], "gamma": 0.1}  # 150, 180, 210 of 240


def test_each_pair_is_in_each_published_row_once(runs):
    rows = [row for row in benchmark.figures_of(("wrn_40_2", "wrn_16_2"), "cifar100") if row["role"] != "teacher"]
    places = Counter()
    for run in runs:
        (row,) = [row for row in rows if matches(run.model_dump(), row)]
        places[row["label"], run.teacher, run.model] += 1
        assert nearness(run.model_dump(), row) == len(row["recipe"])
    taught = {(row["label"], *pair) for row in rows if row["method"] != "si" for pair in benchmark.published_pairs()}
    assert set(places) == taught | {("student", None, student) for _, student in benchmark.published_pairs()}
    assert set(places.values()) == {1}


def test_no_two_runs_share_a_weight_file_and_names_say_the_teacher(runs):
    assert max(Counter(run.artifact_name for run in runs).values()) == 1
    assert all(run.teacher in run.artifact_name for run in runs if run.teacher)


def test_the_published_weights_of_the_losses(runs):
    by_method = {}
    for run in runs:
        by_method.setdefault(run.method, {}).setdefault((run.teacher, run.model), []).append(run.hyperparameters)
    lm = by_method["lm"]["resnet56", "resnet20"][0]
    assert lm == {"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9}
    for pair, (dkd,) in by_method["dkd"].items():
        (standardized,) = by_method["dkd_standardized"][pair]
        assert (dkd["alpha"], dkd["temperature"], dkd["warmup_epochs"]) == (1.0, 4.0, 20.0)
        assert (standardized["alpha"], standardized["temperature"]) == (9.0, 2.0)
        assert standardized["beta"] == 9 * dkd["beta"]
    assert by_method["dkd"]["vgg13", "mobilenetv2"][0]["beta"] == 6.0
    assert {h["kd_weight"] for found in by_method["lm_standardized"].values() for h in found} == {9.0}
    for method in ("crd", "cocord"):
        assert [h["kd_weight"] for h in by_method[method]["vgg13", "vgg8"]] == [0.0, 1.0]
    assert by_method["crd"]["vgg13", "vgg8"][0]["negatives"] == 16384
