"""ConKD: what its terms are, on which views, and what its weights switch off."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdhelpers.methods import METHODS, Context, supcon_loss
from kdhelpers.methods.logit_standardization import standardized_kd_loss
from kdhelpers.models import Outputs

LABELS = torch.tensor([0, 1, 1, 2])


class Network(nn.Module):
    """Logits and an embedding of the mean colour, so that two views give two outputs."""

    def __init__(self, width, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(width, 3, generator=generator))
        self.classifier = nn.Parameter(torch.randn(3, width, generator=generator))
        self.calls = 0

    def forward(self, view, stop_at=None):
        self.calls += 1
        embedding = view.mean((2, 3)) @ self.weight.T
        return Outputs(embedding @ self.classifier.T, embedding, {})


class Batch:
    views = tuple(torch.randn(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(1)).unbind())
    labels = LABELS


@pytest.fixture
def networks():
    return Network(6, 0), Network(10, 1).requires_grad_(False)


def built(networks, **hyperparameters):
    torch.manual_seed(0)
    method = METHODS["conkd"](**hyperparameters)
    student, teacher = (network(Batch.views[0][:2]) for network in networks)
    method.build(Context(student, teacher, lambda: None, LABELS, 3))
    for network in networks:
        network.calls = 0
    return method


def test_the_terms_are_the_equation(networks):
    student, teacher = networks
    method = built(networks, alpha=0.15, ce_weight=0.5, temperature=3.0, contrast_temperature=0.2)
    terms = method(student, teacher, Batch, 1)
    student_out, teacher_out = ([network(view) for view in Batch.views] for network in networks)
    losses = [standardized_kd_loss(s.logits, t.logits, 3.0) for s, t in zip(student_out, teacher_out, strict=True)]
    torch.testing.assert_close(terms["kd"], sum(losses) / 2)
    embeddings = torch.stack([method.head(outputs.embedding) for outputs in student_out], 1)
    torch.testing.assert_close(terms["supcon"], 0.15 * supcon_loss(embeddings, LABELS, 0.2))
    torch.testing.assert_close(terms["ce"], 0.5 * F.cross_entropy(student_out[0].logits, LABELS))


def test_the_defaults_are_the_published_weights_and_temperatures(networks):
    student, teacher = networks
    method = built(networks)
    terms = method(student, teacher, Batch, 1)
    student_out, teacher_out = ([network(view) for view in Batch.views] for network in networks)
    losses = [standardized_kd_loss(s.logits, t.logits, 2.0) for s, t in zip(student_out, teacher_out, strict=True)]
    torch.testing.assert_close(terms["kd"], sum(losses) / 2)
    embeddings = torch.stack([method.head(outputs.embedding) for outputs in student_out], 1)
    torch.testing.assert_close(terms["supcon"], 0.15 * supcon_loss(embeddings, LABELS, 0.07))


def test_each_network_gets_each_view_once(networks):
    student, teacher = networks
    built(networks)(student, teacher, Batch, 1)
    assert (student.calls, teacher.calls) == (2, 2)


def test_a_weight_of_zero_drops_the_term_and_the_forward_pass(networks):
    student, teacher = networks
    assert set(built(networks)(student, teacher, Batch, 1)) == {"kd", "supcon"}
    method = built(networks, kd_weight=0, ce_weight=1)
    assert set(method(student, teacher, Batch, 1)) == {"ce", "supcon"}
    assert teacher.calls == 0
    assert set(built(networks, alpha=0)(student, teacher, Batch, 1)) == {"kd"}


def test_without_cross_entropy_and_kd_the_classifier_is_left_to_a_probe():
    assert METHODS["conkd"]().trains_classifier
    assert METHODS["conkd"](kd_weight=0, ce_weight=1).trains_classifier
    assert not METHODS["conkd"](kd_weight=0).trains_classifier


def test_all_weights_zero_train_nothing_and_are_refused():
    with pytest.raises(ValueError, match="all are 0, which trains nothing"):
        METHODS["conkd"](alpha=0, kd_weight=0)
