"""CRD against the published formula written out as loops, and what must hold of banks, normalisers and draws."""

import math

import pytest
import torch
import torch.nn.functional as F
from training_fixtures import QUICK, Recorder, same, weights

from kdhelpers import METHODS, Run, artifacts, fit
from kdhelpers.data import Batch
from kdhelpers.methods import Context, crd_loss, kd_loss
from kdhelpers.methods.crd import contrast
from kdhelpers.models import Outputs

EPSILON = 1e-7


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def problem(batch=3, rows=11, dim=4, negatives=5):
    """Embeddings, banks, positives and negatives without repetition."""
    index = torch.randperm(rows, generator=torch.Generator().manual_seed(1))[:batch]
    others = [[j for j in range(rows) if j != i][:negatives] for i in index.tolist()]
    embeddings, banks = (unit(batch, dim, seed=2), unit(batch, dim, seed=3)), (unit(rows, dim), unit(rows, dim, seed=4))
    return *embeddings, *banks, index, torch.tensor(others)


def one_direction(embedding, bank, index, negatives, temperature, z):
    """Published code's criterion, one score at a time."""
    rows, k, total = len(bank), negatives.shape[1], 0.0
    for g, i, others in zip(embedding.tolist(), index.tolist(), negatives.tolist(), strict=True):
        score = {j: math.exp(sum(map(float.__mul__, g, bank[j].tolist())) / temperature) / z for j in [i, *others]}
        total -= math.log(score[i] / (score[i] + k / rows + EPSILON))
        total -= sum(math.log(k / rows / (score[j] + k / rows + EPSILON)) for j in others)
    return total / len(embedding)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_it_is_the_published_criterion_in_both_directions(temperature):
    student, teacher, student_bank, teacher_bank, index, negatives = problem()
    expected = one_direction(student, teacher_bank, index, negatives, temperature, 40.0)
    expected += one_direction(teacher, student_bank, index, negatives, temperature, 70.0)
    found = crd_loss(*problem(), temperature, student_normalizer=40.0, teacher_normalizer=70.0)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_on_a_bank_of_two_rows_it_has_a_closed_form():
    """One positive at cosine 1, one negative at cosine -1, N = 2, K = 1, Z = 2: P = e^{+-1/T} / 2, K/N = 1/2."""
    embedding, bank = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()
    index, negatives, t = torch.tensor([0]), torch.tensor([[1]]), 0.5
    closed = math.log1p(math.exp(-1 / t)) + math.log1p(math.exp(-1 / t))
    found = crd_loss(embedding, embedding, bank, bank, index, negatives, t, 2.0, 2.0)
    assert found.item() == pytest.approx(2 * closed, abs=1e-6)  # the published 1e-7 moves it by less


def test_without_a_normaliser_it_is_n_times_the_batchs_mean_score():
    student, teacher, student_bank, teacher_bank, index, negatives = problem()
    columns = torch.cat([index[:, None], negatives], 1)
    scores = torch.einsum("bd,bkd->bk", student, teacher_bank[columns])
    loss, own = contrast(student, teacher_bank, columns, 0.07)
    assert own.item() == pytest.approx(len(teacher_bank) * (scores / 0.07).exp().mean().item())
    assert loss.item() == pytest.approx(contrast(student, teacher_bank, columns, 0.07, own)[0].item())


def test_the_analytic_gradient_is_the_numerical_one():
    student, teacher, *rest = problem()
    inputs = (student.requires_grad_(), teacher.requires_grad_())
    assert torch.autograd.gradcheck(lambda s, t: crd_loss(s, t, *rest, 0.2, 40.0, 70.0), inputs)


def test_repeated_negatives_count_as_often_as_they_are_drawn():
    student, teacher, student_bank, teacher_bank, index, negatives = problem()
    negatives = negatives[:, [0, 0, 1]]
    inputs = (student.requires_grad_(), teacher.requires_grad_())
    expected = one_direction(student, teacher_bank, index, negatives, 0.1, 40.0)
    expected += one_direction(teacher, student_bank, index, negatives, 0.1, 40.0)
    arguments = (student_bank, teacher_bank, index, negatives, 0.1, 40.0, 40.0)
    assert crd_loss(*inputs, *arguments).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda s, t: crd_loss(s, t, *arguments), inputs)


def test_float32_gradient_is_within_1e_5_of_float64():
    doubles = problem(batch=16, rows=2000, dim=128, negatives=600)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        student = doubles[0].to(dtype).detach().requires_grad_()
        rest = [value.to(dtype) if value.is_floating_point() else value for value in doubles[1:]]
        crd_loss(student, *rest, 0.07, 2000.0, 2000.0).backward()
        gradients.append(student.grad.double())
    assert (gradients[1] - gradients[0]).norm() <= 1e-5 * gradients[0].norm()


@pytest.mark.parametrize("similarity", [1.0, -1.0])
def test_saturated_scores_stay_finite(similarity):
    embedding = F.normalize(torch.ones(2, 8), dim=1).requires_grad_()
    bank = similarity * F.normalize(torch.ones(5, 8), dim=1)
    arguments = (bank, bank, torch.tensor([0, 1]), torch.tensor([[2, 3, 4]] * 2))
    loss = crd_loss(embedding, embedding, *arguments, 0.02, 1e-20, 1e20)
    loss.backward()
    assert loss.isfinite()
    assert embedding.grad.isfinite().all()


def test_under_bf16_autocast_the_loss_keeps_its_third_digit():
    student, teacher, *rest = (v.float() if v.is_floating_point() else v for v in problem(16, 2000, 128, 600))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = crd_loss(student, teacher, *rest, 0.07, 2000.0, 2000.0)
    assert rounded.dtype is torch.float32
    assert rounded.item() == pytest.approx(crd_loss(student, teacher, *rest, 0.07, 2000.0, 2000.0).item(), rel=2e-3)


