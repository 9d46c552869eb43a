"""Logit-weighted contrast against loops over its definition, its limits, and its hybrid with cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F

from kdhelpers import METHODS
from kdhelpers.data import Batch
from kdhelpers.methods import Context, supcrd_loss
from kdhelpers.models import Outputs

FORMS = pytest.mark.parametrize("form", ["in", "out"])
LABELS, CLASSES = torch.tensor([0, 1, 0, 2, 1]), 3


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def problem(batch=5, views=2, dim=4):
    logits = 2 * torch.randn(batch, views, CLASSES, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return unit(batch, views, dim, seed=1), unit(batch, views, dim, seed=2), logits, LABELS[:batch]


def naive(student, teacher, logits, labels, alpha, beta, temperature, form):
    views = student.shape[1]
    y = [label for label in labels.tolist() for _ in range(views)]
    s, t = student.flatten(0, 1).tolist(), teacher.flatten(0, 1).tolist()
    p = logits.flatten(0, 1).softmax(1).tolist()
    losses = []
    for i in range(len(s)):
        e = [math.exp(sum(map(float.__mul__, s[i], t[j])) / temperature) for j in range(len(t))]
        pull = alpha * p[i][y[i]]
        positives = [e[j] for j in range(len(t)) if y[j] == y[i]]
        pushed = sum(beta * (1 - p[i][y[j]]) * e[j] for j in range(len(t)) if y[j] != y[i])
        if form == "in":
            losses.append(-math.log(pull * sum(positives) / (pull * sum(positives) + pushed)))
        else:
            log_all = math.log(sum(positives) + pushed)
            losses.append(-pull / len(positives) * sum(math.log(score) - log_all for score in positives))
    return sum(losses) / len(losses)


def cross_network_supcon(student, teacher, labels, temperature, form):
    """SupCon with the student's anchors and the teacher's keys: no keys left out, as no anchor is among them."""
    y = labels.repeat_interleave(student.shape[1])
    scores = student.flatten(0, 1) @ teacher.flatten(0, 1).T / temperature
    same = (y[:, None] == y).double()
    if form == "in":
        return -((scores.exp() * same).sum(1) / scores.exp().sum(1)).log().mean()
    return -((scores.log_softmax(1) * same).sum(1) / same.sum(1)).mean()


@FORMS
@pytest.mark.parametrize(("alpha", "beta", "temperature"), [(1, 1, 0.07), (2, 1, 0.5), (1, 12, 0.2)])
@pytest.mark.parametrize("views", [1, 2])
def test_it_is_the_loop(form, alpha, beta, temperature, views):
    expected = naive(*problem(views=views), alpha, beta, temperature, form)
    assert supcrd_loss(*problem(views=views), alpha, beta, temperature, form).item() == pytest.approx(expected)


@FORMS
def test_a_sure_teacher_gives_contrast_between_the_networks(form):
    student, teacher, _, labels = problem()
    sure = 200 * F.one_hot(labels, CLASSES).double()[:, None].expand(-1, 2, -1)
    expected = cross_network_supcon(student, teacher, labels, 0.2, form)
    torch.testing.assert_close(supcrd_loss(student, teacher, sure, labels, 1.0, 1.0, 0.2, form), expected)


def test_in_form_in_only_the_ratio_of_beta_to_alpha_matters_in_form_out_both_do():
    one, two = (supcrd_loss(*problem(), 2.0, 1.0, 0.2, form) for form in ("in", "out"))
    torch.testing.assert_close(supcrd_loss(*problem(), 1.0, 0.5, 0.2, "in"), one)
    assert abs(supcrd_loss(*problem(), 1.0, 0.5, 0.2, "out") - two) > 0.01


def test_without_a_push_form_in_is_zero():
    student, *rest = problem()
    loss = supcrd_loss(student.requires_grad_(), *rest, beta=0.0)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_a_batch_of_one_class_has_nothing_to_push():
    student, teacher, logits, _ = problem()
    assert supcrd_loss(student, teacher, logits, torch.zeros(5).long()).item() == 0


@FORMS
def test_the_gradient_is_the_numerical_one_for_both_networks(form):
    student, teacher, logits, labels = problem()
    inputs = student.requires_grad_(), teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: supcrd_loss(s, t, logits, labels, 1.0, 12.0, 0.2, form), inputs)


@FORMS
@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_a_teacher_that_is_sure_of_the_truth_or_of_a_mistake_stays_finite(form, gap):
    student, teacher, _, labels = (value.float() if value.is_floating_point() else value for value in problem())
    logits = gap * F.one_hot(labels, CLASSES).float()[:, None].expand(-1, 2, -1)
    loss = supcrd_loss(student.requires_grad_(), teacher, logits, labels, form=form)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_wrong_input_is_named():
    student, teacher, logits, labels = problem()
    with pytest.raises(ValueError, match=r"student_embedding \(5, 2, 4\), teacher_embedding \(5, 2, 3\)"):
        supcrd_loss(student, teacher[..., :3], logits, labels)
    with pytest.raises(ValueError, match=r"teacher_logits \(5, 3\), .*: must be .* teacher_logits \[B, V, C\]"):
        supcrd_loss(student, teacher, logits[:, 0], labels)
    with pytest.raises(ValueError, match="alpha = 0"):
        supcrd_loss(student, teacher, logits, labels, alpha=0.0)
    with pytest.raises(ValueError, match="beta = -1"):
        supcrd_loss(student, teacher, logits, labels, beta=-1.0)


class Network:
    """Answers a view of images [B, 6] with embeddings and logits that are the images' own numbers; counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, view):
        self.calls += 1
        return Outputs(view[:, :CLASSES], view, {})


