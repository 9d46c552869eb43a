"""A study is fair, continues, and keeps its trials apart from results."""

import sys

import pytest
import torch
from click.testing import CliRunner
from tuning_fixtures import METHODS, SETTINGS

from kdhelpers import artifacts, results
from kdhelpers.cli.commands import main
from kdhelpers.data import Data
from kdhelpers.suite.profiles import load_profile
from kdhelpers.training import untested
from kdhelpers.training.student import Training
from kdhelpers.tuning import tune
from kdhelpers.tuning.profile import write_profile
from kdhelpers.tuning.report import report
from kdhelpers.tuning.study import make_study
from kdhelpers.tuning.table import chosen_runs, summary_frame, summary_rows, trial_frame
from kdhelpers.tuning.trials import train_open_trials


def values_of(study):
    return {(key, number): study.ended_record(key, number)["trial"]["values"] for key, number in study.order}


def accuracies(study):
    return [study.ended_record(*place)["metrics"]["val_top1_pct"] for place in study.order]


@pytest.fixture
def trained(monkeypatch):
    """The names of the trials that train, in order."""
    names, own = [], untested.fit_untested

    def fit_untested(run, data, name, *rest):
        names.append(name)
        return own(run, data, name, *rest)

    monkeypatch.setattr("kdhelpers.tuning.trials.fit_untested", fit_untested)
    return names


def test_methods_get_equal_trials_of_one_budget_and_the_first_is_the_given_setting(study, trained):
    made = study(3)
    assert trained == [f"trials/resnet8_few/{key}-{number:03d}" for number in range(3) for key in ("si", "lm")]
    frame = trial_frame(made)
    assert frame["key"].value_counts().to_dict() == {"si": 3, "lm": 3}
    runs = [made.ended_record(*place)["run"] for place in made.order]
    assert {(run["epochs"], run["seed"], run["split_seed"]) for run in runs} == {(1, 0, 0)}
    assert runs[1]["hyperparameters"] == {"temperature": 4.0, "ce_weight": 0.5, "kd_weight": 0.5}
    assert [run["lr"] for run in runs[2:4]] == [runs[2]["lr"]] * 2  # the methods draw alike
    assert runs[2]["lr"] != 0.05


def test_a_trial_never_meets_the_test_images(study, monkeypatch):
    """Their Data has none, and its record has no figure of them."""
    met, own = [], Training.__init__
    monkeypatch.setattr("kdhelpers.training.job.infer", lambda *_: pytest.fail("tested"))
    monkeypatch.setattr(
        Training, "__init__", lambda self, inputs, *rest: met.append(inputs.data) or own(self, inputs, *rest)
    )
    made = study(1)
    assert len(met) == 2
    assert all(isinstance(data, Data) and len(data.test) == 0 and len(data.val) == 16 for data in met)
    for place in made.order:
        record = made.ended_record(*place)
        assert not [name for name in record["metrics"] if name.startswith("test")]
        assert record["data"]["test"] == 0
        assert record["weights"] is None


def test_the_accuracy_of_a_trial_is_that_of_the_selected_epoch(root):
    made, _ = tune(SETTINGS | {"epochs": 3}, "si", 1)
    record = made.ended_record("si", 0)
    history = [row["val_top1_pct"] for row in record["history"]]
    assert record["metrics"]["val_top1_pct"] == max(history)
    assert record["selection"] == {"rule": "best_val", "epoch": history.index(max(history)) + 1}


def test_trials_are_not_among_the_results(study):
    before = len(artifacts.records()), len(results())
    study(1)
    assert (len(artifacts.records()), len(results())) == before
    assert not list((artifacts.root() / "pth_models").glob("student*"))


def test_a_killed_study_trains_no_trial_twice_and_ends_as_one_that_was_not(study, trained, monkeypatch):
    whole = study(3, name="whole")
    names, steps = list(trained), []

    def kill(self, *rest):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return own(self, *rest)

    own = Training.end_epoch
    trained.clear()
    with monkeypatch.context() as context:
        context.setattr(Training, "end_epoch", kill)
        with pytest.raises(KeyboardInterrupt):
            study(3, name="cut")
    assert len(trained) == 4
    again = study(3, name="cut")
    assert trained == [name.replace("whole", "cut") for name in names[:4] + names[3:]]
    assert values_of(again) == values_of(whole)
    assert accuracies(again) == accuracies(whole)
    trained.clear()
    study(3, name="cut")
    assert not trained


def test_more_trials_and_methods_continue_a_study(study, trained):
    study(1)
    trained.clear()
    made = study(2, methods="si; lm; dkd warmup_epochs=0")
    assert [name.split("/")[-1] for name in trained] == ["dkd-warmup_epochs-0-000"] + [
        f"{key}-001" for key in made.runs
    ]


