"""The loop: equal to a plain one, the method's contract, precision."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_fixtures import QUICK, same, train_one_epoch, training_of, weights

from kdhelpers import MODELS, Architecture, Run, artifacts, build_model, fit
from kdhelpers.methods import METHODS, Method
from kdhelpers.training import student


def test_fit_equals_a_plain_loop_on_the_same_batches(root, data):
    """The one loop against the ten lines it stands for (Nesterov SGD, cosine per step, cross-entropy)."""
    run = Run(**QUICK, optimizer_options={"nesterov": True}, selection="last")
    trained = fit(run, data)
    training = training_of(run, data)
    network = training.network
    optimizer = torch.optim.SGD(network.parameters(), 0.02, 0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    for epoch in (1, 2):
        network.train()
        for batch in training.batches.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(network(batch.views[0]), batch.labels).backward()
            optimizer.step()
            schedule.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(weights(trained)[name], value, rtol=1e-4, atol=1e-5)


class ManyParts(Method):
    """Uses all that the contract offers: views, a projector, a bank, a slow student, a first stage."""

    needs_teacher = False
    views = 3

    def build(self, context):
        self.projector = torch.nn.Linear(context.student_outputs.embedding.shape[1], 4)
        self.register_buffer("bank", torch.zeros(len(context.labels), 4))

    def forward(self, student, teacher, batch, epoch):
        if epoch == 1:
            return {"hint": student(batch.views[2], stop_at="layer2").feature_maps["layer2"].square().mean()}
        projected = self.projector(student(batch.views[1]).embedding)
        self.bank[batch.index] = projected.detach().float()
        return {
            "ce": projected.float().square().mean()
            + F.cross_entropy(student(batch.views[0]).logits.float(), batch.labels)
        }


def test_a_method_with_views_bank_projector_and_two_stages_fits_the_contract(root, data, monkeypatch):
    monkeypatch.setitem(METHODS, "si", ManyParts)
    run = Run(**QUICK)
    training = training_of(run, data)
    start = {name: value.clone() for name, value in training.network.state_dict().items()}
    train_one_epoch(training)
    now = training.network.state_dict()
    upper = [name for name in start if name.startswith(("layer3", "fc"))]
    assert all(torch.equal(start[name], now[name]) for name in upper)
    assert not torch.equal(start["layer2.0.conv1.weight"], now["layer2.0.conv1.weight"])
    projector = training.method.projector.weight.clone()
    train_one_epoch(training)
    assert not torch.equal(projector, training.method.projector.weight)
    assert (training.method.bank.norm(dim=1) > 0).all()
    assert not [name for name in training.network.state_dict() if "projector" in name]
    copy = training_of(run, data)
    copy.restore(training.state())
    assert torch.equal(copy.method.bank, training.method.bank)


class Stacked(Method):
    """Both views in one forward, as contrastive methods do, and a slow student made from the context."""

    needs_teacher = False
    views = 2

    def build(self, context):
        self.slow = context.copy_student()

    def forward(self, student, teacher, batch, epoch):
        assert not any(parameter.requires_grad for parameter in self.slow.parameters())
        embedding = student(torch.cat(batch.views)).embedding.float()
        with torch.no_grad():
            target = self.slow(batch.views[0]).embedding.float()
        return {"pull": (embedding[: len(target)] - target).square().mean() + embedding.square().mean()}


def test_views_in_one_forward_and_a_slow_student(root, data, monkeypatch):
    monkeypatch.setitem(METHODS, "si", Stacked)
    trained = fit(Run(**QUICK), data)
    assert trained.history[-1]["pull"] < trained.history[0]["pull"]
    assert 0 < trained.history[0]["train_top1_pct"] < 30  # by chance: the first rows are the first view's


def test_two_methods_with_one_seed_start_alike_and_see_the_same_views(root, data):
    fit(Run(**QUICK, role="teacher"), data)
    from kdhelpers.training.teacher import load_teacher

    teacher = load_teacher("teacher_resnet8_digits")
    alone = training_of(Run(**QUICK), data)
    taught = training_of(Run(**QUICK, method="lm", teacher="resnet8"), data, teacher)
    assert same(alone.network.state_dict(), taught.network.state_dict())
    for a, b in zip(alone.batches.epoch(2), taught.batches.epoch(2), strict=True):
        assert torch.equal(a.views[0], b.views[0])


@pytest.mark.parametrize(
    ("method", "hyperparameters", "searches"),
    [
        ("si", {}, False),
        ("lm", {}, False),
        ("crd", {"negatives": 60}, True),  # kd_weight is 0
        ("supcon", {}, True),
        ("hints", {"hint_epochs": 1}, True),
        ("supcrd", {"lam": 0.0}, True),
    ],
)
def test_ranks_search_for_unused_parameters_if_there_may_be_some(monkeypatch, method, hyperparameters, searches):
    taught = {"teacher": "resnet8"} if METHODS[method].needs_teacher else {}
    run = Run(**QUICK, method=method, hyperparameters=hyperparameters, **taught, selection="last")
    monkeypatch.setattr(student, "DistributedDataParallel", lambda module, devices, **options: options)
    for network, found in ((build_model("resnet8", 10), searches), (nn.Linear(2, 2), True)):  # the second is a user's
        training = SimpleNamespace(run=run, method=run.build_method(), network=network, device=torch.device("cpu"))
        options = student.Training._over_ranks(training, None)
        assert options == {student.SYNC: False, "find_unused_parameters": found}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_precision_learns(root, data, precision):
    trained = fit(Run(**QUICK | {"precision": precision, "epochs": 3, "lr": 0.05}), data)
    assert trained.history[-1]["ce"] < trained.history[0]["ce"]
    assert trained.record["environment"]["precision"] == precision


def test_a_network_with_another_number_of_logits_is_refused(root, data, monkeypatch):
    def build(num_classes):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes + 2))

    monkeypatch.setitem(MODELS, "wide", Architecture(build, {"pool": "0"}, "2"))
    with pytest.raises(ValueError, match=r"model = wide: outputs logits \(2, 12\) for two images; must be \(2, 10\)"):
        training_of(Run(**QUICK | {"model": "wide"}), data)


class NotANumber(Method):
    """A finite loss whose second term has a gradient that is not, in every step or in the first ones."""

    needs_teacher = False

    def forward(self, student, teacher, batch, epoch):
        logits = student(batch.views[0]).logits.float()
        return {"ce": F.cross_entropy(logits, batch.labels), "root": (logits.mean() * 0).sqrt()}


def test_an_epoch_of_skipped_steps_in_fp16_stops_with_the_terms_name(root, data, monkeypatch):
    monkeypatch.setitem(METHODS, "si", NotANumber)
    run = Run(**{**QUICK, "precision": "fp16"})
    with pytest.raises(
        FloatingPointError, match="epoch 1: all 4 steps were skipped: the gradient of root is not finite"
    ):
        fit(run, data)
    assert artifacts.load_record(run.artifact_name)["status"] == "failed"


def test_skipped_steps_of_fp16_are_counted(root, data):
    training = training_of(Run(**{**QUICK, "precision": "fp16"}), data)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # too large for the first steps
    before = {name: value.clone() for name, value in training.network.named_parameters()}
    train_one_epoch(training)
    assert training.history[0]["skipped_steps"] == 4
    assert same(before, dict(training.network.named_parameters()))
    training.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    train_one_epoch(training)
    assert training.history[-1]["skipped_steps"] == 0
    assert not same(before, dict(training.network.named_parameters()))
    other = training_of(Run(**QUICK), data)
    train_one_epoch(other)
    assert "skipped_steps" not in other.history[0]
