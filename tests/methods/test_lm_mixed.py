"""KD on mixed images: each mixture pixel by pixel, the loss of two labels, and what a training makes of them."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from training_fixtures import QUICK, same, weights

from kdhelpers import Run, fit, fit_sweep, kd_loss
from kdhelpers.methods.lm_mixed import MixedLogitMatching, cutmix, draw_boxes, draw_lam, mixed_cross_entropy, mixup
from kdhelpers.models import Outputs

MIXES = ("mixup", "cutmix")
TAUGHT = QUICK | {"method": "lm_mixed", "teacher": "resnet8", "augmentation": "crop=2 flip"}


def case(batch=5, classes=4, dtype=torch.float64):
    """Images 6 pixels high and 4 wide, logits, labels, partners (one image is its own), lam with both ends."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, 6, 4, generator=generator, dtype=dtype)
    logits = torch.randn(batch, classes, generator=generator, dtype=dtype) * 3
    partners = torch.tensor([2, 1, 4, 0, 3])[:batch]
    lam = torch.tensor([0.3, 0.5, 0.0, 1.0, 0.9], dtype=dtype)[:batch]
    return images, logits, torch.arange(batch) % classes, partners, lam


def test_mixup_equals_the_definition():
    images, _, _, partners, lam = case()
    mixed = mixup(images, partners, lam)
    for b, k in enumerate(partners.tolist()):
        for place in torch.cartesian_prod(torch.arange(3), torch.arange(6), torch.arange(4)).tolist():
            c, row, column = place
            expected = lam[b] * images[b, c, row, column] + (1 - lam[b]) * images[k, c, row, column]
            assert mixed[b, c, row, column].item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.equal(mixed[3], images[3]), "lam 1 is the image itself"
    assert torch.equal(mixed[2], images[4]), "lam 0 is its partner"
    torch.testing.assert_close(mixed[1], images[1])  # its own partner


def test_cutmix_equals_the_definition():
    images, _, _, partners, _ = case()
    boxes = torch.tensor([[1, 0, 4, 3], [0, 0, 6, 4], [2, 1, 3, 4], [0, 0, 6, 4], [5, 2, 5, 2]])
    mixed, lam = cutmix(images, partners, boxes)
    assert lam.dtype == torch.float32
    for b, (top, left, bottom, right) in enumerate(boxes.tolist()):
        own = 0
        for row in range(6):
            for column in range(4):
                inside = top <= row < bottom and left <= column < right
                own += not inside
                source = partners[b] if inside else b
                assert torch.equal(mixed[b, :, row, column], images[source, :, row, column])
        assert lam[b].item() == pytest.approx(own / 24)
    assert torch.equal(mixed[3], images[0]), "the whole image is the partner's"
    assert torch.equal(mixed[4], images[4]), "an empty box changes nothing"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_images_keep_dtype_and_layout(dtype):
    images, _, _, partners, lam = case(dtype=torch.float32)
    images = images.to(dtype).contiguous(memory_format=torch.channels_last)
    boxes = torch.tensor([[0, 0, 2, 2]]).expand(5, 4)
    for mixed in (mixup(images, partners, lam), cutmix(images, partners, boxes)[0]):
        assert mixed.dtype == dtype
        assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_the_cross_entropy_equals_the_definition():
    _, logits, labels, partners, lam = case()
    total = 0.0
    for b, row in enumerate(logits.tolist()):
        norm = math.log(sum(map(math.exp, row)))
        own, other = norm - row[labels[b]], norm - row[labels[partners[b]]]
        total += lam[b].item() * own + (1 - lam[b].item()) * other
    assert mixed_cross_entropy(logits, labels, partners, lam).item() == pytest.approx(total / 5, rel=1e-12)


def test_without_mixing_it_is_cross_entropy_and_with_two_labels_that_of_the_mixed_label():
    _, logits, labels, partners, lam = case()
    one = torch.ones(5, dtype=torch.float64)
    torch.testing.assert_close(mixed_cross_entropy(logits, labels, partners, one), F.cross_entropy(logits, labels))
    target = lam[:, None] * F.one_hot(labels, 4) + (1 - lam[:, None]) * F.one_hot(labels[partners], 4)
    torch.testing.assert_close(mixed_cross_entropy(logits, labels, partners, lam), F.cross_entropy(logits, target))


