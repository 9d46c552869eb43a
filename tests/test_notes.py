"""What must be said beside test figures: that ImageNet's weights have seen Imagenette, wherever a figure is shown."""

from types import SimpleNamespace

import pytest
import record_fixtures as fixtures
from training_fixtures import QUICK

from kdhelpers import Run, artifacts, fit, gallery, plots, record, summary, tables
from kdhelpers.progress import Progress, TerminalProgress

PRETRAINED = {"model": "resnet101", "pretrained": True, "model_options": {"stem": "imagenet"}, "role": "teacher"}
NOTE = "leakage: the teacher resnet101 started from ImageNet weights; its test images were trained on"


@pytest.mark.parametrize(("dataset", "count"), [("imagenette", 1), ("cifar100", 0), ("digits", 0)])
def test_imagenet_weights_leak_into_imagenette_alone(root, data, dataset, count):
    notes = record.notes(Run(dataset=dataset, **PRETRAINED), None, data)
    assert len(notes) == count
    assert all("leakage: the teacher resnet101 started from ImageNet weights" in note for note in notes)
    assert all("very probably trained on" in note for note in notes)


def test_a_network_from_scratch_has_no_note(root, data):
    assert record.notes(Run(dataset="imagenette", **PRETRAINED | {"pretrained": False}), None, data) == []


@pytest.fixture
def leaky_teacher(root, data):
    trained = fit(Run(role="teacher", name="leaky", **QUICK), data, progress=Progress())
    beside = trained.weights_path.with_suffix(".json")
    artifacts.save_json(beside, artifacts.load_json(beside) | {"notes": [NOTE]})
    return trained


def test_students_and_fine_tuned_networks_inherit_the_note_in_record_and_description(leaky_teacher, data):
    taught = fit(Run(method="lm", teacher="leaky", **QUICK), data, progress=Progress())
    tuned = fit(Run(start_from="leaky", **QUICK), data, progress=Progress())
    alone = fit(Run(**QUICK), data, progress=Progress())
    grandchild = fit(Run(method="lm", teacher=taught.name, name="second", **QUICK), data, progress=Progress())
    for trained in (taught, tuned, grandchild):
        assert trained.record["notes"] == [NOTE]
        assert artifacts.load_json(trained.weights_path.with_suffix(".json"))["notes"] == [NOTE]
    assert alone.record["notes"] == []


def test_the_note_stands_on_the_terminal_in_the_tables_and_in_the_notebook(leaky_teacher, data, capsys, monkeypatch):
    from kdhelpers import notebook

    run = Run(method="lm", teacher="leaky", **QUICK)
    assert NOTE in tables.networks(run, data).to_html()  # before any training
    fit(run, data, progress=TerminalProgress())
    assert NOTE in capsys.readouterr().err
    monkeypatch.setattr(notebook, "_kernel_shell", lambda: True)
    live, shown = notebook.LiveProgress(), []
    handle = SimpleNamespace(update=lambda content, **_: shown.append(content))
    monkeypatch.setattr("IPython.display.display", lambda content, **_: shown.append(content) or handle)
    fit(run, data, progress=live)
    assert NOTE in shown[-1]["text/html"]
    assert NOTE in shown[-1]["text/plain"]


@pytest.fixture
def stored(root):
    leaky = fixtures.record(97.0, dataset="imagenette", role="teacher", model="resnet101") | {"notes": [NOTE]}
    fixtures.store(leaky, fixtures.record(80.0, dataset="imagenette"))


def test_marked_accuracies_and_the_reason_in_tables(stored):
    found = summary.summarize(summary.results("imagenette"))
    assert [summary.accuracy_text(row) for row in found.to_dict("records")] == [
        "97.00 (single run) †",
        "80.00 (single run)",
    ]
    assert f"† {NOTE}" in summary.caption(found)
    assert "97.00 (single run) †" in tables.results_table("imagenette").to_html()


def test_marked_bars_and_cards(stored):
    figure = plots.bars(summary.summarize(summary.results("imagenette")))
    assert {text.get_text() for text in figure.axes[0].texts} == {"97.0 †", "80.0"}
    assert figure.axes[0].get_title(loc="left") == "† leakage"
    page = gallery.write_gallery().read_text()
    assert page.count(NOTE) == 2  # the table's caption and the teacher's card


def test_curves_of_imagenette_have_the_names_that_their_users_know(root):
    def name(named=False, taken="", teacher="", **fields):
        run = Run(**{"dataset": "imagenette", "model": "resnet18"} | fields)
        return plots.curves_name(SimpleNamespace(run=run, name=taken or run.artifact_name), teacher, named)

    teacher = {"model": "resnet101", "role": "teacher"}
    assert name(**teacher) == "resnet101-teacher_output"
    assert name(teacher="resnet101", seed=1) == "resnet101-18-teacher-student_output_seed1"
    assert name(teacher="vgg16") == "vgg16-resnet18-teacher-student_output"
    assert name(**teacher, dataset="cifar100") == "teacher_resnet101_cifar100_curves"
    assert name(**teacher, named=True, name="mine") == "mine_curves"
    assert name(**teacher, taken="teacher_resnet101_imagenette-0123abcd") == (
        "teacher_resnet101_imagenette-0123abcd_curves"
    )
