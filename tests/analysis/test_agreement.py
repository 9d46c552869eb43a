"""Agreement of a student with its teacher: naive loops, identities, saturated logits; figures show those numbers."""

import dataclasses
import math

import numpy
import pytest
import torch

from kdhelpers.analysis.agreement import (
    agreement,
    divergence,
    linear_cka,
    logit_correlation,
    mean_off_diagonal,
    standardized_divergence,
)
from kdhelpers.analysis.agreement_figures import kl_bars, logit_correlation_maps, reliability
from kdhelpers.data import Data, Split
from kdhelpers.evaluation.metrics import calibration, evaluate
from kdhelpers.evaluation.predictions import Predictions


def predictions(logits, labels=None, embeddings=None):
    labels = torch.zeros(len(logits), dtype=torch.long) if labels is None else labels
    return Predictions(logits, logits if embeddings is None else embeddings, labels, torch.arange(len(labels)))


def network(seed, count=60, classes=7, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator) + torch.arange(classes)
    labels = torch.arange(count) % classes
    return predictions(logits, labels, torch.randn(count, 5, generator=generator))


def naive_divergence(teacher, student, temperature):
    def softmax(logits):
        shares = [math.exp(z / temperature) for z in logits]
        return [share / sum(shares) for share in shares]

    pairs = zip(teacher.tolist(), student.tolist(), strict=True)
    return [sum(p * math.log(p / q) for p, q in zip(softmax(t), softmax(s), strict=True)) for t, s in pairs]


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
def test_divergence_equals_the_naive_sum_per_image(temperature):
    teacher, student = network(0), network(1)
    found = divergence(teacher, student, temperature)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(naive_divergence(teacher.logits, student.logits, temperature), rel=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_standardized_divergence_is_that_of_standardized_logits(temperature):
    teacher, student = network(0), network(1)

    def standardized(logits):
        rows = logits.double().numpy()
        deviation = rows.std(1, ddof=1, keepdims=True)
        return torch.from_numpy((rows - rows.mean(1, keepdims=True)) / (deviation + 1e-7))

    expected = naive_divergence(standardized(teacher.logits), standardized(student.logits), temperature)
    assert standardized_divergence(teacher, student, temperature).tolist() == pytest.approx(expected, rel=1e-9)


def test_a_shift_of_the_logits_is_no_divergence_and_a_scale_none_after_standardising():
    teacher = network(0)
    shifted, scaled = predictions(teacher.logits + 8, teacher.labels), predictions(4 * teacher.logits, teacher.labels)
    assert divergence(teacher, teacher).tolist() == [0.0] * 60
    assert divergence(teacher, shifted).abs().max() < 1e-5  # float32 logits
    assert divergence(teacher, scaled).min() > 0.01
    assert standardized_divergence(teacher, scaled).abs().max() < 1e-5


def test_saturated_logits_give_the_gap_and_not_infinity():
    teacher, student = predictions(torch.tensor([[1e4, 0.0, 0.0]])), predictions(torch.tensor([[0.0, 1e4, 0.0]]))
    assert divergence(teacher, student).tolist() == [1e4]
    assert divergence(teacher, student, 4.0).tolist() == [2500]
    assert standardized_divergence(teacher, student).isfinite().all()


def test_constant_logits_are_uniform_and_a_single_class_agrees():
    constant, teacher = predictions(torch.full((60, 7), 3.0), network(0).labels), network(0)
    uniform = predictions(torch.zeros(60, 7), teacher.labels)
    assert torch.equal(standardized_divergence(teacher, constant), standardized_divergence(teacher, uniform))
    single = predictions(torch.randn(4, 1))
    assert divergence(single, single).tolist() == standardized_divergence(single, single).tolist() == [0] * 4


@pytest.mark.parametrize("measure", [divergence, standardized_divergence])
@pytest.mark.parametrize("field", ["index", "labels"])
def test_other_images_and_temperatures_out_of_range_are_refused(measure, field):
    teacher = network(0)
    other = dataclasses.replace(network(1), **{field: getattr(teacher, field).flip(0)})
    with pytest.raises(ValueError, match="of different images; infer both on the same split"):
        measure(teacher, other)
    with pytest.raises(ValueError, match=r"temperature = 0: must be above 0"):
        measure(teacher, teacher, 0)


def naive_cka(first, second):
    """By the N x N Gram matrices (Kornblith et al., eq. 3 and 4)."""
    count = len(first)
    centring = numpy.eye(count) - 1 / count
    k, l = (centring @ (x.double().numpy() @ x.double().numpy().T) @ centring for x in (first, second))  # noqa: E741
    return (k * l).sum() / math.sqrt((k * k).sum() * (l * l).sum())


def test_linear_cka_equals_the_form_by_gram_matrices():
    first, second = network(0).embeddings + 3, network(1, classes=9).logits
    assert linear_cka(first, second) == pytest.approx(naive_cka(first, second), rel=1e-9)
    assert linear_cka(second, first) == pytest.approx(linear_cka(first, second), rel=1e-12)


def test_linear_cka_is_1_up_to_rotation_scale_and_shift():
    features = network(0).embeddings.double()
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    assert linear_cka(features, 3 * features @ rotation + 7) == pytest.approx(1, abs=1e-12)
    assert linear_cka(features, features * torch.tensor([1, 9, 1, 1, 1])) < 0.99


def test_linear_cka_of_constant_features_is_undefined_and_counts_must_match():
    features = network(0).embeddings
    assert math.isnan(linear_cka(features, torch.full((60, 3), 0.1)))
    with pytest.raises(ValueError, match="second: 40 images for 60 in first"):
        linear_cka(features, features[:40])


def test_logit_correlation_equals_numpys_and_a_constant_logit_has_none():
    logits = network(0).logits
    found = logit_correlation(predictions(logits))
    assert found.numpy() == pytest.approx(numpy.corrcoef(logits.double().numpy().T), abs=1e-12)
    logits[:, 2] = 0.1
    found = logit_correlation(predictions(logits))
    assert found[2].tolist() == found[:, 2].tolist() == [0] * 7
    assert found.diagonal().tolist() == pytest.approx([1, 1, 0, 1, 1, 1, 1])
    assert logit_correlation(predictions(logits[:1])).tolist() == [[0] * 7] * 7


def test_mean_off_diagonal_leaves_the_diagonal_out():
    assert mean_off_diagonal(torch.tensor([[9.0, 1, 2], [3, 9, 4], [5, 6, 9]])) == pytest.approx(21 / 6)
    assert math.isnan(mean_off_diagonal(torch.ones(1, 1)))


@pytest.fixture
def study():
    teacher = network(0)
    noise = network(1)
    near = dataclasses.replace(noise, logits=teacher.logits + 0.1 * noise.logits)
    return teacher, {"far": noise, "near": near, "same": teacher}


def test_agreement_ranks_the_nearest_first_and_gives_every_measure(study):
    teacher, students = study
    frame = agreement(teacher, students, temperature=2.0)
    assert frame["student"].tolist() == ["same", "near", "far"]
    assert frame["rank"].tolist() == [1, 2, 3]
    assert frame["agreement_pct"][0] == 100
    assert frame["kl_nats"][0] == frame["kl_high_nats"][0] == frame["logit_correlation_difference"][0] == 0
    assert frame["cka"][0] == pytest.approx(1)
    far, row = students["far"], frame.iloc[2]
    assert row["kl_low_nats"] < row["kl_nats"] < row["kl_high_nats"]
    assert row["kl_nats"] == pytest.approx(divergence(teacher, far).mean().item())
    assert row["kl_at_temperature_nats"] == pytest.approx(divergence(teacher, far, 2.0).mean().item())
    assert row["kl_standardized_nats"] == pytest.approx(standardized_divergence(teacher, far).mean().item())
    same = sum(a.argmax() == b.argmax() for a, b in zip(teacher.logits, far.logits, strict=True)).item()
    assert row["agreement_pct"] == pytest.approx(100 * same / 60)
    metrics = evaluate(far)
    assert [row["top1_pct"], row["ece_pct"]] == [metrics["top1_pct"], metrics["ece_pct"]]
    assert row["cka"] == pytest.approx(naive_cka(teacher.embeddings, far.embeddings))
    difference = numpy.abs(numpy.corrcoef(far.logits.numpy().T) - numpy.corrcoef(teacher.logits.numpy().T))
    assert row["logit_correlation_difference"] == pytest.approx(difference.sum() / 42, rel=1e-5)


def test_agreement_of_one_image_has_no_interval():
    frame = agreement(network(0, count=1), {"SI": network(1, count=1)})
    assert frame["kl_nats"][0] > 0
    assert frame[["kl_low_nats", "kl_high_nats"]].isna().all(axis=None)


def test_agreement_refuses_other_images():
    with pytest.raises(ValueError, match="different images"):
        agreement(network(0), {"SI": network(0, count=59)})


def test_kl_bars_show_the_three_divergences_of_each_student(study):
    frame = agreement(*study)
    for axes, key in zip(
        kl_bars(frame).axes, ("kl_nats", "kl_at_temperature_nats", "kl_standardized_nats"), strict=True
    ):
        assert [bar.get_width() for bar in axes.patches] == frame[key].tolist()
    whiskers = [list(line.get_xdata()) for line in kl_bars(frame).axes[0].lines]
    assert whiskers == frame[["kl_low_nats", "kl_high_nats"]].to_numpy().tolist()


def test_reliability_shows_accuracy_and_gap_of_each_bin(study):
    teacher, students = study
    figure = reliability({"teacher": teacher, **students})
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == ["teacher", "far", "near", "same"]
    assert f"ECE {evaluate(students['far'])['ece_pct']:.1f} %" in figure.axes[1].get_title()
    accuracy, over, under = figure.axes[1].containers
    share, confidence, hits = (100 * calibration(students["far"])).T.numpy()
    assert [bar.get_height() for bar in accuracy] == pytest.approx(hits)
    gap = [a.get_height() - b.get_height() for a, b in zip(over, under, strict=True)]
    assert gap == pytest.approx(confidence - hits)
    assert min(bar.get_height() for bar in [*over, *under]) == 0
    assert accuracy[14].get_x() + accuracy[14].get_width() == pytest.approx(100)


def toy_data(superclasses):
    names = None if superclasses is None else ["a", "b_c", "d"]
    split = Split(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.long))
    classes = [f"class {c}" for c in range(7)]
    return Data("toy", split, split, split, classes, superclasses, names, (0, 0, 0), (1, 1, 1))


