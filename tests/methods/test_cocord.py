"""CoCoRD as a method: its terms, and what its queue, its slow student and its projectors do in a step."""

import copy

import pytest
import torch
import torch.nn.functional as F
from cocord_loops import naive_contrast, naive_prediction
from torch import nn
from training_fixtures import parameters_of

from kdhelpers import METHODS
from kdhelpers.data import Batch
from kdhelpers.methods import Context, kd_loss
from kdhelpers.models import Outputs

LABELS = torch.tensor([0, 1, 1, 2])
SMALL = {"queue_size": 6, "hidden_dim": 8, "dim": 5, "predictor_dim": 3}


class Network(nn.Module):
    """A convolution, BatchNorm and a classifier; counts its calls and keeps its inputs."""

    def __init__(self, width=6, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, 3)
        self.inputs = []

    def forward(self, view):
        self.inputs.append(view)
        embedding = self.body(view).mean((2, 3))
        return Outputs(self.classifier(embedding), embedding, {})


class Teacher(Network):
    """Frozen, in eval mode, without a graph."""

    def __init__(self, width=6):
        super().__init__(width, seed=1)
        self.eval().requires_grad_(False)


def images(count=4):
    generator = torch.Generator().manual_seed(2)
    return Batch(tuple(torch.randn(3, count, 3, 5, 5, generator=generator)), LABELS[:count], torch.arange(count), {})


def built(teacher_width=6, **hyperparameters):
    """A CoCoRD method over a student and a teacher, all three as the loop makes them."""
    student, teacher = Network(), Teacher(teacher_width)
    outputs = student.eval()(torch.zeros(2, 3, 5, 5)), teacher(torch.zeros(2, 3, 5, 5))
    for network in (student.train(), teacher):
        network.inputs.clear()
    torch.manual_seed(3)
    method = METHODS["cocord"](**SMALL | hyperparameters)
    method.build(
        Context(*outputs, lambda: copy.deepcopy(student).requires_grad_(False), LABELS, 3, list(student.parameters()))
    )
    return method, student, teacher


