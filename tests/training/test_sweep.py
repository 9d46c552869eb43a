"""Sweeps: what each setting changes, what its run is called, and which runs make no sweep."""

import pytest
from training_fixtures import QUICK

from kdhelpers import Run, artifacts, fit_sweep
from kdhelpers.training import fit as train
from kdhelpers.training import inputs
from kdhelpers.training.optim import DEFAULT_LR_AND_DECAY
from kdhelpers.training.sweep import method_runs, optimizer_runs, sweep_runs

PLAIN = {"dataset": "cifar100", "model": "resnet18", "teacher": "resnet50", "selection": "last"}


def run(**fields):
    return Run(**PLAIN | {"method": "supcrd"} | fields)


def test_the_published_sweep_has_the_names_that_its_users_know(root):
    sweep = "alpha=1 beta=1; alpha=1 beta=12; temperature=0.07; lam=0.3"
    assert [each.artifact_name for each in sweep_runs(run(), sweep)] == [
        "student_alpha_1.0_beta_1.0_resnet18_cifar100",
        "student_alpha_1.0_beta_12.0_resnet18_cifar100",
        "student_tau_0.07_resnet18_cifar100",
        "student_hybrid_lambda_0.3_resnet18_cifar100",
    ]


def test_a_setting_changes_what_it_names_and_nothing_else(root):
    base = run(seed=3, hyperparameters={"form": "out", "beta": 2})
    (only,) = sweep_runs(base, "alpha=4;")
    assert only.hyperparameters == base.hyperparameters | {"alpha": 4.0}
    same = {"hyperparameters": None, "name": None}
    assert only.model_dump() | same == base.model_dump() | same
    assert only.artifact_name == "student_alpha_4.0_resnet18_cifar100_seed3"


def test_a_value_spelled_out_makes_the_same_run_as_the_default(root):
    first, second = sweep_runs(run(), "alpha=1 beta=12 lam=1; temperature=7e-2")
    assert first.id == second.id == run().id
    assert first.name != second.name


def test_pure_is_not_named_a_hybrid(root):
    mixed = run(hyperparameters={"lam": 0.3})
    named = [each.name for each in sweep_runs(mixed, "beta=1 lam=1; lam=1; lam=0.3")]
    assert named == [f"student_{words}_resnet18_cifar100" for words in ("beta_1.0", "supcrd", "hybrid_lambda_0.3")]


def test_a_hybrid_is_always_named_one(root):
    mixed = run(hyperparameters={"lam": 0.3})
    named = [each.name for each in sweep_runs(mixed, "temperature=0.05; alpha=1 beta=1 lam=1")]
    assert named == [
        "student_tau_0.05_hybrid_lambda_0.3_resnet18_cifar100",
        "student_alpha_1.0_beta_1.0_resnet18_cifar100",
    ]


def test_methods_share_the_values_and_keep_their_own_hyperparameters(root):
    runs = method_runs(PLAIN | {"seed": 3}, "lm; hints mode=joint; dkd beta=2 warmup_epochs=1;")
    assert [each.method for each in runs] == ["lm", "hints", "dkd"]
    assert {(each.seed, each.model, each.teacher) for each in runs} == {(3, "resnet18", "resnet50")}
    assert runs[0] == run(method="lm", seed=3)
    assert runs[1].hyperparameters["mode"] == "joint"
    assert (runs[2].hyperparameters["beta"], runs[2].hyperparameters["warmup_epochs"]) == (2, 1)
    assert runs[1].artifact_name == "student_hints_mode_joint_resnet18_cifar100_seed3"


def test_an_unknown_method_of_several_is_named(root):
    with pytest.raises(ValueError, match="method .*hnts.*hints"):
        method_runs(PLAIN, "lm; hnts mode=joint")


def test_a_value_given_twice_is_refused(root):
    with pytest.raises(ValueError, match="'lam=1 lam=0.3' gives a value twice; keep one"):
        sweep_runs(run(), "lam=1 lam=0.3")


def test_other_methods_and_own_names_come_in_front(root):
    (logits,) = sweep_runs(run(method="lm"), "temperature=2")
    assert logits.name == "student_lm_tau_2.0_resnet18_cifar100"
    (mine,) = sweep_runs(run(name="mine"), "lam=0.5")
    assert mine.name == "mine_hybrid_lambda_0.5"


def test_own_names_of_methods_differ_by_the_source_of_their_values(root):
    pair = {"teacher": "resnet56", "model": "resnet20", "name": "mine"}
    runs = method_runs(PLAIN | pair, "lm; lm published; lm placebo=mean; lm resnet56>resnet20")
    names = ["mine_lm", "mine_lm_published", "mine_lm_placebo_mean", "mine_lm_resnet56-resnet20"]
    assert [each.name for each in runs] == names


