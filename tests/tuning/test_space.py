"""The search space: defaults from the annotations of a method, a user's file, and its faults."""

import pytest

from kdhelpers import Run
from kdhelpers.methods import METHODS, Method
from kdhelpers.methods.parts.ranges import Temperature, Weight
from kdhelpers.tuning.sampler import suggest
from kdhelpers.tuning.space import Dimension, flat, read_space, space_of, with_values


@pytest.fixture(autouse=True)
def few(root):
    """These tests need no data."""


def run_of_method(method, **fields):
    chosen = METHODS[method]
    fields |= {"teacher": "resnet20"} if chosen.needs_teacher else {}
    fields |= {"unlabelled": "train:100"} if method == "lm_unlabelled" else {}
    return Run(method=method, epochs=30, selection="last", augmentation="crop flip randaugment=2/10", **fields)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_default_space_around_its_defaults(method):
    run = run_of_method(method)
    space = space_of(run)
    assert {"lr", "weight_decay"} <= set(space)
    assert set(space) - {"lr", "weight_decay"} <= set(run.hyperparameters)
    inside = {name for name, dimension in space.items() if dimension.contains(flat(run)[name])}
    assert set(space) - inside <= {"lam"}  # 1 would leave the cross-entropy out


def test_defaults_follow_the_annotations_and_the_start_value():
    space = space_of(run_of_method("dkd", hyperparameters={"beta": 2.0}))
    assert list(space) == ["lr", "weight_decay", "alpha", "beta", "temperature"]
    assert space["beta"] == Dimension(0.2, 20, log=True)
    assert space["temperature"] == Dimension(1, 16, log=True)
    assert "kd_temperature" not in space_of(run_of_method("crd"))  # kd_weight is 0
    assert "kd_temperature" in space_of(run_of_method("crd", hyperparameters={"kd_weight": 1.0}))
    assert space_of(run_of_method("lm", hyperparameters={"temperature": 0.02}))["temperature"].low == 0.01


def test_a_method_of_the_users_has_a_space(monkeypatch):
    class Own(Method):
        strength: Weight = 2.0
        heat: Temperature = 3.0
        layers: int = 2

        def forward(self, student, teacher, batch, epoch):
            return {}

    monkeypatch.setitem(METHODS, "own_of_a_test", Own)
    assert set(space_of(run_of_method("own_of_a_test"))) == {"lr", "weight_decay", "strength", "heat"}


def test_a_file_replaces_the_parts_that_it_names(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("every: {lr: {low: 1e-3, high: 0.3, log: true}, batch_size: {low: 16, high: 64}}\n")
    space = space_of(run_of_method("lm"), read_space(path, ["lm"]))
    assert space["lr"] == Dimension(0.001, 0.3, log=True)
    assert space["batch_size"] == Dimension(16, 64, whole=True)
    assert list(space) == ["lr", "batch_size", "temperature", "kd_weight"]
    path.write_text("methods: {lm: {temperature: [1, 2, 4]}}")
    space = space_of(run_of_method("lm"), read_space(path, ["lm"]))
    assert list(space) == ["lr", "weight_decay", "temperature"]
    assert space["temperature"].choices == (1, 2, 4)
    path.write_text("every: {lr: [1e-3, 0.1], batch_size: [16, 32.0], nesterov: [true, false]}")  # 1e-3 is a text
    space = space_of(run_of_method("lm"), read_space(path, ["lm"]))
    assert [space[name].choices for name in ("lr", "batch_size", "nesterov")] == [(0.001, 0.1), (16, 32), (True, False)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("every: {lrr: {around: 2}}", "lrr of lm: unknown; did you mean lr"),
        ("methods: {lm: {beta: {around: 2}}}", "beta of lm: unknown"),
        ("every: {epochs: [1, 2]}", "epochs of lm: is common to all trials of a comparison; remove it"),
        ("every: {lr: 0.1}", "lr of lm = 0.1: is not a mapping"),
        ("every: {lr: {low: 0.1}}", "lr of lm = {'low': 0.1}: is not a range; write {low"),
        ("every: {lr: {low: 0.3, high: 0.1}}", "low = 0.3: must be below high = 0.1"),
        ("every: {lr: {low: 0.1, high: 0.1}}", "low = 0.1: must be below high = 0.1"),
        ("every: {lr: {low: 0, high: 0.1, log: true}}", "low = 0: must be above 0 on a logarithmic scale"),
        ("every: {lr: {low: x, high: 0.1}}", "lr of lm: low = x: is not a finite number"),
        ("every: {lr: {low: 0.01, high: 200}}", "lr of lm = 200.0: lr = 200.0: .*less than or equal to 100"),
        ("every: {lr: {low: 0.01, high: 0.1, log: 3}}", "log = 3: must be true or false"),
        ("every: {lr: {around: 1}}", "around = 1: must be above 1"),
        ("every: {lr: [0.1]}", "needs two or more different values"),
        ("every: {lr: [1, 1.0]}", r"= \[1, 1.0\]: needs two or more different values"),
        ("every: {lr: [0.1, true]}", "lr of lm = True: is not a finite number"),
        ("every: {lr: [0.1, null]}", "lr of lm = None: is not a finite number"),
        ("every: {lr: {low: 0.01, high: .inf}}", "high = inf: is not a finite number"),
        ("every: {lr: {around: .nan}}", "around = nan: is not a finite number"),
        ("every: {batch_size: {low: 16.5, high: 16.7}}", "low = 16.5: must be a whole number"),
        ("every: {augmentation: {low: 1, high: 2}}", "is not a number, such as 'crop flip randaugment"),
        ("methods: {lm: {temperature: [0, 2]}}", r"temperature of lm = 0.0: .*must lie in \[0.01, 1000\]"),
        ("methods: {dkd: {beta: [1, 2]}}", "methods = dkd: is not compared"),
        ("methods: {dkdd: {beta: [1, 2]}}", "methods = dkdd: unknown; did you mean dkd"),
        ("methods: [lm]", "methods = ..lm..: is not a mapping"),
        ("evry: {lr: {around: 2}}", "evry: unknown; did you mean every|= evry: unknown"),
        ("[lr]", "is not a mapping; write `every:`"),
        ("{", "not YAML"),
        ("{every: {}, methods: {lm: {}}}", "nothing is searched for lm"),
    ],
)
def test_faults_of_a_file_name_field_value_and_remedy(tmp_path, text, fault):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=fault):
        space_of(run_of_method("lm"), read_space(path, ["lm"]), str(path))


