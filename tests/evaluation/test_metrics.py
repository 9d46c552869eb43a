import math

import pytest
import torch
from torch import nn

from kdhelpers.data import Unlabelled, load_data
from kdhelpers.data.augmentation import recipe
from kdhelpers.evaluation.metrics import calibration, compare, evaluate, per_class_pct, top_k_pct
from kdhelpers.evaluation.predictions import Predictions, infer
from kdhelpers.models import build_model


def predictions(logits, labels):
    logits, labels = torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(labels)
    return Predictions(logits, logits, labels, torch.arange(len(labels)))


def random_predictions(n=400, classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = 2 * torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 1
    return predictions(logits, labels)


def naive_calibration_error(p, bins=15):
    total, n = 0.0, len(p.labels)
    rows = [torch.softmax(z.double(), 0) for z in p.logits]
    for b in range(bins):
        inside = [
            i for i, q in enumerate(rows) if b / bins <= q.max() < (b + 1) / bins or (b == bins - 1 and q.max() == 1)
        ]
        if inside:
            accuracy = sum(int(rows[i].argmax()) == int(p.labels[i]) for i in inside) / len(inside)
            confidence = sum(float(rows[i].max()) for i in inside) / len(inside)
            total += len(inside) / n * abs(accuracy - confidence)
    return 100 * total


def test_metrics_equal_naive_loops():
    p = random_predictions()
    metrics = evaluate(p)
    assert metrics["top1_pct"] == pytest.approx(
        100 * sum(int(z.argmax()) == y for z, y in zip(p.logits, p.labels, strict=True)) / 400
    )
    nll = (
        sum(
            math.log(sum(math.exp(v) for v in z)) - z[y]
            for z, y in zip(p.logits.tolist(), p.labels.tolist(), strict=True)
        )
        / 400
    )
    assert metrics["nll"] == pytest.approx(nll, rel=1e-6)
    assert metrics["ece_pct"] == pytest.approx(naive_calibration_error(p), abs=1e-9)
    assert metrics["n"] == 400
    top2 = sum(int(y) in z.argsort(descending=True)[:2].tolist() for z, y in zip(p.logits, p.labels, strict=True)) / 4
    assert top_k_pct(p, 2) == pytest.approx(top2)


def test_top5_of_three_classes_is_all():
    assert evaluate(predictions([[1, 2, 3.0]], [0]))["top5_pct"] == 100


def test_calibration_of_saturated_and_wrong_logits():
    p = predictions([[1e4, 0], [1e4, 0]], [0, 1])
    assert evaluate(p)["ece_pct"] == pytest.approx(50)
    assert calibration(p)[:, 0].sum().item() == pytest.approx(1)


def test_per_class_names_classes_without_images():
    values = per_class_pct(predictions([[1, 0, 0.0], [0, 1, 0.0], [0, 1, 0.0]], [0, 0, 1]))
    assert values[:2].tolist() == [50, 100]
    assert values[2].isnan()


def test_compare_gives_the_paired_difference_and_an_interval_that_holds_it():
    first, second = random_predictions(), random_predictions()
    wrong = second.logits.clone()
    wrong[:40] = -wrong[:40]
    result = compare(first, predictions(wrong, second.labels))
    assert result["difference_pct"] == pytest.approx(result["first_pct"] - result["second_pct"])
    assert result["low_pct"] < result["difference_pct"] < result["high_pct"]
    assert compare(first, first) | {"n": 0} == compare(first, first) | {
        "n": 0,
        "difference_pct": 0,
        "low_pct": 0,
        "high_pct": 0,
    }


def test_compare_interval_agrees_with_resampling_the_images():
    first, second = random_predictions(seed=1), random_predictions(seed=1)
    worse = second.logits.clone()
    worse[::7] = -worse[::7]
    second = predictions(worse, second.labels)
    difference = first.correct.double() - second.correct.double()
    draws = torch.randint(400, (4000, 400), generator=torch.Generator().manual_seed(1))
    low, high = 100 * torch.quantile(difference[draws].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64))
    result = compare(first, second)
    assert result["low_pct"] == pytest.approx(low.item(), abs=0.6)
    assert result["high_pct"] == pytest.approx(high.item(), abs=0.6)


def test_compare_refuses_other_images():
    with pytest.raises(ValueError, match="different images"):
        compare(random_predictions(seed=0), random_predictions(seed=1))


def test_infer_equals_one_image_at_a_time_and_restores_the_mode():
    data = load_data("digits")
    torch.manual_seed(0)
    model = build_model("resnet8", 10).train()
    p = infer(model, data, "val", batch_size=50)
    assert model.training
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    model.eval()
    with torch.no_grad():
        alone = torch.cat([model(((image / 255 - mean) / std)[None]) for image in data.val.images[:20]])
    torch.testing.assert_close(p.logits[:20], alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(p.labels, data.val.labels)
    torch.testing.assert_close(
        nn.functional.linear(p.embeddings, model.fc.weight, model.fc.bias).detach(), p.logits, rtol=1e-4, atol=1e-4
    )


def test_infer_computes_without_tf32_and_in_the_layout_of_the_device(monkeypatch):
    def watch(network, inputs):
        seen.append((torch.backends.cudnn.allow_tf32, inputs[0].is_contiguous()))

    seen, data, model = [], load_data("digits"), build_model("resnet8", 10)
    model.register_forward_pre_hook(watch)
    monkeypatch.setattr(recipe, "memory_format", lambda device: torch.contiguous_format)
    infer(model, data, "val")
    assert set(seen) == {(False, True)}
    assert torch.backends.cudnn.allow_tf32


def test_infer_refuses_unknown_and_empty_splits():
    data = load_data("digits", val_fraction=0)
    model = build_model("resnet8", 10)
    with pytest.raises(ValueError, match="split = tests: must be train, val or test"):
        infer(model, data, "tests")
    with pytest.raises(ValueError, match="no images there; load it with val_fraction > 0"):
        infer(model, data, "val")


def test_infer_with_tta_averages_the_probabilities_of_image_and_mirror_image():
    data = load_data("digits")
    torch.manual_seed(0)
    model, images, batches = build_model("resnet8", 10), data.val.images[:20], []
    plain, mirrored = (infer(model, data, Unlabelled(views, ["?"] * 20, "")) for views in (images, images.flip(3)))
    both = infer(model, data, Unlabelled(images, ["?"] * 20, ""), 8, tta=True, progress=batches.append)
    assert batches == [8, 8, 4]
    expected = (plain.logits.softmax(1) + mirrored.logits.softmax(1)) / 2
    torch.testing.assert_close(both.probabilities, expected)
    torch.testing.assert_close(both.logits.softmax(1), expected)
    torch.testing.assert_close(plain.probabilities, plain.logits.softmax(1))
    torch.testing.assert_close(both.embeddings, plain.embeddings)
    assert both.labels is plain.labels is None
    assert torch.equal(plain.logits, infer(model, data, data.val.select(torch.arange(20))).logits)
