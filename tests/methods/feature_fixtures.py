"""What the tests of methods that compare embeddings or feature maps share."""

import pytest
import torch
import torch.nn.functional as F
from training_fixtures import QUICK, same, weights

from kdhelpers import Run, build_model, fit, load_model
from kdhelpers.methods import METHODS, Context
from kdhelpers.models import FeatureExtractor, Outputs
from kdhelpers.training.teacher import Teacher

LABELS = torch.tensor([0, 1, 2, 3])
HALF = (torch.bfloat16, torch.float16)


class OneView:
    """A batch as the loop makes it."""

    def __init__(self, view, labels=LABELS):
        self.views, self.labels = (view,), labels


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def outputs_of(name, **options):
    """The outputs of an untrained network for two black images."""
    return FeatureExtractor(build_model(name, 10, **options).eval())(torch.zeros(2, 3, 32, 32))


def built(method, student="resnet8", teacher="resnet8x4", **hyperparameters):
    """The method, with what it makes for these two networks."""
    one = METHODS[method](**hyperparameters)
    one.build(Context(outputs_of(student), outputs_of(teacher), None, None, 10))
    return one


def ask(method, student="resnet8", teacher="resnet8x4"):
    """(terms, outputs of the student, outputs of the teacher): of a random batch of four; everything in eval mode."""
    torch.manual_seed(0)
    networks = FeatureExtractor(build_model(student, 10).eval()), Teacher(build_model(teacher, 10))
    batch = OneView(torch.rand(4, 3, 32, 32))
    return method.eval()(*networks, batch, 1), *(network(batch.views[0]) for network in networks)


def terms_of_embeddings(method, student, teacher):
    """The terms of a method that reads embeddings [4, d]; the student's logits are its first five numbers."""
    outputs = Outputs(student[:, :5], student, {}), Outputs(None, teacher, {})
    return method(lambda view: outputs[0], lambda view: outputs[1], OneView(None), 1)


def assert_float32_inside(loss, dtype, scale):
    """A loss of two batches of embeddings in a half type, under autocast: the value of float64, a finite gradient."""
    student, teacher = ((scale * x).to(dtype) for x in (draw(6, 3), draw(6, 4, seed=1)))
    exact = loss(student.double(), teacher.double()).item()
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact, rel=1e-4)
    assert student.grad.isfinite().all()


def ce_of(logits):
    return F.cross_entropy(logits, LABELS).item()


def assert_trains(data, method, precision, *terms, **hyperparameters):
    """Two epochs on the digits: the method's terms fall, and the weight file holds the student alone."""
    fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)
    settings = {"precision": precision, "method": method, "teacher": "resnet8", "hyperparameters": hyperparameters}
    trained = fit(Run(**QUICK | settings), data)
    first, second = trained.history
    assert {name for name in first if name in (*terms, "ce")} == {*terms, "ce"}
    for term in terms:
        assert 0 < second[term] < first[term], term
    assert set(weights(trained)) == set(build_model("resnet8", 10).state_dict())
    assert same(load_model(trained.name).state_dict(), weights(trained))