def method_and_batch(**hyperparameters):
    torch.manual_seed(0)
    method = METHODS["supcrd"](dim=4, **hyperparameters)
    images = torch.randn(2, 5, 6)
    outputs = Network()(images[0])
    method.build(Context(outputs, outputs, None, LABELS, CLASSES))
    return method, Batch(tuple(images), LABELS, torch.arange(5), {})


def test_the_hybrid_is_the_weighted_sum_with_cross_entropy_of_the_first_view():
    method, batch = method_and_batch(lam=0.3, temperature=0.2)
    terms = method(Network(), Network(), batch, 1)
    torch.testing.assert_close(terms["ce"], 0.7 * F.cross_entropy(batch.views[0][:, :CLASSES], LABELS))
    heads = [
        torch.stack([head(view) for view in batch.views], 1) for head in (method.student_head, method.teacher_head)
    ]
    logits = torch.stack([view[:, :CLASSES] for view in batch.views], 1)
    torch.testing.assert_close(terms["supcrd"], 0.3 * supcrd_loss(*heads, logits, LABELS, temperature=0.2))


def test_lam_0_is_cross_entropy_bit_for_bit_and_asks_nobody_for_more():
    method, batch = method_and_batch(lam=0.0)
    student, teacher = Network(), Network()
    terms = method(student, teacher, batch, 1)
    assert list(terms) == ["ce"]
    assert torch.equal(terms["ce"], F.cross_entropy(batch.views[0][:, :CLASSES], LABELS))
    assert (student.calls, teacher.calls) == (1, 0)


def test_lam_1_leaves_the_classifier_to_a_probe():
    method, batch = method_and_batch(lam=1.0)
    assert not method.trains_classifier
    assert list(method(Network(), Network(), batch, 1)) == ["supcrd"]
    assert method_and_batch(lam=0.9)[0].trains_classifier


@pytest.mark.parametrize(("head", "learns"), [("co_trained", True), ("frozen_random", False)])
def test_the_teachers_head_learns_or_stays(head, learns):
    method, batch = method_and_batch(teacher_head=head)
    method(Network(), Network(), batch, 1)["supcrd"].backward()
    gradients = [parameter.grad is not None for parameter in method.teacher_head.parameters()]
    assert gradients == [learns] * len(gradients)
    assert all(parameter.grad is not None for parameter in method.student_head.parameters())
