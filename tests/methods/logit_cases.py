"""What the tests of the logit losses share: random logits, a batch, hard cases, a short training."""

import math

import pytest
import torch
from training_fixtures import QUICK

from kdhelpers import Run, fit
from kdhelpers.models import Outputs

# float16 ends at 65504; float32 has no probability below 1e-45, so both gaps leave softmax at 0 and 1.
hard_cases = pytest.mark.parametrize(
    ("dtype", "gap"), [(torch.float32, 2000.0), (torch.bfloat16, 1e4), (torch.float16, 1e4)]
)


def case(batch=6, classes=5, dtype=torch.float64):
    """Student's and teacher's logits, and labels that are each class: first, last, between."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, batch, classes, generator=generator, dtype=dtype).mul(3).unbind()
    return student, teacher, torch.arange(batch) % classes


def softmax(row, temperature=1.0):
    """Of a list of Python floats."""
    powers = [math.exp(z / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def at_a_gap(loss, dtype, gap):
    """The loss (student, teacher, labels) and its gradient at logits `gap` apart: finite, and the value of float64.

    The label is on top, at the bottom and between, in the student and in the teacher.
    """
    rows = torch.tensor([[gap, 0.0, -gap, 3.0], [-gap, 5.0, gap, 0.0], [1.0, 2.0, gap, 0.0], [gap, 2.0, 1.0, 0.0]])
    student, teacher = rows.to(dtype).requires_grad_(), rows.roll(1, 0).to(dtype)
    found = []
    for labels in (torch.full((4,), label) for label in range(4)):
        value = loss(student, teacher, labels)
        (gradient,) = torch.autograd.grad(value, student)
        exact = loss(student.detach().double(), teacher.double(), labels)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact.item(), rel=1e-4, abs=1e-4)
        assert gradient.isfinite().all()
        found.append(value.item())
    return found


class OneView:
    """A batch as the loop makes it, with the 'images' being logits."""

    def __init__(self, view, labels):
        self.views, self.labels = (view,), labels


def terms_of(method, epoch=1):
    student, teacher, labels = case(dtype=torch.float32)
    return method(
        lambda view: Outputs(view, None, {}), lambda view: Outputs(teacher, None, {}), OneView(student, labels), epoch
    )


def train(name, data, precision):
    """The history of two epochs on the digits, with a teacher of one epoch. In fp16 the loss is scaled."""
    fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)
    return fit(Run(**QUICK | {"precision": precision, "lr": 0.005}, method=name, teacher="resnet8"), data).history
