"""Submissions: a network's labels of unlabelled images, in their order, checked before they replace an older file."""

import contextlib
import csv
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from training_fixtures import QUICK

from kdhelpers import Run, artifacts, build_model, fit, infer
from kdhelpers.cli.commands import main
from kdhelpers.data import Unlabelled
from kdhelpers.display.progress import Progress
from kdhelpers.evaluation import submission
from kdhelpers.evaluation.submission import (
    LabelPredictions,
    check_submission,
    predict,
    predict_stored,
    write_submission,
)

IDS = ["7", "3", "x,y", "10"]


def label_predictions(ids=IDS, classes=3):
    generator = torch.Generator().manual_seed(0)
    return LabelPredictions(
        list(ids), torch.rand(len(ids), classes, generator=generator).softmax(1), list("abcdef"[:classes])
    )


@pytest.fixture
def trained(root, data):
    return fit(Run(**QUICK, role="teacher"), data, progress=Progress())


@pytest.fixture
def pickled(data, root):
    """The test images, as Kaggle would hand them out, with ids that are not in order."""
    ids = [(7 * k) % 40 for k in range(40)]
    content = {"data": data.test.images.permute(0, 2, 3, 1).numpy(), "ids": np.array(ids)}
    path = root / "test.pkl"
    path.write_bytes(pickle.dumps(content))
    return path, ids


def test_probabilities_are_those_of_the_networks_logits(trained, data, pickled):
    found = predict_stored(trained.name, str(pickled[0]))
    expected = infer(trained.model, data, "test").logits.softmax(1)
    torch.testing.assert_close(found.probabilities, expected, rtol=0, atol=1e-6)
    assert found.ids == [str(number) for number in pickled[1]]
    assert found.labels == expected.argmax(1).tolist()
    assert found.class_names == data.class_names


def test_tta_is_the_mean_over_image_and_mirror_image(trained, data):
    def probabilities(images, **options):
        named = Unlabelled(images, [str(k) for k in range(len(images))], "here")
        return predict(trained.model, named, data.mean, data.std, data.class_names, **options).probabilities

    images = data.test.images[:9]
    mean = (probabilities(images) + probabilities(images.flip(3))) / 2
    torch.testing.assert_close(probabilities(images, tta=True), mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(probabilities(images, batch_size=2), probabilities(images), rtol=0, atol=1e-6)
    assert not torch.allclose(probabilities(images, tta=True), probabilities(images), atol=1e-4)


def test_the_bar_moves_by_images(trained, data, monkeypatch):
    moved = []

    class Bar(contextlib.nullcontext):
        def __enter__(self):
            return SimpleNamespace(update=moved.append)

    monkeypatch.setattr(submission, "progress_bar", lambda total, **_: moved.append(total) or Bar())
    images = Unlabelled(data.test.images, [str(k) for k in range(40)], "here")
    predict(trained.model, images, data.mean, data.std, data.class_names, batch_size=16)
    assert moved == [40, 16, 16, 8]


def test_the_mode_of_the_network_is_left_and_batchnorm_does_not_move(trained, data):
    network = trained.model.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = Unlabelled(data.test.images, [str(k) for k in range(40)], "here")
    predict(network, images, data.mean, data.std, data.class_names)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_probabilities_that_are_not_finite_are_refused(trained, data):
    torch.nn.init.constant_(trained.model.fc.bias, float("nan"))
    with pytest.raises(ValueError, match="probabilities: they are not finite"):
        predict(trained.model, Unlabelled(data.test.images, ["0"] * 40, "here"), data.mean, data.std, data.class_names)


def test_a_file_has_a_row_per_image_in_their_order(tmp_path):
    expected = label_predictions().labels
    path = write_submission(tmp_path / "new" / "submission.csv", label_predictions())
    assert path.read_bytes().startswith(b"ID,Labels\n7,")
    rows = list(csv.reader(path.open(newline="")))
    assert rows == [["ID", "Labels"], *([name, str(label)] for name, label in zip(IDS, expected, strict=True))]


def test_what_is_not_right_does_not_replace_an_older_file(tmp_path):
    path = write_submission(tmp_path / "submission.csv", label_predictions())
    before = path.read_bytes()
    wrong = label_predictions()
    wrong.class_names.pop()
    if max(wrong.labels) < 2:
        wrong.probabilities[0] = torch.tensor([0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="label 2; must be a class in 0..1"):
        write_submission(path, wrong)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "begins with ; must begin with ID,Labels"),
        ("id,label\n1,0\n2,1\n", "begins with id,label"),
        ("ID,Labels\n1,0\n", "1 rows for 2 images"),
        ("ID,Labels\n1,0\n2,1\n3,1\n", "3 rows for 2 images"),
        ("ID,Labels\n2,0\n1,1\n", "row 1 is 2,0; ids must be in order, here 1"),
        ("ID,Labels\n1,0\n2\n", "row 2 is 2; ids"),
        ("ID,Labels\n1,0\n2,3\n", "row 2 has label 3; must be a class in 0..2"),
        ("ID,Labels\n1,-1\n2,0\n", "row 1 has label -1"),
        ("ID,Labels\n1,1.0\n2,0\n", "row 1 has label 1.0"),
    ],
)
def test_every_fault_of_a_file_is_found(content, message):
    with pytest.raises(ValueError, match=message):
        check_submission(content.encode(), ["1", "2"], 3)
    check_submission(b"ID,Labels\n1,2\n2,0\n", ["1", "2"], 3)


