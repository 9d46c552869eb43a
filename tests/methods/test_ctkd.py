"""The learned temperature: its range, its reversed gradient, its curriculum, and who trains it."""

import math

import pytest
import torch
import torch.nn.functional as F
from training_fixtures import QUICK, train_one_epoch, training_of

from kdhelpers import Run
from kdhelpers.display.progress import loss_terms
from kdhelpers.methods import METHODS, ctkd_strength, kd_loss, learned_temperature
from kdhelpers.methods.ctkd import CurriculumTemperature
from kdhelpers.models import Outputs, build_model
from kdhelpers.training.teacher import Teacher


def case(batch=5, classes=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, batch, classes, generator=generator, dtype=dtype).mul(3).unbind()


def parameter(value=1.0, dtype=torch.float64):
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def naive_kd(student, teacher, temperature):
    total = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        e_s, e_t = ([math.exp(z / temperature) for z in row] for row in (z_s, z_t))
        p_s, p_t = [e / sum(e_s) for e in e_s], [e / sum(e_t) for e in e_t]
        total += sum(t * math.log(t / s) for s, t in zip(p_s, p_t, strict=True))
    return temperature**2 * total / len(student)


def test_kd_loss_takes_a_tensor_as_temperature_with_gradient():
    student, teacher = case()
    temperature = parameter(3.0)
    loss = kd_loss(student, teacher, temperature)
    assert loss.item() == pytest.approx(naive_kd(student, teacher, 3.0), rel=1e-10)
    loss.backward()
    slope = (naive_kd(student, teacher, 3.001) - naive_kd(student, teacher, 2.999)) / 0.002
    assert temperature.grad.item() == pytest.approx(slope, rel=1e-5)
    both = student.clone().requires_grad_(), temperature
    assert torch.autograd.gradcheck(lambda z, t: kd_loss(z, teacher, t), both)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gaps_of_ten_thousand_stay_finite_at_a_learned_temperature(dtype):
    student = torch.tensor([[1e4, 0.0, -1e4, 3.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 0.0, 1e4, 5.0]], dtype=dtype)
    u = parameter(dtype=torch.float32)
    loss = kd_loss(student, teacher, learned_temperature(u, 1.0))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert u.grad.isfinite()


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("value", [-60.0, -1.0, 1.0, 60.0])
def test_the_temperature_is_exact_and_its_gradient_reversed_and_scaled(strength, value):
    u = parameter(value)
    temperature = learned_temperature(u, strength, low=2.0, span=5.0)
    share = 1 / (1 + math.exp(-value))
    assert temperature.shape == ()
    assert temperature.item() == pytest.approx(2 + 5 * share, rel=1e-15)
    temperature.backward()
    assert u.grad.item() == pytest.approx(-strength * 5 * share * (1 - share), rel=1e-6, abs=1e-15)


def test_it_starts_at_15_6():
    assert learned_temperature(torch.ones(()), 1.0).item() == pytest.approx(15.62, abs=0.005)


def test_the_strength_rises_as_a_cosine_to_one_and_stays():
    assert [ctkd_strength(epoch) for epoch in (5, 10, 11, 240)] == [pytest.approx(0.5), 1, 1, 1]
    assert ctkd_strength(1) == pytest.approx((1 - math.cos(0.1 * math.pi)) / 2)
    assert ctkd_strength(1, 2) == pytest.approx(0.5)
    assert ctkd_strength(1, 1) == 1


def built(**hyperparameters):
    method = CurriculumTemperature(**hyperparameters)
    method.build(None)
    return method


def terms_of(method, epoch=1):
    class Batch:
        views, labels = (torch.zeros(5, 3, 4, 4),), torch.tensor([0, 6, 2, 2, 1])

    networks = [lambda view, values=values: Outputs(values, None, {}) for values in case()]
    return method(*networks, Batch, epoch), Batch.labels


def test_the_terms_are_weighted_and_carry_the_reversed_gradient():
    student, teacher = case()
    method = built(ce_weight=0.3, kd_weight=0.6, low=2.0, span=10.0, ramp_epochs=4)
    terms, labels = terms_of(method, epoch=2)
    share = 1 / (1 + math.exp(-1))
    temperature = 2 + 10 * share
    assert terms["ce"].item() == pytest.approx(0.3 * F.cross_entropy(student, labels).item())
    assert terms["kd"].item() == pytest.approx(0.6 * naive_kd(student, teacher, temperature), rel=1e-6)
    terms["kd"].backward()
    slope = (naive_kd(student, teacher, temperature + 1e-3) - naive_kd(student, teacher, temperature - 1e-3)) / 2e-3
    expected = -0.5 * 0.6 * slope * 10 * share * (1 - share)  # strength 0.5 in epoch 2 of 4
    assert method.parameter.grad.item() == pytest.approx(expected, rel=1e-4)


def test_the_defaults_are_the_papers():
    method = CurriculumTemperature()
    found = (method.ce_weight, method.kd_weight, method.low, method.span, method.ramp_epochs)
    assert found == (0.1, 0.9, 1.0, 20.0, 10)


@pytest.mark.parametrize("name", ["low", "span", "ramp_epochs", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        CurriculumTemperature(**{name: -1})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion"])
def test_the_students_optimiser_trains_it_up_the_loss(root, data, optimizer):
    torch.manual_seed(0)
    settings = {"method": "ctkd", "teacher": "resnet8", "hyperparameters": {"ramp_epochs": 1}}
    run = Run(**QUICK, **settings, optimizer=optimizer, weight_decay=0.0)
    training = training_of(run, data, Teacher(build_model("resnet8", 10)))
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    assert len(training.optimizer.param_groups) == 1  # of one rate and weight decay
    assert [training.method.parameter is p for p in parameters].count(True) == 1
    training.begin_epoch()
    batch = next(iter(training.batches.epoch(1)))
    before = training.method.parameter.item()
    view = batch.views[0]
    with torch.no_grad():
        logits = [network(view).logits.double() for network in (training.module.student, training.module.teacher)]
        losses = [kd_loss(*logits, 1 + 20 * torch.sigmoid(torch.tensor(u).double())).item() for u in (0.99, 1.01)]
    training.step(batch)
    moved = training.method.parameter.item() - before
    assert moved * (losses[1] - losses[0]) > 0


def test_the_history_holds_the_temperature_of_each_epoch_and_no_loss_contains_it(root, data):
    run = Run(**QUICK, method="ctkd", teacher="resnet8", hyperparameters={"ramp_epochs": 1})
    training = training_of(run, data, Teacher(build_model("resnet8", 10)))
    training.method.parameter.data.fill_(-2.0)
    train_one_epoch(training)
    (row,) = training.history
    assert row["temperature"] == pytest.approx(1 + 20 * training.method.parameter.sigmoid().item(), rel=1e-6)
    assert 2 < row["temperature"] < 5
    assert row["loss"] == pytest.approx(row["ce"] + row["kd"])
    assert set(loss_terms(row)) == {"ce", "kd"}


def test_it_is_in_the_checkpoint_but_not_in_the_students_weights(root, data):
    run = Run(**QUICK, method="ctkd", teacher="resnet8")
    training = training_of(run, data, Teacher(build_model("resnet8", 10)))
    train_one_epoch(training)
    assert training.state()["method"]["parameter"] == training.method.parameter
    assert training.state()["method"]["parameter"] != 1
    assert set(training.state()["network"]) == set(build_model("resnet8", 10).state_dict())


def test_it_is_registered():
    assert METHODS["ctkd"] is CurriculumTemperature
