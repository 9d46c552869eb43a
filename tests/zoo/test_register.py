"""A teacher made elsewhere is tested, stored with its origin, and serves like one trained here."""

import numpy as np
import pytest
import torch

from kdhelpers import Run, artifacts, fit, load_data, results
from kdhelpers.display.progress import Progress
from kdhelpers.models import build_model
from kdhelpers.report import tables
from kdhelpers.report.gallery import write_gallery
from kdhelpers.report.results import summarize
from kdhelpers.training.teacher import load_teacher
from kdhelpers.weights.load import describe_teacher, teacher_name
from kdhelpers.zoo import register


def checkpoint(path, model="resnet8", classes=10, **options):
    """The file of the CRD benchmark's training loop: the weights under `model`, scores, and a pickled number."""
    torch.manual_seed(1)
    network = build_model(model, classes, **options)
    content = {
        "epoch": 240,
        "model": network.state_dict(),
        "accuracy": torch.tensor([72.5]),
        "best_acc": np.float64(73),
    }
    torch.save(content, path)
    return network.eval()


@pytest.fixture(autouse=True)
def random_weights_pass(monkeypatch):
    monkeypatch.setattr(register, "NEAR_CHANCE", -1)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", val_fraction=0)


@pytest.fixture
def stored(root, digits):
    """(the network, its record, the file it came from)"""
    network = checkpoint(root / "ckpt_epoch_240.pth")
    return network, register.register(root / "ckpt_epoch_240.pth", "resnet8", digits), root / "ckpt_epoch_240.pth"


def test_weights_sidecar_and_record_hold_the_known_facts_only(stored):
    network, record, path = stored
    assert record["name"] == "teacher_resnet8_digits"
    assert record["origin"] == {
        "source": str(path),
        "file_sha256": artifacts.sha256(path),
        "file_says": "epoch 240, accuracy 72.5",  # a numpy scalar would have to be made
        "training": "elsewhere, unknown",
    }
    assert not {"epochs", "lr", "optimizer", "seed"} & set(record["run"])
    assert record["run"]["selection"] == record["selection"]["rule"] == "unknown"
    assert artifacts.load_record(record["name"]) == record
    sidecar = describe_teacher("resnet8", "digits")
    assert (sidecar["origin"], sidecar["test_top1_pct"]) == (record["origin"], record["metrics"]["test_top1_pct"])
    assert len(sidecar["class_names"]) == 10
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(load_teacher("teacher_resnet8_digits")(images).logits, network(images))


def test_its_architecture_names_it_as_teacher_and_records_of_students_name_it(stored, data):
    run = Run(dataset="digits", model="resnet8", method="lm", teacher="resnet8", epochs=1, val_fraction=0.1)
    student = fit(run, data, progress=Progress())
    assert student.record["teacher"]["name"] == "teacher_resnet8_digits"
    assert student.record["teacher"]["sha256"] == stored[1]["weights"]["sha256"]
    assert student.record["teacher"]["test_top1_pct"] == stored[1]["metrics"]["test_top1_pct"]
    summary = summarize(results("digits")).set_index("label")
    assert summary.loc["teacher", "budget"] == "made elsewhere"
    assert summary.loc["KD", "budget"] == "1 epochs, batch 64"  # no 1.0, though the teacher's is missing
    html = tables.results_table("digits").to_html()
    assert "made elsewhere" in html
    assert "nan" not in html.lower()
    assert len(tables.missing("digits").data) > 0


def test_the_gallery_shows_its_origin_and_no_budget_or_seed(stored):
    write_gallery()
    (path,) = (artifacts.folder("plots") / "pages").glob("*_teacher_*.html")
    html = path.read_text()
    assert "resnet8 · made elsewhere" in html
    assert stored[1]["origin"]["file_sha256"] in html
    assert "? epochs" not in html
    assert "seed 0" not in html


def test_the_same_file_again_is_loaded_and_another_gets_its_own_name(stored, root, digits, monkeypatch):
    _, record, path = stored
    before = artifacts.weights_path(record["name"]).stat().st_mtime_ns
    hashed, sha256 = [], artifacts.sha256
    monkeypatch.setattr(artifacts, "sha256", lambda file: hashed.append(file) or sha256(file))
    assert register.register(path, "resnet8", digits) == record
    assert hashed == [path, artifacts.weights_path(record["name"])]
    assert artifacts.weights_path(record["name"]).stat().st_mtime_ns == before
    torch.save(build_model("resnet8", 10).state_dict(), root / "other.pth")
    other = register.register(root / "other.pth", "resnet8", digits)
    assert other["name"] == f"teacher_resnet8_digits-{other['identity'][:8]}"
    assert artifacts.weights_path(record["name"]).stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"there are 2: .*\(made elsewhere, .*%\), .*give the name"):
        teacher_name("resnet8", "digits")