def pictures(figure):
    return [axes.images[0].get_array().data for axes in figure.findobj(lambda part: getattr(part, "images", None))]


def test_maps_show_the_teachers_correlation_and_each_students_difference(study):
    teacher, students = study
    figure = logit_correlation_maps(teacher, students)
    reference, *differences = pictures(figure)
    assert reference == pytest.approx(logit_correlation(teacher).numpy())
    for difference, student in zip(differences, students.values(), strict=True):
        assert difference == pytest.approx((logit_correlation(student) - logit_correlation(teacher)).abs().numpy())
    limits = [axes.images[0].get_clim() for axes in figure.axes if axes.images]
    assert limits == [(-1, 1)] + 3 * [(0, max(difference.max() for difference in differences))]


def test_maps_put_the_classes_of_a_superclass_together_and_name_them(study):
    teacher, students = study
    figure = logit_correlation_maps(teacher, students, toy_data([2, 0, 1, 0, 2, 1, 1]))
    order = [1, 3, 2, 5, 6, 0, 4]
    assert pictures(figure)[0] == pytest.approx(logit_correlation(teacher)[order][:, order].numpy())
    names = figure.axes[0].get_yticklabels()
    assert [(name.get_text(), name.get_position()[1]) for name in names] == [("a", 0.5), ("b c", 3), ("d", 5.5)]
    plain = logit_correlation_maps(teacher, students, toy_data(None)).axes[0]
    assert [name.get_text() for name in plain.get_yticklabels()] == [f"class {c}" for c in range(7)]


def test_names_beside_the_map_lie_inside_the_figure():
    data = dataclasses.replace(toy_data([0, 0, 0, 1, 1, 2, 2]), superclass_names=["x" * 31, "y" * 31, "z"])
    for count in (1, 2, 7):
        figure = logit_correlation_maps(network(0), {str(seed): network(seed) for seed in range(1, count + 1)}, data)
        figure.draw_without_rendering()
        assert min(name.get_window_extent().x0 for name in figure.axes[0].get_yticklabels()) >= 0
