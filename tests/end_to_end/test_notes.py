"""What must be said beside test figures: that ImageNet's weights have seen Imagenette, wherever a figure is shown."""

import dataclasses
from types import SimpleNamespace

import pytest
import record_fixtures as fixtures
import torch
from training_fixtures import QUICK

from kdhelpers import Run, artifacts, fit
from kdhelpers.cli import output as console
from kdhelpers.cli.listing import listing
from kdhelpers.data import DATASETS
from kdhelpers.display import plots
from kdhelpers.display import text as wording
from kdhelpers.display.progress import Progress, TerminalProgress
from kdhelpers.report import gallery, tables
from kdhelpers.report import results as summary
from kdhelpers.training import caveats
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.teacher import load_teacher
from kdhelpers.weights.load import find_teacher


def origins_of(run, teacher=None):
    start = find_teacher(run.start_from, run.dataset) if run.start_from else None
    return caveats.imagenet_starts(Inputs(run, None, torch.device("cpu"), "fp32", teacher, start))


PRETRAINED = {"model": "resnet101", "pretrained": True, "model_options": {"stem": "imagenet"}}
NOTE = "leakage: the teacher resnet101 started from ImageNet weights; its test images were trained on"


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(("dataset", "count"), [("imagenette", 1), ("cifar100", 0), ("digits", 0)])
def test_imagenet_weights_leak_into_imagenette_alone(root, dataset, count, role):
    run = Run(dataset=dataset, role=role, **PRETRAINED)
    origins = origins_of(run)
    assert origins == [f"{role} resnet101"]
    notes = caveats.leakage_notes(run.dataset, origins)
    assert len(notes) == count
    assert all(f"leakage: the {role} resnet101 started from ImageNet weights" in note for note in notes)
    assert all("very probably trained on" in note for note in notes)


def test_a_network_from_scratch_has_no_note(root):
    assert origins_of(Run(dataset="imagenette", **PRETRAINED | {"pretrained": False})) == []


@pytest.fixture
def leaking_digits(monkeypatch):
    known = dataclasses.replace(DATASETS["digits"], imagenet_leak="its test images were trained on")
    monkeypatch.setitem(DATASETS, "digits", known)