def run(*arguments):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


@pytest.mark.parametrize("tta", [True, False])
def test_the_command_writes_file_picture_and_table(trained, data, pickled, root, tta):
    path, ids = pickled
    output = root / "out" / "submission.csv"
    result = run("--model", trained.name, "--data", path, "--output", output, *["--tta"] * tta)
    assert result.exit_code == 0, result.output
    check_submission(output.read_bytes(), [str(number) for number in ids], 10)
    labels = predict_stored(trained.name, str(path), tta).labels
    assert [int(row[1]) for row in list(csv.reader(output.open()))[1:]] == labels
    assert f"{output}: 40 rows" in result.output
    picture = root / "plots" / f"{trained.name}_submission_predictions.png"
    assert picture.is_file()
    assert str(picture) in result.output
    counts = [int(row["predicted"]) for row in csv.DictReader(picture.with_suffix(".csv").open())]
    assert counts == np.bincount(labels, minlength=10).tolist()


def test_the_output_replaces_a_submission_and_no_other_file(trained, pickled, root):
    given = ["--model", trained.name, "--data", pickled[0], "--output"]
    for path in (pickled[0], trained.weights_path, trained.weights_path.with_suffix(".json")):
        before = path.read_bytes()
        refused = run(*given, path)
        assert refused.exit_code == 1
        assert f"output = {path}: exists and is not a submission" in refused.output
        assert path.read_bytes() == before
        with pytest.raises(ValueError, match="is not a submission"):
            write_submission(path, label_predictions())
    output = root / "s.csv"
    output.write_text("ID,Labels\n1,2\n")
    assert run(*given, output).exit_code == 0
    assert len(output.read_text().splitlines()) == 41


@pytest.mark.parametrize("output", ["/proc/nowhere/s.csv", "", "s" * 230 + ".csv", "s" * 300])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(trained, pickled, output, monkeypatch):
    monkeypatch.setattr(submission, "predict_stored", None)
    refused = run("--model", trained.name, "--data", pickled[0], "--output", output)
    assert refused.exit_code == 1
    assert "output" in refused.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": None}, ".json: lacks image_size; train"),
        ({"mean": None, "std": None}, ".json: lacks mean, std; train"),
        ({"class_names": ["a"]}, ".json: class_names: has 1 names for 10 classes"),
    ],
)
def test_a_description_that_lacks_something_is_named_before_any_work(trained, pickled, root, change, message):
    path = trained.weights_path.with_suffix(".json")
    description = artifacts.load_json(path) | change
    artifacts.save_json(path, {key: value for key, value in description.items() if value is not None})
    refused = run("--model", trained.name, "--data", pickled[0], "--output", root / "s.csv")
    assert refused.exit_code == 1
    assert message in refused.output


def test_the_data_set_that_is_named_must_fit_the_weights(trained, pickled, root):
    given = ["--data", pickled[0], "--output", root / "s.csv", "--dataset"]
    refused = run("--model", trained.name, *given, "cifar100")
    assert "dataset = cifar100: teacher_resnet8_digits was trained on digits" in refused.output
    path = artifacts.save_tensors(root / "mine.pth", build_model("resnet8", 100).state_dict())
    refused = run("--model", path, *given, "cifar10")
    assert "dataset = cifar10: has 10 classes" in refused.output
    assert "mine.pth has 100; name its training data" in refused.output
    assert run("--model", path, *given, "cifar100").exit_code == 0


