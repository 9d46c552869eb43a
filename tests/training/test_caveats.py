"""Notes on what a run has seen of what it is judged by: test images, held-out images, labels that it sets aside."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from training_fixtures import QUICK

from kdhelpers import Run, artifacts, fit
from kdhelpers.data import Split, Unlabelled
from kdhelpers.display import plots
from kdhelpers.report import tables
from kdhelpers.report.results import results, summarize
from kdhelpers.training.caveats import caveats, leakage_notes
from kdhelpers.training.inputs import Inputs
from kdhelpers.weights.load import find_weights

TAUGHT = {**QUICK, "method": "lm_unlabelled", "teacher": "resnet8", "augmentation": "crop jitter rotation"}
NOTE = "transductive: lm_unlabelled trained on 40 of the 40 test images, without labels"
KNOWN = "known labels: the teacher was trained with labels of images that are here taken to have none"


@pytest.fixture
def mixed(data):
    """40 labelled images, 50 without labels."""
    train = Split(data.train.images[:40], data.train.labels[:40])
    return replace(data, train=train, unlabelled=unlabelled(data.train.images[40:90], "train:50"))


def unlabelled(images, source):
    return Unlabelled(images.contiguous(), [str(k) for k in range(len(images))], source)


def test_test_images_are_said_to_be_trained_on(root, data):
    fit(Run(**QUICK, role="teacher"), data)
    seen = replace(data, unlabelled=unlabelled(data.test.images, "test"))
    run = Run(**TAUGHT, unlabelled="test")
    assert "40 images without labels (transductive: 40 of them test images)" in tables.networks(run, seen).to_html()
    assert "40 images without labels<" in tables.networks(Run(**QUICK, unlabelled="test"), seen).to_html()
    trained = fit(run, seen)
    assert trained.record["notes"] == [NOTE]
    assert artifacts.load_json(trained.weights_path.with_suffix(".json"))["notes"] == [NOTE]
    assert fit(Run(**TAUGHT, unlabelled="test", hyperparameters={"unlabelled_weight": 0}), seen).record["notes"] == []
    assert plots.bars(summarize(results("digits"))).get_suptitle().endswith("† transductive")
    taught_by_it = Run(**QUICK, method="lm", teacher=trained.name)
    assert fit(taught_by_it, data).record["notes"] == [of("the teacher", NOTE)]
    assert fit(Run(**QUICK, start_from=trained.name), data).record["notes"] == [of("the initial network", NOTE)]


def test_held_out_images_among_the_unlabelled_ones_are_noted_where_they_choose_the_epoch(data):
    seen = replace(data, unlabelled=unlabelled(data.val.images[:15], "test"))
    run = Run(**TAUGHT, unlabelled="test")
    note = "selection: the epoch is chosen on 40 images, 15 of them trained on without labels"
    assert notes_on(run, seen) == [note]
    assert notes_on(run.model_copy(update={"selection": "last"}), seen) == []


def test_weights_that_know_labels_which_are_set_aside_are_noted(root, data, mixed):
    knowing = fit(Run(**QUICK, role="teacher"), data)
    run = Run(**TAUGHT | {"teacher": knowing.name}, unlabelled="train:50")
    assert fit(run, mixed).record["notes"] == [KNOWN]
    started = fit(Run(**QUICK, start_from=knowing.name, unlabelled="train:50", name="started"), mixed)
    assert started.record["notes"] == [KNOWN.replace("the teacher", "the initial network")]
    (started.weights_path.with_suffix(".json")).unlink()
    bare = Run(**QUICK, start_from=str(started.weights_path), unlabelled="train:50")
    [note] = notes_on(bare, mixed, start=find_weights(bare.start_from))
    assert note.startswith("known labels: it is unknown which labels the initial network was trained with")


@pytest.mark.parametrize(
    ("taught", "notes"),
    [
        ({}, []),
        ({"unlabelled": "train:-40"}, []),  # the same images in other words
        ({"unlabelled": "train:60"}, []),  # it knows a part of our labels
        ({"unlabelled": "train:40"}, [KNOWN]),
        ({"unlabelled": None}, [KNOWN]),
        ({"unlabelled": "test"}, [KNOWN]),
        ({"split_seed": 1}, [KNOWN]),
        ({"val_fraction": 0.2}, [KNOWN]),
        ({"dataset": "cifar10", "unlabelled": None}, []),
        ({"dataset": None}, [KNOWN.replace("the teacher was", "it is unknown which labels the teacher was")]),
    ],
)
def test_a_teacher_may_know_the_labels_that_its_student_has(mixed, taught, notes):
    run = Run(**TAUGHT, unlabelled="train:50")
    described = {"run": Run(**QUICK, role="teacher", unlabelled="train:50").model_dump() | taught}
    found = notes_on(run, mixed, teacher=teacher(described))
    assert [note[:40] for note in found] == [note[:40] for note in notes]
    assert notes_on(run.model_copy(update={"unlabelled": "test"}), mixed, teacher=teacher(described)) == []


def test_notes_are_inherited_on_the_same_data_set_alone(mixed):
    run = Run(**TAUGHT, unlabelled="train:50")
    own = Run(**QUICK, role="teacher", unlabelled="train:50").model_dump()
    told = [NOTE, KNOWN, "leakage: is told elsewhere", "selection: was the teacher's"]
    heir = [of("the teacher", NOTE), of("the teacher", KNOWN)]
    assert notes_on(run, mixed, teacher=teacher({"run": own, "notes": told * 2})) == heir
    labelled = Run(**QUICK, method="lm", teacher="resnet8")  # it takes no labels away
    assert notes_on(labelled, mixed, teacher=teacher({"run": own, "notes": told})) == heir[:1]
    assert notes_on(run, mixed, teacher=teacher({"run": own | {"dataset": "cifar10"}, "notes": told})) == []


def notes_on(run, data, **weights):
    return caveats(Inputs(run, data, torch.device("cpu"), "fp32", **weights), origins=[])


def of(who, note):
    return note.replace(": ", f": {who}: ", 1)


def teacher(described):
    return SimpleNamespace(description=described, sha256="")


def test_copies_of_training_files_are_noted(root, data):
    assert notes_on(Run(**QUICK), replace(data, leaked_files=3)) == [
        "leakage: 3 files of the other splits are copies of training files"
    ]


def test_a_teacher_of_images_of_other_statistics_is_noted(data):
    run = Run(**QUICK, method="lm", teacher="resnet8")
    same = {"mean": [value + 0.01 for value in data.mean], "std": list(data.std)}
    assert notes_on(run, data, teacher=teacher(same)) == []
    [note] = notes_on(run, data, teacher=teacher({"mean": [0.9, 0.9, 0.9], "std": [0.1, 0.1, 0.1]}))
    assert note.startswith(
        "teacher: trained on images of mean 0.90 0.90 0.90, std 0.10 0.10 0.10, used on images of mean"
    )


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        ("teacher resnet18", "ImageNet weights; Imagenette re-splits images of ImageNet, so its test"),
        ("teacher timm:resnet18 (a1_in1k)", "ImageNet weights"),
        ("teacher timm:x (augreg_in21k)", "ImageNet weights"),
        ("teacher timm:x (openai)", "weights of other images, which may include ImageNet's"),
    ],
)
def test_weights_of_other_images_are_not_said_to_be_of_imagenet(origin, text):
    [note] = leakage_notes("imagenette", [origin])
    assert note.startswith(f"leakage: the {origin} started from {text}")
