import math

import pytest
import torch
import torch.nn.functional as F

from kdhelpers.methods.independent import IndependentStudent
from kdhelpers.methods.label_smoothing import LabelSmoothing, label_smoothing_loss
from kdhelpers.models import Outputs


def naive(logits, labels, smoothing):
    """The definition, in Python floats: -mean_b sum_c ((1 - e) [c = y] + e / C) log p_c."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        norm = sum(map(math.exp, row))
        for c, z in enumerate(row):
            q = (1 - smoothing) * (c == label) + smoothing / len(row)
            total -= q * math.log(math.exp(z) / norm)
    return total / len(labels)


def batch_of_logits(batch=6, classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, generator=generator, dtype=dtype).mul(3)
    return logits, torch.randint(classes, (batch,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_equals_the_definition(smoothing):
    logits, labels = batch_of_logits()
    expected = naive(logits, labels, smoothing)
    assert label_smoothing_loss(logits, labels, smoothing).item() == pytest.approx(expected, rel=1e-12)


def test_the_doubt_is_spread_over_all_classes_the_labels_own_included():
    """The loss is least, and equal to the entropy of q, at logits log q; the gradient is (p - q) / B."""
    q = torch.tensor([[0.02, 0.92, 0.02, 0.02, 0.02]], dtype=torch.float64)
    logits = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    loss = label_smoothing_loss(logits, torch.tensor([1]), 0.1)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], 0.2 - q)
    assert label_smoothing_loss(q.log(), torch.tensor([1]), 0.1).item() == pytest.approx(-(q * q.log()).sum().item())


def test_gradcheck_in_float64():
    logits, labels = batch_of_logits()
    assert torch.autograd.gradcheck(lambda z: label_smoothing_loss(z, labels), logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saturated_logits_stay_finite(dtype):
    logits = torch.tensor([[3e4, -3e4, 0.0]], dtype=dtype, requires_grad=True)
    loss = label_smoothing_loss(logits, torch.tensor([1]), 0.3)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.8 * 6e4 + 0.1 * 3e4, rel=0.01)
    assert logits.grad.isfinite().all()


def test_one_sample_one_class():
    assert label_smoothing_loss(torch.tensor([[2.0]]), torch.tensor([0])).item() == 0


class OneView:
    """A batch as the loop makes it, with the 'images' being logits."""

    def __init__(self, view, labels):
        self.views, self.labels = (view,), labels


def as_network(view):
    return Outputs(view, None, {})


def test_smoothing_zero_is_cross_entropy_bit_for_bit_and_no_teacher_is_asked():
    batch = OneView(*batch_of_logits(dtype=torch.float32))
    smoothed = LabelSmoothing(smoothing=0)(as_network, None, batch, 1)
    alone = IndependentStudent()(as_network, None, batch, 1)
    assert set(smoothed) == {"ce"}
    assert torch.equal(smoothed["ce"], alone["ce"])
    assert not LabelSmoothing.needs_teacher


def test_the_term_uses_the_methods_smoothing():
    batch = OneView(*batch_of_logits(dtype=torch.float32))
    term = LabelSmoothing(smoothing=0.3)(as_network, None, batch, 1)["ce"]
    assert torch.equal(term, F.cross_entropy(batch.views[0], batch.labels, label_smoothing=0.3))


@pytest.mark.parametrize("smoothing", [-0.1, 1.1])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=f"smoothing = {smoothing}"):
        LabelSmoothing(smoothing=smoothing)
    with pytest.raises(ValueError, match=f"smoothing = {smoothing}"):
        label_smoothing_loss(torch.zeros(1, 2), torch.tensor([0]), smoothing)