def test_weights_without_a_description_need_the_data_set_they_were_trained_on(root, data, capsys):
    network = build_model("resnet8", 10)
    path = artifacts.save_tensors(root / "mine.pth", network.state_dict())
    folder = root / "more"
    folder.mkdir()
    for number, image in enumerate(data.test.images[:3]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((48, 40)).save(folder / f"{number}.png")
    faults = {
        (): "dataset: missing; ",
        ("--dataset", "digts"): "dataset = digts: unknown; ",
        ("--dataset", "digits"): "dataset = digits: its weights need their description (.json)",
    }
    for given, fault in faults.items():
        refused = run("--model", path, "--data", folder, "--output", root / "o.csv", *given)
        assert refused.exit_code == 1
        assert fault in refused.output
        assert ("cifar10, cifar100, imagenette" in refused.output) == (given[1:] != ("digits",))
    arguments = ("--model", path, "--data", folder, "--output", root / "o.csv", "--dataset")
    oblong = run(*arguments, "cifar10")
    assert oblong.exit_code == 1
    assert "not all squares of one size" in oblong.output
    assert not (root / "o.csv").exists()
    assert run(*arguments, "imagenette").exit_code == 0  # whose size is known: they are cut to squares of 96 px
    assert [row[0] for row in csv.reader((root / "o.csv").open())] == ["ID", "0", "1", "2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "nobody"}, "nobody: not trained yet"),
        ({"--data": "nowhere"}, "nowhere: no such file or folder here or in"),
    ],
)
def test_mistakes_are_one_line_before_any_work(trained, pickled, root, change, message):
    given = {"--model": trained.name, "--data": pickled[0], "--output": root / "s.csv"} | change
    result = run(*(word for pair in given.items() for word in pair))
    assert result.exit_code == 1
    assert message in result.output
    assert not (root / "s.csv").exists()


def write_images(folder, *sizes):
    generator = np.random.RandomState(0)
    paths = [folder / f"image{number}.png" for number in range(len(sizes))]
    for path, (width, height) in zip(paths, sizes, strict=True):
        Image.fromarray(generator.randint(0, 256, (height, width, 3)).astype(np.uint8)).save(path)
    return [str(path) for path in paths]


def test_single_images_are_predicted_as_a_folder_of_them_is(trained, root):
    folder = root / "photos"
    folder.mkdir()
    paths = write_images(folder, (16, 16), (48, 40), (48, 40))
    single, together = predict_stored(trained.name, paths), predict_stored(trained.name, str(folder))
    assert torch.equal(single.probabilities, together.probabilities)
    assert single.ids == paths
    assert together.ids == ["image0", "image1", "image2"]
    assert single.note == together.note == "2 images of 48x40 pixels: the central square was resized to 16x16"
    assert predict_stored(trained.name, paths[0]).note == ""
    with pytest.raises(ValueError, match="is not an image file; give image files"):
        predict_stored(trained.name, [paths[0], str(trained.record_path)])


def test_without_a_file_classes_and_confidences_are_printed(trained, root):
    paths = write_images(root, (16, 16), (48, 40))
    result = run("--model", trained.name, "--data", *paths)
    assert result.exit_code == 0, result.output
    found = predict_stored(trained.name, paths)
    rows = [line.split() for line in result.stdout.splitlines()]
    expected = zip(paths, found.predicted_names, found.confidences, strict=True)
    assert rows[0][:4] == ["1", "image", "of", "48x40"]
    assert rows[2:] == [[path, name, f"{100 * value:.1f}", "%"] for path, name, value in expected]


def test_names_and_confidences_are_columns_on_request(trained, pickled, root):
    arguments = ("--model", trained.name, "--data", pickled[0], "--output", root / "out.csv")
    assert run(*arguments, "--names").exit_code == 0
    rows = list(csv.reader((root / "out.csv").open()))
    found = predict_stored(trained.name, str(pickled[0]))
    assert rows[0] == ["ID", "Labels", "Class", "Confidence"]
    assert [row[2] for row in rows[1:]] == [found.class_names[int(row[1])] for row in rows[1:]]
    assert [float(row[3]) for row in rows[1:]] == pytest.approx(found.probabilities.amax(1).tolist(), abs=1e-4)
    assert run(*arguments).exit_code == 0  # replaces it by the plain format
    assert (root / "out.csv").read_text().startswith("ID,Labels\n")
    assert run("--model", trained.name, "--data", pickled[0], "--names").exit_code == 2


def test_numbered_classes_that_differ_from_the_labels_are_said():
    assert submission._order_note(["0", "1", "2"]) == submission._order_note(["cat", "dog"]) == ""
    assert submission._order_note(["0", "1", "10", "11", "2"]) == (
        "labels count the classes from 0, so 2 is class 10, 3 is class 11, 4 is class 2; --names adds the classes"
    )
