"""`fit_sweep`: students in lockstep end as each would alone, behind one teacher."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from training_fixtures import QUICK, Recorder, same, weights

from kdhelpers import Run, artifacts, fit, fit_sweep, load_model
from kdhelpers.methods import METHODS
from kdhelpers.training import loop
from kdhelpers.training.epoch_log import total
from kdhelpers.training.teacher import Teacher

MEASURED = {
    "seconds",
    "images_per_second",
    "peak_memory_mib",
    "train_seconds",
    "seconds_per_epoch",
    "lockstep",
    "resumed",
}
TAUGHT = QUICK | {"teacher": "teacher_resnet8_digits"}
STUDENTS = [
    Run(**QUICK),
    Run(**TAUGHT, method="lm"),
    Run(**TAUGHT, method="supcrd", hyperparameters={"lam": 0.3}),
    Run(**QUICK, method="supcon", selection="last"),
    Run(**TAUGHT | {"model": "resnet14", "lr": 0.002}, method="crd", optimizer="adamw", schedule="constant"),
    Run(**TAUGHT, method="hints", hyperparameters={"hint_epochs": 1}, selection="last"),
]
SI, LM = STUDENTS[:2]
BREAKS = Run(**QUICK | {"lr": 100, "weight_decay": 100}, name="breaks")
STEPS = 4  # an epoch of 120 images


class Events(Recorder):
    """Keeps all that it is told besides the steps."""

    def __init__(self, stop_after=None):
        super().__init__(stop_after)
        self.told = []

    def begin(self, name, epochs, steps, done):
        super().begin(name, epochs, steps, done)
        self.told.append(("begin", name, epochs, steps, done))

    def epoch(self, history):
        self.told.append(("epoch", history[-1]))
        super().epoch(history)

    def end(self, record):
        self.told.append(("end", record))


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data):
    """Each student trained by itself: its weights, and all of its record that is no matter of time or place."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KD_ROOT", str(tmp_path_factory.mktemp("alone")))
        teacher = fit(Run(**QUICK, role="teacher"), data)
        outcomes = {run.id: outcome(fit(run, data)) for run in STUDENTS}
        files = {path.name: path.read_bytes() for path in teacher.weights_path.parent.glob(f"{teacher.name}.*")}
    return outcomes, files


@pytest.fixture
def expected(root, alone):
    """What `alone` found, with the teacher in this test's own root."""
    outcomes, files = alone
    for name, content in files.items():
        artifacts.write_atomic(artifacts.folder("weights") / name, content)
    return outcomes


def outcome(trained):
    return weights(trained), comparable({key: trained.record[key] for key in trained.record if key != "environment"})


def comparable(value):
    if isinstance(value, list):
        return [comparable(each) for each in value]
    if isinstance(value, dict):
        return {key: comparable(each) for key, each in value.items() if key not in MEASURED}
    return value


def assert_as_alone(sweep, expected):
    for trained in sweep:
        state, record = expected[trained.run.id]
        found, found_record = outcome(trained)
        assert same(state, found), trained.name
        assert same(state, trained.model.state_dict()), trained.name
        assert found_record == record


def test_each_student_ends_with_the_bits_and_the_record_that_it_has_alone(expected, data):
    torch.manual_seed(99)  # whatever was drawn before
    sweep = fit_sweep(STUDENTS, data, progress=Recorder())
    assert [trained.run for trained in sweep] == STUDENTS
    assert_as_alone(sweep, expected)
    assert {row["lockstep"] for trained in sweep for row in [*trained.history, trained.metrics]} == {len(STUDENTS)}
    assert not list(artifacts.folder("checkpoints").glob("*.p*"))


def test_a_sweep_of_one_is_a_fit(expected, data):
    sweep = fit_sweep([LM], data, progress=Recorder())
    assert_as_alone(sweep, expected)
    assert "lockstep" not in {*sweep[0].metrics, *sweep[0].history[0]}


def test_the_teacher_is_asked_once_per_view_batch_and_depth(expected, data, monkeypatch):
    asked, original = Counter(), Teacher.__call__

    def counted(teacher, view, stop_at=None):
        asked[stop_at] += len(view) > 2  # two images serve to learn the shapes
        return original(teacher, view, stop_at=stop_at)

    monkeypatch.setattr(Teacher, "__call__", counted)
    fit_sweep(STUDENTS, data, progress=Recorder())
    # SupCRD looks at two views in both epochs, logit matching, CRD and hints at the first of them; hints stop at a map
    # in their first stage, which is another question.
    stopped = {layer: times for layer, times in asked.items() if layer}
    assert asked[None] == 2 * 2 * STEPS
    assert list(stopped.values()) == [STEPS]