@pytest.mark.parametrize("empty", ["", " ; "])
def test_no_setting_leaves_the_run_alone(root, empty):
    assert sweep_runs(run(), empty) == [run()]


@pytest.mark.parametrize("text", ["alpha", "alpha=", "=1", "alpha=1, beta"])
def test_what_is_no_setting_is_refused_with_an_example(root, text):
    with pytest.raises(ValueError, match=r"is not name=value; write for instance \"alpha=1 beta=12"):
        sweep_runs(run(), f"lam=0.3; {text}")


def test_unknown_names_and_values_out_of_range_are_refused_as_a_run_does(root):
    with pytest.raises(ValueError, match="unknown gamma; known: alpha, beta"):
        sweep_runs(run(), "gamma=1")
    with pytest.raises(ValueError, match="lam = 2"):
        sweep_runs(run(), "lam=2")


def test_every_name_is_a_file_name(root):
    (tiny,) = sweep_runs(run(), "alpha=0.00001")
    assert artifacts.weights_path(tiny.artifact_name).name == "student_alpha_1e-05_resnet18_cifar100.pth"
    (cells,) = sweep_runs(run(method="sdd"), "scales=[1,2]")
    assert cells.hyperparameters["scales"] == [1, 2]
    assert [each.name for each in (cells, *method_runs(PLAIN, "sdd scales=[1,2]"))] == [
        "student_sdd_scales_1-2_resnet18_cifar100"
    ] * 2
    with pytest.raises(ValueError, match=r"scales = '\[1,': Invalid JSON"):
        sweep_runs(run(method="sdd"), "scales=[1,")


SI = Run(**QUICK)
LM = Run(**QUICK, method="lm", teacher="teacher_resnet8_digits")
OTHER = {
    "dataset": "cifar10",
    "image_size": 64,
    "val_fraction": 0.2,
    "split_seed": 1,
    "augmentation": "crop=2 flip",
    "batch_size": 64,
    "epochs": 3,
    "seed": 1,
    "precision": "bf16",
}


@pytest.fixture
def no_time_spent(root, monkeypatch):
    """No data set may be loaded and no teacher looked for (there is none)."""
    monkeypatch.setattr(inputs, "load_data", lambda *_: pytest.fail("data was loaded"))
    monkeypatch.setattr(inputs, "find_teacher", lambda *_: pytest.fail("a teacher was looked for"))


@pytest.mark.parametrize("field", OTHER)
def test_runs_that_share_no_batches_are_refused_with_the_field(no_time_spent, field):
    with pytest.raises(ValueError, match=rf"runs: differ in {field} \(.*{OTHER[field]}\)"):
        fit_sweep([SI, LM, Run(**QUICK | {field: OTHER[field]})])
    assert not artifacts.records()


def test_several_teachers_no_run_at_all_and_torchrun_are_refused(no_time_spent, monkeypatch):
    with pytest.raises(ValueError, match=r"runs: have several teachers \(resnet14, teacher_resnet8_digits\)"):
        fit_sweep([SI, LM, LM.model_copy(update={"teacher": "resnet14"})])
    with pytest.raises(ValueError, match="runs: none given"):
        fit_sweep([])
    monkeypatch.setattr(train.dist, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match="under torchrun fit them one by one"):
        fit_sweep([SI, LM])


def test_optimisers_stand_beside_a_run_at_their_own_start_and_differ_in_nothing_else(root):
    base = run(optimizer="lion", lr=3e-4, weight_decay=0.1, seed=2)
    lion, adamw, sgd = optimizer_runs(base, "adamw lion sgd adamw")
    assert lion.id == base.id
    assert [each.artifact_name for each in (lion, adamw, sgd)] == [
        f"student_supcrd_{name}_resnet18_cifar100_seed2" for name in ("lion", "adamw", "sgd")
    ]
    assert (adamw.lr, adamw.weight_decay) == DEFAULT_LR_AND_DECAY["adamw"]
    assert adamw.optimizer_options == {"beta1": 0.9, "beta2": 0.999}
    own = {"optimizer": 0, "optimizer_options": 0, "lr": 0, "weight_decay": 0, "name": 0}
    assert adamw.model_dump() | own == sgd.model_dump() | own == base.model_dump() | own


def test_a_name_stays_that_of_the_first_and_goes_in_front_of_the_other_optimisers(root):
    runs = optimizer_runs(run(optimizer="adamw", name="mine"), "sgd")
    assert [each.name for each in runs] == ["mine", "mine_sgd"]
    with pytest.raises(ValueError, match="optimizer = adam: unknown"):
        optimizer_runs(run(), "adam")
