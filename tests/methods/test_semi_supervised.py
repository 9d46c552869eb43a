"""Logit matching on unlabelled images: its terms, the views of both networks, what its weights switch off."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdhelpers.data import Batch
from kdhelpers.methods import METHODS
from kdhelpers.models import Outputs

CLASSES = 4


class Network(nn.Module):
    """Logits of the mean colour through BatchNorm, so that it matters which images are normalised together."""

    def __init__(self, seed, normalised=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, 3, generator=torch.Generator().manual_seed(seed)).double())
        self.norm = nn.BatchNorm1d(3).double() if normalised else nn.Identity()
        self.inputs = []

    def forward(self, view, stop_at=None):
        self.inputs.append(view)
        embedding = self.norm(view.mean((2, 3)))
        return Outputs(embedding @ self.weight.T, embedding, {})


def view(count, seed):
    return torch.randn(count, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def batch():
    labels = torch.tensor([0, 3, 1, 1, 2])
    unlabelled = Batch((view(7, 3),), None, torch.arange(7), {}, weak_view=view(7, 4))
    return Batch((view(5, 1),), labels, torch.arange(5), {}, weak_view=view(5, 2), unlabelled=unlabelled)


@pytest.fixture
def networks():
    return Network(0), Network(1, normalised=False).requires_grad_(False)


def method(**hyperparameters):
    return METHODS["lm_unlabelled"](**hyperparameters)


def naive_kd(student, teacher, temperature):
    total = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        norm_s, norm_t = (sum(math.exp(z / temperature) for z in row) for row in (z_s, z_t))
        for a, b in zip(z_s, z_t, strict=True):
            p_s, p_t = math.exp(a / temperature) / norm_s, math.exp(b / temperature) / norm_t
            total += p_t * math.log(p_t / p_s)
    return temperature**2 * total / len(student)


def test_the_terms_are_the_equation_and_batchnorm_normalises_all_images_together(networks, batch):
    student, teacher = networks
    terms = method(ce_weight=0.5, kd_weight=2.0, unlabelled_weight=3.0, temperature=3.0)(student, teacher, batch, 1)
    colours = [images.mean((2, 3)) for images in (batch.views[0], batch.unlabelled.views[0])]
    both = torch.cat(colours)
    own, other = (
        (colour - both.mean(0)) / (both.var(0, unbiased=False) + 1e-5).sqrt() @ student.weight.T for colour in colours
    )
    teacher_own, teacher_other = (
        images.mean((2, 3)) @ teacher.weight.T for images in (batch.weak_view, batch.unlabelled.weak_view)
    )
    cross_entropy = -sum(row[label] for row, label in zip(own.log_softmax(1), batch.labels, strict=True)) / 5
    assert list(terms) == ["ce", "kd", "kd_unlabelled"]
    assert terms["ce"].item() == pytest.approx(0.5 * cross_entropy.item(), rel=1e-9)
    assert terms["kd"].item() == pytest.approx(2 * naive_kd(own, teacher_own, 3.0), rel=1e-9)
    assert terms["kd_unlabelled"].item() == pytest.approx(3 * naive_kd(other, teacher_other, 3.0), rel=1e-9)


def test_the_student_gets_the_augmented_views_and_the_teacher_the_weak_ones(networks, batch):
    student, teacher = networks
    method()(student, teacher, batch, 1)
    [inputs] = student.inputs
    assert torch.equal(inputs[:5], batch.views[0])  # labelled images first: the loop counts their hits
    assert torch.equal(inputs[5:], batch.unlabelled.views[0])
    assert teacher.inputs[0] is batch.weak_view
    assert teacher.inputs[1] is batch.unlabelled.weak_view


def test_without_their_weight_no_network_gets_an_unlabelled_image(networks, batch):
    student, teacher = networks
    off = method(unlabelled_weight=0)
    assert not off.uses_unlabelled
    terms = off(student, teacher, batch, 1)
    assert list(terms) == ["ce", "kd"]
    assert [len(view) for view in (*student.inputs, *teacher.inputs)] == [5, 5]
    same_view = batch._replace(weak_view=batch.views[0])
    weightless = method(unlabelled_weight=0, temperature=4.0, ce_weight=0.5, kd_weight=0.5)(
        student, teacher, same_view, 1
    )
    plain = METHODS["lm"]()(student, teacher, same_view, 1)
    assert all(torch.equal(weightless[name], plain[name]) for name in plain)


def test_without_kd_weight_the_teacher_gets_unlabelled_images_alone(networks, batch):
    student, teacher = networks
    terms = method(kd_weight=0)(student, teacher, batch, 1)
    assert list(terms) == ["ce", "kd_unlabelled"]
    assert [len(view) for view in teacher.inputs] == [7]


def test_one_mean_over_all_images_is_a_choice_of_weights(networks, batch):
    student, teacher = networks
    terms = method(kd_weight=0.8 * 5 / 12, unlabelled_weight=0.8 * 7 / 12)(student, teacher, batch, 1)
    whole = student(torch.cat([batch.views[0], batch.unlabelled.views[0]])).logits
    target = teacher(torch.cat([batch.weak_view, batch.unlabelled.weak_view])).logits
    together = 9 * F.kl_div((whole / 3).log_softmax(1), (target / 3).softmax(1), reduction="sum") / 12
    torch.testing.assert_close(terms["kd"] + terms["kd_unlabelled"], 0.8 * together)


def test_gradcheck_in_float64(networks, batch):
    student, teacher = networks

    def loss(weight):
        student.weight = weight
        return sum(method()(student, teacher, batch, 1).values())

    weight = student.weight.detach().clone().requires_grad_()
    del student.weight
    assert torch.autograd.gradcheck(loss, weight)


def test_a_saturated_half_precision_student_keeps_a_finite_loss(batch):
    class Sure(nn.Module):
        def forward(self, view, stop_at=None):
            return Outputs(100.0 * view.sum((2, 3))[:, [0, 1, 2, 0]].half(), None, {})

    terms = method()(Sure(), Sure(), batch, 1)
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())


def test_its_attributes_follow_from_its_hyperparameters():
    assert (method().weak_view, method().uses_unlabelled) == ("shared_crop", True)
    assert method(consistent=False).weak_view == "own_crop"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"temperature": 0}, "temperature = 0"),
        ({"unlabelled_weight": -1}, "unlabelled_weight = -1"),
        (
            {"ce_weight": 0, "kd_weight": 0, "unlabelled_weight": 0},
            "ce_weight, kd_weight, unlabelled_weight: all are 0",
        ),
    ],
)
def test_nonsense_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        method(**wrong)