def test_a_method_is_shown_no_more_views_than_it_asks_for(root, data, monkeypatch):
    shown = set()

    class Watching(METHODS["si"]):
        def forward(self, student, teacher, batch, epoch):
            shown.add((len(batch.views), *(len(values) for values in batch.draws.values())))
            return super().forward(student, teacher, batch, epoch)

    monkeypatch.setitem(METHODS, "si", Watching)
    fit_sweep([STUDENTS[3], SI], data, progress=Recorder())  # SupCon asks for two
    assert shown == {(1, 1, 1)}  # of the views, of their crops, of their flips


def test_an_interrupted_sweep_goes_on_from_its_checkpoints_to_the_same_bits(expected, data):
    with pytest.raises(KeyboardInterrupt):
        fit_sweep(STUDENTS, data, progress=Recorder(stop_after=1))
    assert {artifacts.load_record(run.artifact_name)["status"] for run in STUDENTS} == {"failed"}
    progress = Recorder()
    sweep = fit_sweep(STUDENTS, data, progress=progress)
    assert (progress.done, progress.steps) == (1, STEPS)
    assert_as_alone(sweep, expected)


def test_a_student_that_stood_ahead_waits_for_the_others(expected, data):
    with pytest.raises(KeyboardInterrupt):
        fit(LM, data, progress=Recorder(stop_after=1))
    progress = Recorder()
    sweep = fit_sweep(STUDENTS[:3], data, progress=progress)
    assert (progress.done, progress.steps) == (0, 2 * STEPS)
    assert [row["epoch"] for row in sweep[1].history] == [1, 2]
    assert_as_alone(sweep, expected)


def test_a_student_far_ahead_is_trained_to_its_end_when_the_one_behind_breaks(root, data):
    run, breaks = (each.model_copy(update={"epochs": 3}) for each in (SI, BREAKS))
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=2))
    with pytest.raises(FloatingPointError):
        fit_sweep([run, breaks], data, progress=Recorder())
    ended = fit(run, data, progress=Recorder())
    assert [row["epoch"] for row in ended.history] == [1, 2, 3]
    whole = fit(run, data, force_retrain=True, progress=Recorder())
    assert same(whole.model.state_dict(), ended.model.state_dict())


def test_students_that_are_finished_are_loaded_not_trained(expected, data):
    before = fit(SI, data, progress=Recorder())
    sweep = fit_sweep([SI, LM], data, progress=Recorder())
    assert [trained.cached for trained in sweep] == [True, False]
    assert sweep[0].record == before.record
    assert_as_alone(sweep, expected)
    assert "lockstep" not in sweep[1].metrics  # it was alone
    progress = Recorder()
    assert all(trained.cached for trained in fit_sweep([SI, LM], data, progress=progress))
    assert progress.steps == 0


def test_force_retrain_starts_again_what_is_interrupted_or_finished(expected, data):
    with pytest.raises(KeyboardInterrupt):
        fit_sweep([SI, LM], data, progress=Recorder(stop_after=1))
    for _ in ("interrupted", "finished"):
        progress = Recorder()
        sweep = fit_sweep([SI, LM], data, force_retrain=True, progress=progress)
        assert not any(trained.cached for trained in sweep)
        assert (progress.done, progress.steps) == (0, 2 * STEPS)
        assert_as_alone(sweep, expected)


def test_runs_that_are_alike_are_trained_once_and_the_second_name_is_a_copy(expected, data, capsys):
    first, second = (SI.model_copy(update={"name": name}) for name in ("one", "two"))
    sweep = fit_sweep([first, second], data, progress=Recorder())
    assert [trained.name for trained in sweep] == ["one", "one"]
    assert "this run is stored as one; two is a copy of it" in capsys.readouterr().err
    assert [record["name"] for record in artifacts.records()] == ["one"]
    assert same(expected[SI.id][0], artifacts.load_tensors(artifacts.weights_path("two")))
    assert same(expected[SI.id][0], load_model("two").state_dict())
    assert "lockstep" not in {*sweep[0].metrics, *sweep[0].history[0]}


@pytest.mark.parametrize("place", [0, 2])
def test_a_loss_that_is_not_finite_holds_up_no_other_student(expected, data, place):
    runs = [SI, LM]
    runs.insert(place, BREAKS)
    events = Events()
    with pytest.raises(FloatingPointError, match=r"lower lr = 100"):
        fit_sweep(runs, data, progress=events)
    record = artifacts.load_record("breaks")
    assert record["status"] == "failed"
    assert "FloatingPointError: epoch 1" in record["error"]
    assert not artifacts.weights_path("breaks").exists()
    assert events.told[-1][1]["status"] == "failed"
    assert events.told[-1][1]["error"].startswith("breaks: FloatingPointError")
    sweep = fit_sweep([SI, LM], data, progress=Recorder())
    assert all(trained.cached for trained in sweep)
    assert_as_alone(sweep, expected)