def test_other_settings_need_another_name(study, root):
    study(1)
    other = r"study = resnet8_few: si was tuned with other settings \(lr: "
    with pytest.raises(ValueError, match=other + r"the default then, 0.2 now\)"):
        tune(SETTINGS | {"lr": 0.2}, METHODS, 1)
    (root / "space.yaml").write_text("every: {lr: [0.1, 0.2]}")
    with pytest.raises(ValueError, match=other + r"0.01 to 0.25 \(log\) then, 0.1 or 0.2 now\)"):
        tune(SETTINGS, METHODS, 1, space=str(root / "space.yaml"))


def test_settings_may_change_before_the_first_trial(root):
    make_study(SETTINGS, METHODS, 1).check_stored()
    first, other = (make_study(SETTINGS | {"lr": lr}, METHODS, 1) for lr in (0.2, 0.3))
    for study in (first, other):
        study.check_stored()
    with first.claim():  # another command chose before the first one
        pass
    with pytest.raises(ValueError, match=r"lr: 0.2 then, 0.3 now"), other.claim():
        pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"trial": None},
        {"metrics": None},
        {"metrics": {"val_top1_pct": None}},
        {"number": 1},
        {"values": {}},
        {"values": {"lr": 0.05, "another": 1}},
        {"lr": 1e9},
        {"lr": "fast"},
        {"lr": True},
    ],
)
def test_a_record_of_another_form_is_not_taken_for_a_trial(wrong, study, trained):
    study(1, "si")
    path = artifacts.record_path("trials/resnet8_few/si-000")
    record = artifacts.load_json(path)
    for field, value in wrong.items():
        holder = record["trial"]["values"] if field in record["trial"]["values"] else record["trial"]
        holder = holder if field in holder else record
        holder[field] = value
    artifacts.save_json(path, record)
    with pytest.raises(ValueError, match=r"si-000\.json: (is not trial 0 of si; delete it to train it|trial)"):
        study(1, "si")


def test_a_trial_belongs_to_one_process(root):
    """Locks are of open files, so two claims of one process meet as those of two processes do."""
    made = make_study(SETTINGS, METHODS, 1)
    with made.claim() as first, made.claim() as second, made.claim() as third:
        assert (first.key, second.key, third) == ("si", "lm", None)
    with made.claim() as again:
        assert again.name == first.name  # its process left it unfinished


def test_a_table_without_the_trials_of_another_process_says_so(study):
    made = study(1)
    assert "not ended" not in report(made, 16)
    more = make_study(SETTINGS, METHODS, 2)
    with more.claim() as first, more.claim() as second:
        assert (first.number, second.number) == (1, 1)
        assert train_open_trials(more, None) is None  # all are taken
        assert "\n2 trials have not ended: another process trains; " in report(more, 16)


def test_workers_share_a_study_and_end_with_the_trials_of_one_process(study):
    """Two processes of their own. The draws of so few trials do not depend on each other."""
    alone = study(2, name="alone")
    shared = study(2, name="shared", workers=2)
    assert values_of(shared) == values_of(alone)
    assert shared.open_trials() == 0
    commands = {shared.ended_record(*place)["command"] for place in shared.order}
    assert len(commands) == 1


def test_ray_gets_as_many_workers_as_run_at_once_and_the_whole_path_of_the_space(root, monkeypatch):
    """Ray queues any number of tasks; each of those too many would start only to find nothing left to train."""
    orders = []

    class Ray:
        def __init__(self, *_):
            self.at_once = 2

        def free(self):
            return True

        def start(self, _worker, order, *_rest):
            orders.append(order)

        def poll(self, _handle):
            return 0

        def stop(self, _handles):
            pass

    (root / "space.yaml").write_text("every: {lr: {around: 2}}")
    monkeypatch.chdir(root)
    monkeypatch.setattr("kdhelpers.suite.ray_workers.RayWorkers", Ray)
    with pytest.raises(ChildProcessError, match="^10 trials have not ended"):
        tune(SETTINGS, METHODS, 5, space="space.yaml", ray="auto")
    assert [order["study"]["space"] for order in orders] == [str(root / "space.yaml")] * 2


