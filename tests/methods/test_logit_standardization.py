"""Logit standardisation against its definition in Python floats, its invariances, and logits without a spread."""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdhelpers.methods import METHODS, dkd_loss, kd_loss
from kdhelpers.methods.logit_standardization import standardize, standardized_kd_loss
from kdhelpers.models import Outputs


def logits(batch=5, classes=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, classes, generator=generator, dtype=dtype).mul(3).unbind()


def test_each_row_is_centred_and_divided_by_its_unbiased_deviation():
    z, _ = logits()
    expected = [[(x - statistics.mean(row)) / (statistics.stdev(row) + 1e-7) for x in row] for row in z.tolist()]
    torch.testing.assert_close(standardize(z), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_the_loss_is_torchs_divergence_of_the_standardised_logits(temperature):
    student, teacher = logits()
    inputs = [(z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) / temperature for z in (student, teacher)]
    expected = F.kl_div(inputs[0].log_softmax(1), inputs[1].softmax(1), reduction="batchmean") * temperature**2
    assert standardized_kd_loss(student, teacher, temperature).item() == pytest.approx(expected.item(), rel=1e-12)


def test_positive_affine_maps_of_either_networks_logits_change_nothing():
    student, teacher = logits()
    moved = student * torch.tensor([[0.1], [1.0], [3.0], [50.0], [7.0]]) + torch.arange(5.0)[:, None]
    expected = standardized_kd_loss(student, teacher).item()
    assert standardized_kd_loss(moved, teacher * 20 - 4).item() == pytest.approx(expected, rel=1e-5)
    assert standardized_kd_loss(-student, teacher).item() != pytest.approx(expected, rel=0.01)


def test_it_is_zero_exactly_where_one_is_a_positive_affine_map_of_the_other():
    student, teacher = logits()
    assert standardized_kd_loss(teacher * 5 + 1, teacher).item() == pytest.approx(0, abs=1e-12)
    assert standardized_kd_loss(student, teacher).item() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_constant_logits_stay_finite_with_a_finite_gradient(dtype):
    _, teacher = logits()
    assert torch.equal(standardize(torch.full((5, 7), 3.0, dtype=dtype)), torch.zeros(5, 7))
    student = torch.full((5, 7), 1000.1, dtype=dtype, requires_grad=True)  # a mean that float32 rounds
    torch.testing.assert_close(standardize(student).softmax(1), torch.full((5, 7), 1 / 7), check_dtype=False)
    loss = standardized_kd_loss(student, teacher.to(dtype))
    loss.backward()
    assert math.isfinite(loss.item())
    assert student.grad.isfinite().all()
    assert math.isfinite(standardized_kd_loss(teacher, torch.zeros_like(teacher)).item())


@pytest.mark.parametrize(("classes", "temperature", "sharpest"), [(10, 2.0, 0.35), (10, 1.0, 0.72), (100, 2.0, 0.60)])
def test_a_target_is_never_sharper_than_the_number_of_classes_allows(classes, temperature, sharpest):
    """The largest standardised margin is sqrt(C), of a one-hot row."""
    one_hot = torch.eye(classes, dtype=torch.float64) * 1e4
    peak = (standardize(one_hot) / temperature).softmax(1).diagonal()
    bound = math.exp(math.sqrt(classes) / temperature)
    torch.testing.assert_close(peak, torch.full_like(peak, bound / (bound + classes - 1)))
    assert peak[0].item() == pytest.approx(sharpest, abs=0.006)
    many = torch.randn(1000, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp() * 100
    assert (standardize(many) / temperature).softmax(1).max() <= peak[0] + 1e-12


def test_gradcheck_in_float64():
    student, teacher = logits()
    assert torch.autograd.gradcheck(lambda s: standardized_kd_loss(s, teacher), student.requires_grad_())


def test_the_gradient_leaves_scale_and_offset_of_the_logits_alone():
    """An affine map changes nothing, so no step is taken along (1, ..., 1) or along the centred logits themselves."""
    student, teacher = logits()
    standardized_kd_loss(student.requires_grad_(), teacher).backward()
    centred = student.detach() - student.detach().mean(1, keepdim=True)
    torch.testing.assert_close(student.grad.sum(1), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close((student.grad * centred).sum(1), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-6)


def test_half_types_are_computed_in_float32():
    student, teacher = logits(dtype=torch.bfloat16)
    assert standardize(student).dtype == torch.float32
    assert standardized_kd_loss(student, teacher) == standardized_kd_loss(student.float(), teacher.float())


def test_one_class_has_no_spread_and_is_refused():
    with pytest.raises(ValueError, match=r"logits \(4, 1\): standardising needs two classes or more"):
        standardize(torch.zeros(4, 1))


class Fixed(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, view, stop_at=None):
        return Outputs(self.values, None, {})


class Batch:
    views = (torch.zeros(5, 3, 4, 4),)
    labels = torch.tensor([0, 6, 2, 2, 1])


def terms(name, epoch=1, **hyperparameters):
    student, teacher = (Fixed(values) for values in logits())
    return METHODS[name](**hyperparameters)(student, teacher, Batch, epoch)


def test_the_method_adds_cross_entropy_and_the_weighted_loss():
    student, teacher = logits()
    found = terms("lm_standardized")
    torch.testing.assert_close(found["kd"], 9.0 * standardized_kd_loss(student, teacher, 2.0))
    torch.testing.assert_close(found["ce"], 0.1 * F.cross_entropy(student, Batch.labels))


@pytest.mark.parametrize(("given", "weights"), [({}, (9, 72)), ({"alpha": 3, "beta": 5}, (3, 5))])
def test_decoupled_matching_takes_the_standardised_logits_at_nine_times_the_weights(given, weights):
    student, teacher = logits()
    found = terms("dkd_standardized", warmup_epochs=0, **given)
    expected = dkd_loss(standardize(student), standardize(teacher), Batch.labels, *weights, 2.0)
    torch.testing.assert_close(found["tckd"] + found["nckd"], expected)


def test_of_standardised_logits_plain_matching_is_the_same():
    student, teacher = (standardize(values) for values in logits())
    assert standardized_kd_loss(student, teacher).item() == pytest.approx(
        kd_loss(student, teacher, 2.0).item(), rel=1e-6
    )