def test_a_sweep_in_which_every_loss_breaks_ends_at_once(root, data):
    other = BREAKS.model_copy(update={"seed": 0, "name": "breaks_too", "lr": 99.0})
    progress = Recorder()
    with pytest.raises(FloatingPointError):
        fit_sweep([BREAKS, other], data, progress=progress)
    assert progress.steps == STEPS
    assert {record["status"] for record in artifacts.records()} == {"failed"}


def test_the_users_own_random_numbers_go_on_undisturbed(expected, data):
    def draws_on_after(work):
        state = torch.manual_seed(5).get_state()
        work()
        return torch.equal(torch.get_rng_state(), state)

    assert draws_on_after(lambda: fit(SI, data, progress=Recorder()))
    assert draws_on_after(lambda: fit(SI, data, progress=Recorder())), "loaded"
    assert draws_on_after(lambda: fit_sweep([SI, LM], data, progress=Recorder())), "with a teacher"


def test_the_seconds_of_a_student_are_its_share(expected, data, monkeypatch):
    original = loop.train_epoch
    monkeypatch.setattr(loop, "train_epoch", lambda *of: 6.0 if original(*of) else None)
    for trained in fit_sweep([SI, LM], data, progress=Recorder()):
        assert {row["images_per_second"] for row in trained.history} == {120 / 3}
        assert all(row["seconds"] >= 3 for row in trained.history)  # its look at the held-out images besides


def test_the_clock_is_read_when_the_device_has_done_its_work(monkeypatch):
    seconds, apple = [0.0], torch.device("mps")
    idle = SimpleNamespace(epoch=1, begin_epoch=lambda: None, batches=SimpleNamespace(epoch=lambda _: []), device=apple)

    def wait(device):
        assert device is apple
        seconds[0] += 5

    monkeypatch.setattr(loop, "synchronize", wait)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: seconds[0])
    assert loop.train_epoch([idle], Recorder()) == 5


def test_progress_is_told_of_one_training_with_loss_and_accuracy_per_student(expected, data):
    events = Events()
    sweep = fit_sweep(STUDENTS[:3], data, progress=events)
    begin, *rows, end = events.told
    assert begin == ("begin", "3 students", 2, STEPS, 0)
    names = ("si", "lm", "supcrd")
    assert rows == [
        (
            "epoch",
            {"epoch": number + 1}
            | {name: row["loss"] for name, row in zip(names, each, strict=True)}
            | {f"{name} val_top1_pct": row["val_top1_pct"] for name, row in zip(names, each, strict=True)},
        )
        for number, each in enumerate(zip(*(t.history for t in sweep), strict=True))
    ]
    assert end[0] == "end"
    assert end[1]["history"] == [row for _, row in rows]
    assert (end[1]["name"], end[1]["status"], end[1]["error"]) == ("3 students", "finished", None)
    shares = sum(trained.metrics["train_seconds"] for trained in sweep)
    assert end[1]["metrics"]["train_seconds"] == pytest.approx(shares)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["student_si_resnet8", "student_lm_resnet8"], ["si", "lm"]),
        (["student_tau_0.05_resnet18", "student_tau_0.07_resnet18"], ["0.05", "0.07"]),
        (["student_lm", "student_lm-0a1b2c3d"], ["lm", "lm-0a1b2c3d"]),
        (["a_b", "a_b_c"], ["b", "b_c"]),
        (["b_a", "a"], ["b_a", "a"]),
        (["x_1_x", "x_x"], ["1_x", "x"]),
    ],
)
def test_names_lose_the_words_that_they_share_and_stay_distinct(names, short):
    assert loop._distinct(names) == short


def test_the_total_is_the_sum_of_the_terms():
    weight = torch.tensor(2.0, requires_grad=True)
    assert total("mine", {"ce": weight, "kd": 3 * weight}).item() == 8


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (torch.tensor(1.0), "returned Tensor; return loss terms by name"),
        ({}, "returned dict; return loss terms by name"),
        ({"ce": 1.0}, "the loss term 'ce' is float; return a scalar tensor"),
        ({"ce": torch.zeros(3)}, r"the loss term 'ce' is a tensor \(3,\); return a scalar tensor"),
        ({"lr": torch.tensor(1.0)}, "a loss term has the name 'lr' of another column"),
        ({"kd": torch.tensor(1.0)}, "no loss term depends on the student"),
    ],
)
def test_loss_terms_of_another_kind_are_refused(terms, message):
    with pytest.raises(TypeError, match=rf"^METHODS\['mine'\].forward: {message}"):
        total("mine", terms)
