"""Multi-level matching against naive loops, its views, its published forms, and the teacher cache."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_fixtures import QUICK, Recorder, same, weights

from kdhelpers import Run, fit, fit_sweep
from kdhelpers.data import Batch
from kdhelpers.methods import METHODS, kd_loss, mlkd_batch_loss, mlkd_class_loss, standardized_kd_loss
from kdhelpers.methods.mlkd import MultiLevelMatching
from kdhelpers.models import Outputs
from kdhelpers.training.teacher import Teacher

STRONG = "crop flip randaugment=2/10 cutout=8"
LOSSES = [mlkd_batch_loss, mlkd_class_loss]


def softened(logits, temperature):
    powers = [[math.exp(z / temperature) for z in row] for row in logits.tolist()]
    return [[power / sum(row) for power in row] for row in powers]


def naive_batch(student, teacher, temperature):
    """Over all pairs of images, the difference of the inner products of their distributions."""
    p_s, p_t, total = softened(student, temperature), softened(teacher, temperature), 0.0
    for i in range(len(p_s)):
        for j in range(len(p_s)):
            product_s = sum(a * b for a, b in zip(p_s[i], p_s[j], strict=True))
            product_t = sum(a * b for a, b in zip(p_t[i], p_t[j], strict=True))
            total += (product_t - product_s) ** 2
    return total / len(p_s)


def naive_class(student, teacher, temperature):
    """Over all pairs of classes, the difference of the inner products of their columns."""
    p_s, p_t, total = softened(student, temperature), softened(teacher, temperature), 0.0
    classes = len(p_s[0])
    for c in range(classes):
        for d in range(classes):
            product_s, product_t = (sum(row[c] * row[d] for row in p) for p in (p_s, p_t))
            total += (product_t - product_s) ** 2
    return total / classes


def case(batch=5, classes=7, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, classes, generator=generator, dtype=dtype).mul(3).unbind()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("batch", "classes"), [(5, 7), (1, 7), (5, 2)])
def test_relations_equal_the_double_loops(temperature, batch, classes):
    student, teacher = case(batch, classes)
    for loss, naive in zip(LOSSES, (naive_batch, naive_class), strict=True):
        expected = naive(student, teacher, temperature)
        assert loss(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-10)


def test_relations_are_zero_for_equal_networks_and_blind_to_what_they_do_not_compare():
    """Classes in another order keep the relations of images; images in another order keep those of classes."""
    student, teacher = case()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    for loss in LOSSES:
        assert loss(teacher + 7, teacher).item() == pytest.approx(0, abs=1e-15)
        assert loss(student, teacher).item() > 1e-3
    assert mlkd_batch_loss(teacher[:, order], teacher).item() == pytest.approx(0, abs=1e-15)
    assert mlkd_class_loss(teacher[[2, 0, 1, 4, 3]], teacher).item() == pytest.approx(0, abs=1e-15)


def test_one_class_has_no_relations():
    assert mlkd_batch_loss(torch.ones(3, 1), torch.zeros(3, 1)).item() == 0
    assert mlkd_class_loss(torch.ones(3, 1), torch.zeros(3, 1)).item() == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_gradcheck_in_float64(loss):
    student, teacher = case()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gaps_of_ten_thousand_stay_finite_and_right(loss, dtype):
    student = torch.tensor([[1e4, 0.0, -1e4, 3.0], [1.0, 2.0, 0.5, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 0.0, 1e4, 5.0], [0.0, 3.0, 1.5, 2.0]], dtype=dtype)
    value = loss(student, teacher)
    value.backward()
    exact = loss(student.detach().double(), teacher.double())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)
    assert student.grad.isfinite().all()
    assert student.grad[1].abs().max() > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_autocast_does_not_round_the_products(loss):
    student, teacher = case(dtype=torch.float32)
    expected = loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(student, teacher), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(4, 10\).*\(4, 100\)"):
        loss(torch.zeros(4, 10), torch.zeros(4, 100))


class Network(nn.Module):
    """Logits of the mean colour; it keeps its inputs."""

    def __init__(self, seed):
        super().__init__()
        self.weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)).double() * 3
        self.inputs = []

    def forward(self, view, stop_at=None):
        self.inputs.append(view)
        return Outputs(view.mean((2, 3)) @ self.weight.T, None, {})


@pytest.fixture
def batch():
    views = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).unbind()
    return Batch((views[0],), torch.tensor([0, 3, 1, 1, 2]), torch.arange(5), {}, weak_view=views[1])


def logits_of(network, batch):
    return [view.mean((2, 3)) @ network.weight.T for view in (batch.weak_view, batch.views[0])]


@pytest.mark.parametrize(
    ("standardized", "temperature", "temperatures"), [(False, 4.0, [2, 3, 4, 5, 6]), (True, 2.0, [2, 2, 3, 5, 6])]
)
def test_the_terms_are_the_equation(batch, standardized, temperature, temperatures):
    student, teacher = Network(0), Network(1)
    settings = {"standardized": standardized, "temperature": temperature, "ce_weight": 0.3, "kd_weight": 0.7}
    terms = METHODS["mlkd"](**settings)(student, teacher, batch, 1)
    (weak, strong), (weak_target, strong_target) = (logits_of(network, batch) for network in (student, teacher))
    kd = standardized_kd_loss if standardized else kd_loss
    expected = {
        "ce": 0.3 * (F.cross_entropy(weak, batch.labels) + F.cross_entropy(strong, batch.labels)).item(),
        "kd_weak": 0.35 * sum(kd(weak, weak_target, t).item() for t in temperatures),
        "kd_strong": 0.7 * sum(kd(strong, strong_target, t).item() for t in temperatures),
        "batch_relations": 0.35 * sum(naive_batch(weak, weak_target, t) for t in temperatures),
        "class_relations": 0.35 * sum(naive_class(weak, weak_target, t) for t in temperatures),
    }
    assert {name: term.item() for name, term in terms.items()} == {
        name: pytest.approx(value, rel=1e-9) for name, value in expected.items()
    }


def test_both_networks_get_both_views_once(batch):
    student, teacher = Network(0), Network(1)
    METHODS["mlkd"]()(student, teacher, batch, 1)
    for network in (student, teacher):
        weak, strong = network.inputs
        assert weak is batch.weak_view  # first: the loop counts the hits of the first view
        assert strong is batch.views[0]


def test_the_defaults_are_the_papers():
    method = MultiLevelMatching()
    assert (method.standardized, method.temperature, method.ce_weight, method.kd_weight) == (False, 4.0, 0.1, 0.9)
    assert (method.views, method.weak_view) == (1, "own_crop")


@pytest.mark.parametrize("augmentation", ["crop flip", "resized_crop flip", "flip", "none"])
def test_a_recipe_without_a_strong_step_is_refused_with_one_that_has_them(augmentation):
    with pytest.raises(ValueError, match=f"augmentation = {augmentation}.*: gives mlkd two weak views; .*{STRONG}"):
        Run(**QUICK, method="mlkd", teacher="resnet8", augmentation=augmentation)


@pytest.fixture
def teacher(root, data):
    return fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)


def test_it_trains_on_two_views_of_which_only_one_is_strong(data, teacher, monkeypatch):
    shown = []

    class Watching(MultiLevelMatching):
        def forward(self, student, teacher, batch, epoch):
            shown.append((batch.weak_view, *batch.views))
            return super().forward(student, teacher, batch, epoch)

    monkeypatch.setitem(METHODS, "mlkd", Watching)
    fit(Run(**QUICK, method="mlkd", teacher="resnet8", augmentation=STRONG), data)
    weak, strong = shown[0]
    assert weak.shape == strong.shape
    pixels = [(view == 0).all(1).flatten(1).float().mean(1) for view in (weak, strong)]
    assert (pixels[0] == 0).all()  # cutout sets pixels to exactly 0
    assert (pixels[1] > 0).all()


def test_the_cache_serves_the_weak_view_and_the_strong_one_is_computed(data, teacher, monkeypatch):
    """The students of the live teacher, of an empty cache and of a full one have the same bits."""
    run = Run(**QUICK, method="mlkd", teacher="resnet8", augmentation=STRONG)
    seen, compute = [], Teacher.__call__

    def counted(self, view, stop_at=None):
        seen.append(len(view))
        return compute(self, view, stop_at)

    monkeypatch.setattr(Teacher, "__call__", counted)
    found, images = [], []
    for cached in (False, True, True):
        seen.clear()
        trained = fit(run, data, progress=Recorder(), cache_teacher=cached, force_retrain=True)
        found.append(weights(trained))
        images.append(sum(count for count in seen if count > 2))  # without those that shapes are taken from
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    both = 2 * 2 * 120  # views, epochs, images
    assert images[0] == both
    assert both / 2 < images[1] <= both  # a weak view that comes twice is computed once
    assert images[2] == both / 2


def test_in_lockstep_with_a_method_of_two_views_it_ends_as_alone(data, teacher):
    run, other = (
        Run(**QUICK, method=method, teacher="resnet8", augmentation=STRONG, selection="last")
        for method in ("mlkd", "conkd")
    )
    alone = weights(fit(run, data))
    in_lockstep, _ = fit_sweep([run, other], data, force_retrain=True)
    assert same(weights(in_lockstep), alone)