def test_a_hyperparameter_wins_a_name_that_is_also_a_field():
    run = with_values(run_of_method("dkd"), {"warmup_epochs": 3.0, "lr": 0.2, "momentum": 0.8})
    assert (run.hyperparameters["warmup_epochs"], run.warmup_epochs, run.lr) == (3.0, 0, 0.2)
    assert run.optimizer_options["momentum"] == 0.8


def test_suggestions_are_a_function_of_seed_number_and_history():
    space = {
        "lr": Dimension(0.01, 1, log=True),
        "k": Dimension(1, 9, whole=True),
        "mode": Dimension(choices=("a", "b")),
    }
    first = suggest(space, [], 0, 1)
    assert first == suggest(space, [], 0, 1)
    assert first != suggest(space, [], 0, 2)
    assert first != suggest(space, [], 1, 1)
    assert all(space[name].contains(value) for name, value in first.items())
    assert float(f"{first['lr']:.3g}") == first["lr"]
    history = [({"lr": lr, "k": 3, "mode": "a"}, 90 - abs(lr - 0.1)) for lr in (0.1, 0.11, 0.09, *[0.5] * 9, 7.0)]
    assert suggest(space, history, 0, 1) == suggest(space, history[:-1], 0, 1)  # 7.0 lies outside
    assert suggest(space, history, 0, 1) != first


def test_a_value_has_three_digits_within_the_interval():
    dimension = Dimension(0.12345, 0.6789)
    assert [dimension.tidy(value) for value in (0.12345, 0.23456, 0.6789)] == [0.12345, 0.235, 0.6789]


def test_around_a_start_of_zero_and_of_a_whole_number():
    space = {"every": {"weight_decay": {"around": 10}, "batch_size": {"around": 8}}}
    assert "weight_decay" not in space_of(run_of_method("lm", weight_decay=0.0), space)
    assert space_of(run_of_method("lm", batch_size=60), space)["batch_size"] == Dimension(8, 480, log=True, whole=True)
    with pytest.raises(ValueError, match="batch_size of lm = 1: "):
        space_of(run_of_method("lm", batch_size=2), space)


def test_later_suggestions_are_near_the_best_trials():
    space = {"lr": Dimension(0.01, 1)}
    history = [({"lr": lr / 20}, 100 - abs(lr - 18)) for lr in range(1, 21)]
    suggested = sorted(suggest(space, history, 0, number)["lr"] for number in range(20, 29))
    assert suggested[4] > 0.7
