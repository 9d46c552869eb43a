"""Supervised contrast against loops over the paper's sums, its limits, and the anchors that have no positive."""

import math

import pytest
import torch
import torch.nn.functional as F

from kdhelpers.methods import supcon_loss

FORMS = pytest.mark.parametrize("form", ["in", "out"])


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def naive(embeddings, labels, temperature, form):
    z = [(view, y) for image, y in zip(embeddings.tolist(), labels.tolist(), strict=True) for view in image]
    losses = []
    for i, (anchor, y) in enumerate(z):
        score = {a: sum(map(float.__mul__, anchor, z[a][0])) / temperature for a in range(len(z)) if a != i}
        total = sum(math.exp(s) for s in score.values())
        positives = [score[p] for p in score if z[p][1] == y]
        if not positives:
            continue
        if form == "out":
            losses.append(-sum(s - math.log(total) for s in positives) / len(positives))
        else:
            losses.append(-math.log(sum(map(math.exp, positives)) / len(positives) / total))
    return sum(losses) / len(losses) if losses else 0.0


@FORMS
@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_it_is_the_loop(form, temperature, views):
    labels = torch.tensor([0, 1, 0, 2, 1])  # class 2 has one image: no positive where there is one view
    found = supcon_loss(unit(5, views, 4), labels, temperature, form)
    assert found.item() == pytest.approx(naive(unit(5, views, 4), labels, temperature, form))


@FORMS
def test_without_labels_every_image_is_its_own_class(form):
    embeddings = unit(4, 2, 3)
    assert torch.equal(supcon_loss(embeddings, None, 0.2, form), supcon_loss(embeddings, torch.arange(4), 0.2, form))


@FORMS
def test_embeddings_that_are_all_equal_give_log_of_the_others(form):
    assert supcon_loss(unit(1, 1, 4).expand(5, 2, 4), torch.zeros(5).long(), 0.07, form).item() == pytest.approx(
        math.log(9)
    )


@FORMS
def test_no_positive_at_all_gives_zero_and_a_gradient_of_zero(form):
    embeddings = unit(3, 1, 4).requires_grad_()
    loss = supcon_loss(embeddings, torch.arange(3), 0.07, form)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@FORMS
def test_the_gradient_is_the_numerical_one_also_with_anchors_left_out(form):
    labels = torch.tensor([0, 1, 0])
    assert torch.autograd.gradcheck(lambda e: supcon_loss(e, labels, 0.2, form), (unit(3, 1, 4).requires_grad_(),))
    assert torch.autograd.gradcheck(lambda e: supcon_loss(e, labels, 0.2, form), (unit(3, 2, 4).requires_grad_(),))


@FORMS
@pytest.mark.parametrize("labels", [torch.zeros(4).long(), torch.arange(4)])
def test_a_tiny_temperature_and_bf16_stay_finite(form, labels):
    embeddings = unit(4, 2, 8).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = supcon_loss(embeddings, labels, 1e-3, form)
    loss.backward()
    assert loss.dtype is torch.float32
    assert loss.isfinite()
    assert embeddings.grad.isfinite().all()


def test_wrong_shapes_and_forms_are_named():
    with pytest.raises(ValueError, match=r"embeddings \(4, 3\), labels \(4,\): must be embeddings \[B, V, d\]"):
        supcon_loss(unit(4, 3), torch.zeros(4).long())
    with pytest.raises(ValueError, match=r"labels \(3,\)"):
        supcon_loss(unit(4, 2, 3), torch.zeros(3).long())
    with pytest.raises(ValueError, match="form = both: must be in or out"):
        supcon_loss(unit(4, 2, 3), torch.zeros(4).long(), form="both")
