"""Runs from flat names, and the settings of a notebook."""

import pytest

from kdhelpers.display import notebook
from kdhelpers.training.named import all_names, run_of, settings
from kdhelpers.training.options import named_values
from kdhelpers.training.run import Run


def test_names_go_to_the_options_that_have_them():
    run = run_of(
        {"method": "lm", "teacher": "resnet20", "model": "resnet18", "temperature": "2", "base_channels": "16"}
        | {"nesterov": "true", "schedule": "multistep", "milestones": "[3, 5]", "lr": "0.1"}
    )
    assert run == Run(
        method="lm",
        teacher="resnet20",
        model="resnet18",
        lr=0.1,
        hyperparameters={"temperature": 2.0},
        model_options={"base_channels": 16},
        optimizer_options={"nesterov": True},
        schedule="multistep",
        schedule_options={"milestones": [3, 5]},
    )


def test_a_name_of_both_a_hyperparameter_and_a_field_means_the_hyperparameter():
    run = run_of({"method": "dkd", "teacher": "t", "warmup_epochs": "1", "epochs": 4})
    assert (run.hyperparameters["warmup_epochs"], run.warmup_epochs) == (1.0, 0)
    assert run_of(run.model_dump() | {"warmup_epochs": 2}).warmup_epochs == 2  # the mapping has DKD's already
    assert run_of({"warmup_epochs": 1, "epochs": 4}).warmup_epochs == 1


def test_options_in_a_mapping_and_by_their_names_come_together():
    run = run_of({"method": "dkd", "teacher": "t", "hyperparameters": {"alpha": 2.0}, "beta": 3})
    assert (run.hyperparameters["alpha"], run.hyperparameters["beta"]) == (2.0, 3.0)
    run = run_of({"model": "resnet18", "model_options": "base_channels:16", "stem": "imagenet"})
    assert run.model_options == {"stem": "imagenet", "base_channels": 16}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_decai": 1}, "weight_decai = 1: unknown; did you mean weight_decay"),
        ({"temperature": 4}, "temperature = 4: unknown"),  # cross-entropy has none
        ({"method": "lmm"}, "method = lmm: unknown; did you mean lm"),
        ({"model": "resnet9"}, "model = resnet9: unknown; did you mean"),
        ({"lr": "fast"}, "lr = 'fast'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(values, message):
    with pytest.raises(ValueError, match="Run: " + message if "fast" in message else message):
        run_of(values)


def test_settings_are_the_values_of_the_notebook_and_of_the_text():
    values, options = settings("weight_decay=1e-3 augmentation='crop flip jitter=0.4/0.1' force_retrain=True", lr=0.1)
    assert values == {"lr": 0.1, "weight_decay": "1e-3", "augmentation": "crop flip jitter=0.4/0.1"}
    assert options == {"force_retrain": True}
    assert run_of(values).weight_decay == 1e-3


def test_settings_refuse_a_name_that_the_notebook_sets():
    with pytest.raises(ValueError, match="training: lr = 0.2: this notebook sets lr itself"):
        settings("lr=0.2", lr=0.1)


def test_settings_include_what_papermill_passes_beyond_the_parameter_cell(monkeypatch):
    class Shell:
        kernel = None
        user_ns = {"lr": 0.2, "weight_decay": 1e-3, "cache_teacher": True, "other": 1}  # noqa: RUF012

    cells = [
        "lr: float = 0.1  # peak\nseed: int = 0",
        "# Parameters\nlr = 0.2\nweight_decay = 0.001\ncache_teacher = True\n",
    ]
    Shell.user_ns["In"] = ["", *cells, "other = 1"]
    monkeypatch.setattr(notebook, "_kernel_shell", lambda: Shell)
    assert settings("", lr=0.2) == ({"lr": 0.2, "weight_decay": 1e-3}, {"cache_teacher": True})
    assert settings("weight_decay=1", lr=0.2)[0] == {"lr": 0.2, "weight_decay": 1e-3}  # replaces the cell's default


@pytest.mark.parametrize("text", ["alpha", "=1", "alpha=", "a 'b"])
def test_text_that_is_not_name_and_value_is_refused(text):
    with pytest.raises(ValueError, match="settings: .*write for instance a=1"):
        named_values(text, "settings", "a=1")


def test_all_names_are_fields_and_options():
    assert {"lr", "temperature", "base_channels", "nesterov", "force_retrain"} <= all_names()


def test_the_device_and_graphs_are_options_of_fit():
    assert settings("device=cpu graphs=False", lr=0.2) == ({"lr": 0.2}, {"device": "cpu", "graphs": False})
    assert settings("graphs=true")[1] == {"graphs": True}