def test_a_record_without_its_weights_is_registered_again(stored, digits):
    _, record, path = stored
    weights = artifacts.weights_path(record["name"])
    weights.unlink()
    assert register.register(path, "resnet8", digits)["name"] == record["name"]
    assert weights.is_file()


def test_weights_without_a_sidecar_under_the_name_get_one_and_stay_as_they_are(root, digits):
    path = artifacts.weights_path("teacher_resnet8_digits")
    checkpoint(path)
    with pytest.raises(ValueError, match="has no description; `python -m kdhelpers teachers --file"):
        describe_teacher("resnet8", "digits")
    before = path.read_bytes()
    assert register.register(path, "resnet8", digits)["name"] == "teacher_resnet8_digits"
    assert path.read_bytes() == before
    assert describe_teacher("resnet8", "digits")["origin"]["source"] == str(path)
    assert [file.name for file in path.parent.glob("*.pth")] == [path.name]


def test_the_record_of_another_training_is_not_overwritten(root, digits):
    path = artifacts.weights_path("teacher_resnet8_digits")
    checkpoint(path)
    other = {"schema": 1, "name": path.stem, "identity": "f" * 64, "status": "finished"}
    artifacts.save_json(artifacts.record_path(path.stem), other)
    with pytest.raises(ValueError, match="is the record of another training than the weights under that name"):
        register.register(path, "resnet8", digits)
    assert artifacts.load_json(artifacts.record_path(path.stem)) == other
    assert not path.with_suffix(".json").exists()


def test_a_published_figure_must_be_met_and_is_recorded(root, stored, digits):
    _, record, path = stored
    reached = record["metrics"]["test_top1_pct"]
    again = path.with_name("again.pth")
    checkpoint(again, "resnet14")
    for name in ("resnet14", "resnet8"):  # another accuracy; another architecture
        with pytest.raises(ValueError, match="published are 99.00 %: .*not registered|another architecture"):
            register.register(again, name, digits, published={"test_top1_pct": 99.0})
    assert not list(artifacts.folder("weights").glob("*resnet14*"))
    torch.save(torch.load(path, weights_only=False)["model"], root / "near.pth")
    near = register.register(
        root / "near.pth", "resnet8", digits, "http://x", {"test_top1_pct": reached + 0.49, "epochs": 240}
    )
    assert near["origin"]["published_top1_pct"] == reached + 0.49
    assert (near["origin"]["source"], near["origin"]["file_says"]) == ("http://x", "nothing")
    assert (near["run"]["epochs"], near["selection"]) == (240, {"rule": "unknown", "epoch": 240})


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(root, digits):
    checkpoint(root / "seven.pth", classes=7)
    with pytest.raises(ValueError, match="seven.pth: has 7 classes, digits has 10"):
        register.register(root / "seven.pth", "resnet8", digits)
    with pytest.raises(ValueError, match="model = resnet9: unknown; did you mean"):
        register.register(root / "seven.pth", "resnet9", digits)
    with pytest.raises(ValueError, match="of another architecture than vgg8: lacks classifier.weight"):
        register.register(root / "seven.pth", "vgg8", digits)
    with pytest.raises(FileNotFoundError):
        register.register(root / "none.pth", "resnet8", digits)
    assert not (root / "json_results").exists()


def test_a_stem_is_identified_by_the_shapes(root, digits):
    checkpoint(root / "x.pth", "resnet18", stem="imagenet")
    record = register.register(root / "x.pth", "resnet18", digits)
    assert record["run"]["model_options"] == {"stem": "imagenet", "base_channels": 64}
    assert load_teacher(record["name"])(torch.rand(1, 3, 32, 32)).logits.shape == (1, 10)


@pytest.mark.parametrize(
    ("weight", "fault"), [(torch.tensor(1.0), "lacks fc.weight"), (torch.full((10, 64), torch.nan), "is not finite")]
)
def test_weights_without_a_classifier_or_not_finite_are_refused(root, digits, weight, fault):
    state = build_model("resnet8", 10).state_dict() | {"fc.weight": weight}
    torch.save(state, root / "x.pth")
    with pytest.raises(ValueError, match=fault):
        register.register(root / "x.pth", "resnet8", digits)