def learn(method, student, teacher, batch=None):
    """One plain step of SGD on all that is trained; the terms."""
    trained = [*student.parameters(), *(p for p in method.parameters() if p.requires_grad)]
    terms = method(student, teacher, batch or images(), 1)
    gradients = torch.autograd.grad(sum(terms.values()), trained, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter -= 0.1 * (0 if gradient is None else gradient)
    return terms


def statistics(*modules):
    return [buffer for module in modules for name, buffer in module.named_buffers() if "running" in name]


def test_the_terms_are_the_equation():
    method, student, teacher = built(temperature=0.3, contrast_weight=2.0, ce_weight=0.5)
    queue = method.queue.keys.clone()
    terms = method(student, teacher, images(), 1)
    own, other, teacher_view = images().views
    f = [method.projector(student(view).embedding) for view in (own, other)]
    key = F.normalize(method.teacher_projector(teacher(teacher_view).embedding), dim=1)
    contrast = naive_contrast(F.normalize(f[0], dim=1).double(), key.double(), queue.double(), 0.3)
    slow = [method.slow_projector(method.slow(view).embedding) for view in (own, other)]
    predicted = torch.stack([method.predictor(embedding) for embedding in f], 1)
    prediction = naive_prediction(predicted.double(), torch.stack(slow, 1).double())
    assert list(terms) == ["ce", "contrast", "prediction"]
    torch.testing.assert_close(terms["ce"], 0.5 * F.cross_entropy(student(own).logits, LABELS))
    assert terms["contrast"].item() == pytest.approx(2 * contrast, rel=1e-5)
    assert terms["prediction"].item() == pytest.approx(4 * prediction, rel=1e-5)


def test_each_network_sees_its_views_and_the_teacher_a_second_one_for_kd_alone():
    for weight, of_teacher in ((0.0, [2]), (0.5, [2, 0])):
        method, student, teacher = built(kd_weight=weight)
        batch = images()
        method(student, teacher, batch, 1)
        places = {id(view): place for place, view in enumerate(batch.views)}
        inputs = [[places[id(view)] for view in network.inputs] for network in (student, method.slow, teacher)]
        assert inputs == [[0, 1], [0, 1], of_teacher]


def test_kd_is_the_classic_loss_of_both_networks_on_the_students_own_view():
    method, student, teacher = built(kd_weight=0.5, kd_temperature=3.0)
    terms = method(student, teacher, images(), 1)
    own = images().views[0]
    torch.testing.assert_close(terms["kd"], 0.5 * kd_loss(student(own).logits, teacher(own).logits, 3.0))


def test_a_weight_of_zero_drops_the_term_and_the_questions():
    method, student, teacher = built(contrast_weight=0, prediction_weight=0)
    terms = method(student, teacher, images(), 1)
    assert list(terms) == ["ce"]
    assert [len(network.inputs) for network in (student, method.slow, teacher)] == [1, 0, 0]
    assert torch.equal(terms["ce"], F.cross_entropy(Network()(images().views[0]).logits, LABELS))
    method, student, teacher = built(ce_weight=0)
    assert list(method(student, teacher, images(), 1)) == ["contrast", "prediction"]
    assert not method.trains_classifier
    assert built(ce_weight=0, kd_weight=1)[0].trains_classifier


def test_at_the_start_the_slow_student_and_the_teachers_projector_are_the_students_own():
    method, student, _ = built()
    slow, own = parameters_of(method.slow, method.slow_projector), parameters_of(student, method.projector)
    assert all(map(torch.equal, slow, own))
    assert all(map(torch.equal, parameters_of(method.teacher_projector), parameters_of(method.projector)))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_averages_move_at_the_start_of_a_step_that_is_before_the_optimisers(momentum):
    method, student, teacher = built(slow_momentum=momentum, teacher_momentum=0.5)
    first = parameters_of(student, method.projector)
    learn(method, student, teacher)  # nothing to follow yet: student and average are one
    assert all(map(torch.equal, parameters_of(method.slow, method.slow_projector), first))
    second = parameters_of(student, method.projector)
    learn(method, student, teacher)
    for average, before, now in zip(parameters_of(method.slow, method.slow_projector), first, second, strict=True):
        torch.testing.assert_close(average, momentum * before + (1 - momentum) * now)
    projector = zip(parameters_of(method.teacher_projector), first[-6:], second[-6:], strict=True)
    for average, before, now in projector:
        torch.testing.assert_close(average, (before + now) / 2)
    assert not torch.equal(first[0], second[0])


def test_running_statistics_are_not_averaged_and_outputs_follow_the_batch_at_hand():
    method, student, teacher = built()
    learn(method, student, teacher)
    averaged = statistics(method.slow, method.slow_projector, method.teacher_projector)
    before = [buffer.clone() for buffer in averaged]
    method._update_averages()
    assert all(map(torch.equal, averaged, before))
    view = images().views[0]
    expected = method.slow(view).embedding
    for buffer in statistics(method.slow):
        buffer.add_(1)
    torch.testing.assert_close(method.slow(view).embedding, expected)


def test_keys_are_enqueued_after_use_and_in_the_order_of_the_batch():
    method, student, teacher = built()
    start = method.queue.keys.clone()
    method(student, teacher, images(), 1)
    keys = F.normalize(method.teacher_projector(teacher(images().views[2]).embedding), dim=1)
    torch.testing.assert_close(method.queue.keys[:4], keys)
    assert torch.equal(method.queue.keys[4:], start[4:])
    assert method.queue.oldest == 4
    kept = method.queue.keys[1:4].clone()
    method(student, teacher, images(3), 1)  # over the end of its six rows
    assert method.queue.oldest == 1
    assert torch.equal(method.queue.keys[1:4], kept)
    assert not torch.equal(method.queue.keys[0], keys[0])
    assert not torch.equal(method.queue.keys[4:], start[4:])


def test_networks_of_other_widths_train_with_a_random_projector_that_stays():
    method, student, teacher = built(teacher_width=9, teacher_momentum=0.5)
    start = parameters_of(method.teacher_projector)
    for _ in range(3):
        terms = learn(method, student, teacher)
    assert all(term.isfinite() for term in terms.values())
    assert all(map(torch.equal, parameters_of(method.teacher_projector), start))
    assert start[0].shape == (8, 9)
    assert not torch.equal(start[4], parameters_of(method.projector)[4])


def test_what_is_frozen_gets_no_gradient_and_all_the_rest_does():
    method, student, teacher = built(kd_weight=1.0)
    sum(method(student, teacher, images(), 1).values()).backward()
    frozen = (method.slow, method.slow_projector, method.teacher_projector, teacher)
    assert not any(p.requires_grad or p.grad is not None for module in frozen for p in module.parameters())
    trained = (student, method.projector, method.predictor)
    assert all(p.grad is not None for module in trained for p in module.parameters())
    trainable = {id(p) for p in method.parameters() if p.requires_grad}
    assert trainable == {id(p) for module in trained[1:] for p in module.parameters()}  # without the student's


def test_a_batch_of_two_trains_one_of_more_than_the_queue_too_and_one_image_is_batchnorms_own_error():
    method, student, teacher = built(queue_size=3)
    for count in (2, 4):
        assert all(term.isfinite() for term in learn(method, student, teacher, images(count)).values())
    before = method.queue.keys.clone()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        method(student, teacher, images(1), 1)
    assert torch.equal(method.queue.keys, before)


def test_all_weights_zero_train_nothing_and_are_refused():
    with pytest.raises(ValueError, match="all are 0, which trains nothing"):
        METHODS["cocord"](ce_weight=0, contrast_weight=0, prediction_weight=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("kd_temperature", 0),
        ("prediction_weight", -1),
        ("queue_size", 0),
        ("hidden_dim", 0),
        ("dim", 70_000),
        ("predictor_dim", 0),
        ("slow_momentum", 1.1),
        ("teacher_momentum", -0.1),
    ],
)
def test_nonsense_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value}: must lie in"):
        METHODS["cocord"](**{name: value})