def test_shapes_that_do_not_fit_are_named():
    student, teacher, student_bank, teacher_bank, index, negatives = problem()
    with pytest.raises(ValueError, match=r"teacher_embedding \(3, 3\), .*: must be student_embedding \[B, d\]"):
        crd_loss(student, teacher[:, :3], student_bank, teacher_bank, index, negatives)
    with pytest.raises(ValueError, match=r"teacher_bank \(10, 4\), .*: must be .* teacher_bank \[N, d\]"):
        crd_loss(student, teacher, student_bank, teacher_bank[1:], index, negatives)
    with pytest.raises(ValueError, match="K of at least 1"):
        crd_loss(student, teacher, student_bank, teacher_bank, index, negatives[:, :0])


class Look:
    """Stands for a network: the embedding is a parameter, the logits follow from it."""

    def __init__(self, count, width=6, classes=3):
        self.embedding = torch.nn.Parameter(torch.randn(count, width))
        self.classes = classes

    def __call__(self, view):
        return Outputs(self.embedding[:, : self.classes], self.embedding, {})


def built(labels, batch=2, classes=3, **hyperparameters):
    """A CRD method over those labels with a student and a teacher of `batch` images."""
    torch.manual_seed(0)
    student, teacher = Look(batch), Look(batch, width=9)
    method = METHODS["crd"](**{"negatives": 4, "dim": 5, **hyperparameters})
    method.build(Context(student(None), teacher(None), None, labels, classes))
    return method, student, teacher


def batch_of(labels, index):
    return Batch((None,), labels[index], index, {})


LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2])  # unequal classes


def test_used_rows_move_half_way_and_stay_of_unit_length_and_others_stay():
    method, student, teacher = built(LABELS)
    before = method.bank.student.clone(), method.bank.teacher.clone()
    index = torch.tensor([1, 6])
    method(student, teacher, batch_of(LABELS, index), 1)
    kept = torch.tensor([j for j in range(len(LABELS)) if j not in (1, 6)])
    for bank, old, head, network in (
        (method.bank.student, before[0], method.student_head, student),
        (method.bank.teacher, before[1], method.teacher_head, teacher),
    ):
        assert torch.equal(bank[kept], old[kept])
        expected = F.normalize(0.5 * old[index] + 0.5 * head(network.embedding), dim=1)
        torch.testing.assert_close(bank[index], expected.detach())
        torch.testing.assert_close(bank[index].norm(dim=1), torch.ones(2))


def test_the_loss_is_taken_before_the_banks_move():
    method, student, teacher = built(LABELS)
    index, banks = torch.tensor([1, 6]), (method.bank.student.clone(), method.bank.teacher.clone())
    torch.manual_seed(3)
    found = method(student, teacher, batch_of(LABELS, index), 1)["crd"]
    torch.manual_seed(3)
    negatives = method.bank.other_classes(LABELS[index])
    embeddings = method.student_head(student.embedding), method.teacher_head(teacher.embedding)
    torch.testing.assert_close(found, 0.8 * crd_loss(*embeddings, *banks, index, negatives))


def test_the_first_batch_alone_sets_both_normalisers():
    method, student, teacher = built(LABELS)
    normalisers = []
    for index in ([0, 5], [1, 6]):
        method(student, teacher, batch_of(LABELS, torch.tensor(index)), 1)
        normalisers.append((method.student_normalizer.item(), method.teacher_normalizer.item()))
    assert normalisers[0] == normalisers[1]
    assert min(normalisers[0]) > 0
    assert method.student_normalizer != method.teacher_normalizer


def test_a_batch_of_one_has_a_finite_loss_and_gradient():
    method, student, teacher = built(LABELS, batch=1)
    terms = method(student, teacher, batch_of(LABELS, torch.tensor([7])), 1)
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert student.embedding.grad.isfinite().all()
    assert method.teacher_head.linear.weight.grad.abs().sum() > 0  # both heads learn


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match="all training images are of one class"):
        built(torch.zeros(5, dtype=torch.int64))


def test_kd_is_added_on_request_at_its_own_temperature():
    method, student, teacher = built(LABELS, kd_weight=2.0, kd_temperature=3.0)
    terms = method(student, teacher, batch_of(LABELS, torch.tensor([0, 5])), 1)
    expected = kd_loss(student(None).logits, teacher(None).logits, 3.0)
    torch.testing.assert_close(terms["kd"], 2 * expected)
    assert set(terms) == {"ce", "crd", "kd"}


def test_weights_that_train_nothing_are_refused():
    with pytest.raises(ValueError, match="ce_weight, crd_weight, kd_weight: all are 0, which trains nothing"):
        METHODS["crd"](ce_weight=0, crd_weight=0)


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.001), ("negatives", 0), ("bank_momentum", 1), ("crd_weight", -1)]
)
def test_nonsense_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        METHODS["crd"](**{name: value})


@pytest.mark.parametrize("method", ["crd", "crd_inbatch"])
def test_it_trains_resumes_to_the_same_bits_and_leaves_no_head_in_the_weights(root, data, method):
    teacher = fit(Run(**QUICK, role="teacher"), data)
    options = {"hyperparameters": {"negatives": 32}} if method == "crd" else {}
    run = Run(**QUICK | {"epochs": 3}, method=method, teacher=teacher.name, **options)
    whole = fit(run, data)
    expected = weights(whole)
    assert set(expected) == set(weights(teacher))
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, force_retrain=True, progress=Recorder(stop_after=1))
    assert artifacts.checkpoint_path(whole.record["identity"]).is_file()
    artifacts.record_path(whole.name).unlink()  # or the finished one would be loaded
    assert same(weights(fit(run, data)), expected)