def test_a_diverged_trial_counts_and_has_its_reason(root, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("every: {weight_decay: [5e-4, 100.0]}")
    made, held_out = tune(SETTINGS | {"epochs": 8, "lr": 1, "precision": "fp32"}, "si", 4, space=str(space))
    frame = trial_frame(made)
    assert len(frame) == 4
    failed = frame[frame["status"] == "failed"]
    assert 1 <= len(failed) <= 3
    assert failed["error"].str.startswith("FloatingPointError: epoch ").all()
    assert summary_frame(made)["failed"].tolist() == [len(failed)]
    assert "CE (no teacher)" in report(made, held_out)


def test_a_failure_of_the_machine_ends_the_study_and_leaves_its_trial_open(study, monkeypatch):
    """It need not be the fault of the setting. The error has the trial and its values."""
    with monkeypatch.context() as context:
        context.setattr(Training, "end_epoch", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no\nmore")))
        with pytest.raises(
            ValueError, match=r"trials/resnet8_few/si-000 \(lr 0.05, .*\): OutOfMemoryError: no; remove"
        ):
            study(1)
    made = make_study(SETTINGS, METHODS, 1)
    assert made.open_trials() == 2
    assert study(1).open_trials() == 0


def test_values_that_no_run_takes_together_fail_their_trial_alone(study, tmp_path, trained):
    space = tmp_path / "space.yaml"
    space.write_text("methods: {lm: {ce_weight: [0, 1], kd_weight: [0, 1]}}")
    made = study(12, methods="lm", space=str(space))
    frame = trial_frame(made)
    failed = frame[frame["status"] == "failed"]
    assert len(failed)
    assert failed["error"].str.contains("invalid setting: .*all are 0").all()
    assert len(trained) == 12 - len(failed)


def test_the_profile_trains_what_was_chosen(study):
    made = study(2, methods="si; lm; dkd warmup_epochs=0")
    jobs = load_profile(str(write_profile(made)), seeds=(0, 1))
    name = "02_independent_student_tuned_resnet8_few_si"
    assert [job.name for job in jobs][:2] == [name, f"{name}_seed1"]
    assert len(jobs) == 7
    chosen = chosen_runs(made)["dkd-warmup_epochs-0"]
    parameters = next(job.parameters for job in jobs if job.name.endswith("_dkd-warmup_epochs-0"))
    assert parameters["lr"] == chosen.lr
    assert "warmup_epochs:0.0" in parameters["methods"]


def test_the_table_has_the_tests_of_the_chosen_settings(study):
    from kdhelpers import fit
    from kdhelpers.display.progress import Progress

    made = study(1)
    assert "test top-1" not in summary_rows(summary_frame(made))[0]
    accuracy = {}
    for key, run in chosen_runs(made).items():
        accuracy[key] = [
            fit(run.model_copy(update={"seed": seed}), progress=Progress()).metrics["test_top1_pct"] for seed in (0, 1)
        ]
    summary = summary_frame(made)
    assert summary["test_n"].tolist() == [2, 2]
    assert summary["test_top1_pct"].tolist() == [sum(values) / 2 for values in accuracy.values()]
    gains = [taught - alone for taught, alone in zip(accuracy["lm"], accuracy["si"], strict=True)]
    assert summary["gain_points"].iloc[1] == pytest.approx(sum(gains) / 2)
    assert summary_rows(summary)[0][-3:] == ("test top-1", "gain", "best setting")


def test_a_chosen_setting_without_a_baseline_of_its_rates_has_an_empty_table(root):
    """The notebook of the profile trains it alone: the gain is over the tuned student without a teacher."""
    from kdhelpers import Run, fit, method_table
    from kdhelpers.display.progress import Progress

    alone = fit(Run(**SETTINGS, method="lm", lr=0.07), progress=Progress())
    assert method_table.frame("few", alone.name).empty


def test_the_command_writes_table_picture_and_profile(root):
    words = [f"{name}={value}" for name, value in SETTINGS.items()]
    done = CliRunner().invoke(main, ["tune", "--methods", "si", "--trials", "1", *words])
    assert done.exit_code == 0, done.output
    assert "CE (no teacher)  1       0       2" in done.output
    for path in (
        "plots/tuning_resnet8_few.png",
        "plots/tuning_resnet8_few.csv",
        "plots/tuning_resnet8_few_methods.csv",
    ):
        assert (root / path).is_file()
    assert "suite --profile " in done.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "methods", "fault"),
    [
        (["val_fraction=0", "selection=last"], "si", "val_fraction = 0: leaves no held-out images"),
        (["unlabelled=test"], "si", "unlabelled = test: trains on the test images"),
        (["role=teacher"], "si", "tune trains students"),
        (["method=lm"], "si", "method: is one of several here"),
        (["lr"], "si", "tune = lr: is not NAME=VALUE"),
        ([], "si; si", "methods = si: is given twice"),
        ([], ";", "methods: none given"),
        (["teacher=resnet20"], "lm", "resnet20"),
        (["--name", "a/b"], "si", "name = a/b: is not a file name"),
        (["--name", "a" * 300], "si", "name = aaaaaaaaaaaaaaaaaaaa...: has 300 letters; take 80 at most"),
    ],
)
def test_faults_come_before_any_training(root, words, methods, fault):
    command = ["tune", "--methods", methods, "dataset=few", "model=resnet8", "epochs=1", *words]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert fault in done.stderr
    assert not (root / "json_results" / "trials").exists()


def test_without_optuna_one_line_has_the_remedy(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = CliRunner().invoke(main, ["tune", "--methods", "si", "dataset=few"])
    assert done.stderr == "error: tune needs Optuna, which is not installed: pip install -r requirements-tune.txt\n"
    assert done.exit_code == 1