@pytest.fixture
def leaky_teacher(root, data):
    """A network from ImageNet's weights, trained on images that those had not seen: no note beside its own accuracy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caveats, "_own_origin", lambda run: ["teacher resnet101"])
        trained = fit(Run(role="teacher", name="leaky", **QUICK), data, progress=Progress())
    assert (trained.record["imagenet_starts"], trained.record["notes"]) == (["teacher resnet101"], [])
    return trained


def test_students_and_fine_tuned_networks_inherit_the_note_in_record_and_description(
    leaky_teacher, leaking_digits, data
):
    taught = fit(Run(method="lm", teacher="leaky", **QUICK), data, progress=Progress())
    tuned = fit(Run(start_from="leaky", **QUICK), data, progress=Progress())
    alone = fit(Run(**QUICK), data, progress=Progress())
    grandchild = fit(Run(method="lm", teacher=taught.name, name="second", **QUICK), data, progress=Progress())
    for trained in (taught, tuned, grandchild):
        assert trained.record["notes"] == [NOTE]
        assert artifacts.load_json(trained.weights_path.with_suffix(".json"))["notes"] == [NOTE]
    assert alone.record["notes"] == []


def test_what_goes_on_from_leaky_weights_to_other_images_carries_the_origin_without_the_note(leaky_teacher, data):
    tuned = fit(Run(start_from="leaky", **QUICK), data, progress=Progress())
    beside = artifacts.load_json(tuned.weights_path.with_suffix(".json"))
    assert (beside["imagenet_starts"], beside["notes"]) == (["teacher resnet101"], [])


def test_a_copy_of_weights_without_a_description_is_known_by_its_content(leaky_teacher, leaking_digits, root):
    copy = artifacts.write_atomic(root / "copy.pth", leaky_teacher.weights_path.read_bytes())
    for run, teacher in (
        (Run(method="lm", teacher=str(copy), **QUICK), load_teacher(str(copy))),
        (Run(start_from=str(copy), **QUICK), None),
    ):
        assert caveats.leakage_notes(run.dataset, origins_of(run, teacher)) == [NOTE]


def test_a_description_older_than_the_field_is_read_by_its_run(leaky_teacher, leaking_digits):
    beside = leaky_teacher.weights_path.with_suffix(".json")
    older = artifacts.load_json(beside)
    del older["imagenet_starts"]
    run = Run(start_from="leaky", **QUICK)
    assert origins_of(run) == ["teacher resnet101"]
    artifacts.save_json(beside, older)
    assert origins_of(run) == []
    artifacts.save_json(beside, older | {"run": older["run"] | {"pretrained": True}})
    assert origins_of(run) == ["teacher resnet8"]


def test_the_note_stands_on_the_terminal_in_the_tables_and_in_the_notebook(
    leaky_teacher, leaking_digits, data, capsys, monkeypatch
):
    from kdhelpers.display import notebook

    beside = leaky_teacher.weights_path.with_suffix(".json")
    artifacts.save_json(beside, artifacts.load_json(beside) | {"notes": [NOTE]})

    run = Run(method="lm", teacher="leaky", **QUICK)
    assert NOTE in tables.networks(run, data).to_html()  # before any training
    fit(run, data, progress=TerminalProgress())
    assert NOTE in capsys.readouterr().err
    monkeypatch.setattr(notebook, "_kernel_shell", lambda: True)
    live, shown = notebook.LiveProgress(), []
    handle = SimpleNamespace(update=lambda content, **_: shown.append(content))
    monkeypatch.setattr("IPython.display.display", lambda content, **_: shown.append(content) or handle)
    fit(run, data, progress=live)
    last = [content for content in shown if "<progress" in content["text/html"]][-1]  # the others are pictures
    assert NOTE in last["text/html"]
    assert NOTE in last["text/plain"]


@pytest.fixture
def stored(root):
    leaky = fixtures.record(97.0, dataset="imagenette", role="teacher", model="resnet101") | {"notes": [NOTE]}
    fixtures.store(leaky, fixtures.record(80.0, dataset="imagenette"))


def test_marked_accuracies_and_the_reason_in_tables(stored):
    found = summary.summarize(summary.results("imagenette"))
    assert [wording.accuracy_text(row) for row in found.to_dict("records")] == [
        "97.00 (single run) †",
        "80.00 (single run)",
    ]
    assert f"† {NOTE}" in wording.caption(found)
    assert "97.00 (single run) †" in set(tables.results_table("imagenette").data["test top-1 (%)"])


def test_marked_bars(stored):
    figure = plots.bars(summary.summarize(summary.results("imagenette")))
    assert {text.get_text() for axes in figure.axes for text in axes.texts} == {"97.0 †", "80.0"}
    assert "† leakage" in figure.get_suptitle()


def test_the_page_of_a_setting_has_its_note(stored):
    gallery.write_gallery()
    pages = list((artifacts.folder("plots") / "pages").glob("*.html"))
    assert [NOTE in page.read_text() for page in sorted(pages)] == [True, False]  # the teacher's, the student's


def test_marked_accuracies_on_the_command_line(stored, monkeypatch):
    from kdhelpers.suite import terminal as suite_summary

    listed = listing("runs").splitlines()
    (teacher,) = [line for line in listed if "teacher_resnet101_imagenette" in line]
    (student,) = [line for line in listed if "student_si_resnet8_imagenette" in line]
    assert "97.00 †" in teacher
    assert "80.00" in student
    assert "†" not in student
    compared = console.comparison("teacher_resnet101_imagenette", "student_si_resnet8_imagenette")
    assert f"teacher_resnet101_imagenette: {NOTE}" in " ".join(compared.split())
    monkeypatch.setattr(suite_summary, "records_of", lambda job: artifacts.records())
    done = SimpleNamespace(error=None, state="done")
    assert suite_summary.headline(None, done) == "CE (no teacher) 80.00 %, teacher 97.00 % †"