def test_gradcheck_in_float64():
    _, logits, labels, partners, lam = case()
    assert torch.autograd.gradcheck(
        lambda z: mixed_cross_entropy(z, labels, partners, lam), logits.clone().requires_grad_()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gaps_of_ten_thousand_stay_finite(dtype):
    logits = torch.tensor([[1e4, 0.0, -1e4], [2000.0, 0.0, -2000.0]], dtype=dtype, requires_grad=True)
    loss = mixed_cross_entropy(logits, torch.tensor([2, 0]), torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((0.75 * 2e4 + 0.5 * 4000) / 2, rel=0.01)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(dtype):
    _, logits, labels, partners, lam = case()
    rounded = logits.to(dtype)
    exact = mixed_cross_entropy(rounded.double(), labels, partners, lam)
    assert mixed_cross_entropy(rounded, labels, partners, lam.float()).item() == pytest.approx(exact.item(), rel=1e-6)


def test_one_image_is_its_own_partner():
    images, logits, labels, _, _ = case(batch=1)
    zero, lam = torch.zeros(1, dtype=torch.long), torch.tensor([0.3], dtype=torch.float64)
    torch.testing.assert_close(mixup(images, zero, lam), images)
    torch.testing.assert_close(mixed_cross_entropy(logits, labels, zero, lam), F.cross_entropy(logits, labels))


def test_shapes_that_differ_are_refused():
    images, logits, labels, partners, lam = case()
    with pytest.raises(ValueError, match=r"lam \(4,\): must be .* draw one partner and one lam an image"):
        mixup(images, partners, lam[:4])
    with pytest.raises(ValueError, match=r"boxes \(5, 3\): must be .* one box an image"):
        cutmix(images, partners, torch.zeros(5, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"partners \(1,\).*: must be logits"):
        mixed_cross_entropy(logits, labels, partners[:1], lam)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0, 50.0])
def test_lam_has_the_beta_distribution(alpha):
    torch.manual_seed(0)
    drawn = draw_lam(20_000, alpha)
    assert stats.kstest(drawn.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_lam_stays_within_its_bounds_for_the_smallest_alpha_and_the_rarest_draws(monkeypatch):
    torch.manual_seed(0)
    drawn = draw_lam(20_000, 0.01)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert drawn.var().item() == pytest.approx(1 / (4 * (2 * 0.01 + 1)), rel=0.02)
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.tensor([[0.0, 0.0, 1 - 2**-24], [0.25, 0.5, 0.25]]))
    assert draw_lam(3, 1.0).isfinite().all()
    assert draw_lam(3, 0.01)[1] == 0


def test_boxes_have_the_area_of_lam_before_they_are_cut_and_lie_within_the_image():
    torch.manual_seed(0)
    lam = torch.full((4000,), 0.75)
    boxes = draw_boxes(lam, 32, 16)
    for (start, end), size, side in (boxes[:, ::2].T, 32, 16), (boxes[:, 1::2].T, 16, 8):
        assert start.min() == 0
        assert end.max() == size
        lengths = (end - start).tolist()
        assert (min(lengths), max(lengths)) == (side // 2, side), "the shortest is centred on the first row or column"
        whole = (start > 0) & (end < size)
        counts = torch.bincount(start[whole], minlength=size)[1 : size - side]
        assert (counts - 4000 / size).abs().max() < 4 * math.sqrt(4000 / size), "every centre equally often"
    empty = draw_boxes(torch.ones(3), 32, 16)
    assert torch.equal(empty[:, :2], empty[:, 2:])
    assert (draw_boxes(torch.zeros(500), 32, 16) == torch.tensor([0, 0, 32, 16])).all(1).any(), "lam 0, centred"


def test_the_sides_of_a_box_are_rounded_down_to_an_even_number_of_pixels():
    torch.manual_seed(0)
    top, left, bottom, right = draw_boxes(torch.full((500,), 0.75), 30, 14).unbind(1)  # half of each side: 15 and 7
    assert ((bottom - top).max(), (right - left).max()) == (14, 6)


class OneView:
    """A batch as the loop makes it."""

    def __init__(self, view, labels):
        self.views, self.labels = (view,), labels


def network(view):
    return Outputs(view.mean((2, 3)), None, {})


@pytest.mark.parametrize("mix", MIXES)
def test_both_networks_see_the_same_mixed_images_and_terms_are_weighted(mix):
    images, _, labels, _, _ = case()
    seen, method = [], MixedLogitMatching(mix=mix, temperature=2.0, ce_weight=0.3, kd_weight=5.0)

    def watched(view):
        seen.append(view)
        return network(view)

    torch.manual_seed(0)
    terms = method(watched, lambda view: Outputs(watched(view).logits * 2, None, {}), OneView(images, labels % 3), 1)
    assert seen[0] is seen[1]
    torch.manual_seed(0)
    mixed, partners, lam = method.mixed(images)
    assert torch.equal(mixed, seen[0])
    assert sorted(partners.tolist()) == list(range(5))
    logits = network(mixed).logits
    torch.testing.assert_close(terms["ce"], 0.3 * mixed_cross_entropy(logits, labels % 3, partners, lam))
    torch.testing.assert_close(terms["kd"], 5 * kd_loss(logits, 2 * logits, 2.0))
    if mix == "cutmix":
        own = (mixed == images).all(1).double().mean((1, 2))
        different = partners != torch.arange(5)
        torch.testing.assert_close(lam[different], own[different].float())
    assert set(MixedLogitMatching(kd_weight=0)(network, None, OneView(images, labels % 3), 1)) == {"ce"}


@pytest.mark.parametrize(("name", "value"), [("mix_alpha", 0), ("ce_weight", -1), ("temperature", 0)])
def test_hyperparameters_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        MixedLogitMatching(**{name: value})


@pytest.fixture
def stored(root, data):
    """A trained teacher."""
    fit(Run(**QUICK, role="teacher"), data)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("mix", MIXES)
def test_a_training_counts_no_train_accuracy(stored, data, mix, precision):
    run = Run(**TAUGHT | {"precision": precision, "lr": 1e-3}, hyperparameters={"mix": mix})
    trained = fit(run, data)
    assert [row["train_top1_pct"] for row in trained.history] == [None, None]
    assert all(row["val_top1_pct"] >= 0 and math.isfinite(row["kd"]) for row in trained.history)


def test_a_teacher_cache_does_not_serve_it_and_serves_its_neighbours(stored, data, root, capsys):
    mixed, plain = Run(**TAUGHT), Run(**TAUGHT | {"method": "lm"})
    live = fit(mixed, data)
    cached = fit(mixed, data, cache_teacher=True, force_retrain=True)
    assert "teacher cache: this method mixes the images, which makes new ones in every step; the teacher runs live" in (
        capsys.readouterr().err
    )
    assert not list(root.rglob("*.rows"))
    assert same(weights(live), weights(cached))
    alone = fit(plain, data)
    both = fit_sweep([mixed, plain], data, cache_teacher=True, force_retrain=True)
    assert list(root.rglob("*.rows"))
    assert "teacher cache" not in capsys.readouterr().err
    assert same(weights(live), weights(both[0]))
    assert same(weights(alone), weights(both[1]))
