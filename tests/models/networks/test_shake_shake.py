"""Shake-Shake: the published network, whose backward pass draws coefficients of its own."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdhelpers.models import FeatureExtractor, build_model, check_model, count_parameters, fold_batchnorm
from kdhelpers.models.networks.shake_shake import ShakeBlock, shake

# Recorded from the published PyTorch implementation, 26 2x32d with 10 classes, under `fill_by_name` on `zoo_images`.
LOGITS = [-0.3791879530644513, -0.3974268026743002, 2.0541223290169452, 1.667564658287898, 2.6252513277806]
NORMS = [4.922603096865976, 4.724807263132172, 4.66323669807592, 4.334049144451516]
LAYOUT = "6428b5a714762378f67c9020702c3e5da34e3614fb5aeaa130f0a449d79a7fc2"


def coefficients(*values):
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def pair(count=2):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(count, 3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))


@pytest.mark.parametrize(("base_channels", "parameters"), [(32, 2_923_162), (64, 11_653_978), (96, 26_192_922)])
def test_parameters_are_the_published_ones(base_channels, parameters):
    with torch.device("meta"):
        assert count_parameters(build_model("shake_shake", 10, base_channels=base_channels)) == parameters


def test_layout_maps_and_logits_are_the_published_implementations(fill_by_name, zoo_images):
    model = fill_by_name(build_model("shake_shake", 10))
    layout = [[key, list(value.shape)] for key, value in model.state_dict().items()]
    assert hashlib.sha256(json.dumps(layout, separators=(",", ":")).encode()).hexdigest() == LAYOUT
    with torch.no_grad():
        outputs = FeatureExtractor(model.double().eval())(zoo_images.double())
    shapes = [tuple(value.shape) for value in (*outputs.feature_maps.values(), outputs.embedding)]
    assert shapes == [(4, 16, 32, 32), (4, 32, 32, 32), (4, 64, 16, 16), (4, 128, 8, 8), (4, 128)]
    assert all(value.min() < 0 for value in outputs.feature_maps.values())  # taken without a ReLU
    np.testing.assert_allclose(outputs.logits[0, :5], LOGITS, rtol=0, atol=1e-9)
    np.testing.assert_allclose(outputs.logits.norm(dim=1), NORMS, rtol=0, atol=1e-9)


def test_forward_and_backward_use_coefficients_of_their_own():
    (first, second), forward, backward = pair(), coefficients(0.2, 0.9), coefficients(0.7, 0.1)
    slope = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    mixed = shake(first, second, forward, backward)
    mixed.backward(slope)
    for image in range(2):
        a, b = forward[image].item(), backward[image].item()
        torch.testing.assert_close(mixed[image], a * first[image] + (1 - a) * second[image])
        torch.testing.assert_close(first.grad[image], b * slope[image])
        torch.testing.assert_close(second.grad[image], (1 - b) * slope[image])


def test_equal_coefficients_give_the_true_gradient():
    (first, second), same = pair(), coefficients(0.3, 0.8)
    torch.autograd.gradcheck(lambda x, y: shake(x, y, same, same), (first, second))
    with pytest.raises(RuntimeError):  # unequal ones do not: the check can fail
        torch.autograd.gradcheck(lambda x, y: shake(x, y, same, 1 - same), (first, second))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"first \(2, 3\) and second \(2, 4\): must have one shape"):
        shake(torch.zeros(2, 3), torch.zeros(2, 4), torch.ones(1), torch.ones(1))


def shares_of(model, images):
    """The coefficients that each block took, [3, blocks, images]: forward, backward of its first and second branch.

    The branches of each block are made to output 1 and 0, and their gradients are looked at.
    """
    blocks = [each for each in model.modules() if isinstance(each, ShakeBlock)]
    shares = {}
    for number, block in enumerate(blocks):
        for row, (branch, value) in enumerate(((block.residual_path1, 1.0), (block.residual_path2, 0.0)), 1):
            torch.nn.init.zeros_(branch.bn2.weight)
            torch.nn.init.constant_(branch.bn2.bias, value)
            key = row, number
            branch.register_full_backward_hook(lambda _, __, out, key=key: shares.update({key: out[0].flatten(1)}))
        block.register_forward_hook(
            lambda block, taken, out, key=(0, number): shares.update(
                {key: (out - shortcut_of(block, taken[0])).detach()}
            )
        )
    model(images).sum().backward()
    slopes = [shares[1, number] + shares[2, number] for number in range(len(blocks))]
    columns = [slope.abs().argmax(1, keepdim=True) for slope in slopes]  # where the slope is not 0
    picked = [
        [(shares[row, number] / slopes[number]).gather(1, columns[number])[:, 0] for number in range(len(blocks))]
        for row in (1, 2)
    ]
    forward = [shares[0, number].flatten(1)[:, 0] for number in range(len(blocks))]
    return torch.stack([torch.stack(values) for values in (forward, *picked)])


def shortcut_of(block, x):
    return block.shortcut(x.relu()) if len(block.shortcut) else x


def small(**options):
    return build_model("shake_shake", 10, depth=14, base_channels=4, **options).train()


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("back", [True, False])
@pytest.mark.parametrize("per_image", [True, False])
def test_each_flag_draws_or_fixes_its_coefficient(zoo_images, ahead, back, per_image):
    torch.manual_seed(0)
    model = small(shake_forward=ahead, shake_backward=back, shake_image=per_image)
    forward, first, second = shares_of(model, zoo_images)
    torch.testing.assert_close(first + second, torch.ones(6, 4))
    for share, drawn in ((forward, ahead), (first, back)):
        share = share.round(decimals=4)
        assert len(share.unique()) == (6 * (4 if per_image else 1) if drawn else 1)  # each block its own
        assert (share == 0.5).all() != drawn
        assert ((share > 0) & (share < 1)).all()
    if ahead and back:
        assert not torch.isclose(forward, first, atol=1e-4).any()


@pytest.mark.parametrize("flags", [(True, True, True), (True, False, True), (False, True, False)])
def test_one_draw_has_the_numbers_of_a_draw_in_each_block(zoo_images, flags):
    """A stored run repeats: forward, then backward coefficients of each block in turn, as one draw after another."""
    ahead, back, per_image = flags
    model = small(shake_forward=ahead, shake_backward=back, shake_image=per_image)
    count = 4 if per_image else 1
    torch.manual_seed(7)
    taken = shares_of(model, zoo_images)[:2]
    after = torch.get_rng_state()
    torch.manual_seed(7)
    for number in range(6):
        for row, drawn in enumerate((ahead, back)):
            expected = torch.rand(count, 1, 1, 1).flatten() if drawn else torch.full((count,), 0.5)
            torch.testing.assert_close(taken[row, number], expected.expand(4), rtol=0, atol=1e-4)
    assert torch.equal(after, torch.get_rng_state())


def test_a_forward_draws_once(zoo_images):
    drawn = []

    class Draws(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            drawn.extend([function] * ("rand" in function.name()))
            return function(*args, **(kwargs or {}))

    with Draws():
        small()(zoo_images).sum().backward()
    assert len(drawn) == 1


def test_a_seed_repeats_the_draws(zoo_images):
    model = small()

    def step(seed):
        torch.manual_seed(seed)
        return model(zoo_images)

    first = step(0)
    assert torch.equal(first, step(0))
    assert not torch.equal(first, step(1))
    assert not torch.equal(model(zoo_images), model(zoo_images))


def test_the_classifier_begins_without_bias():
    assert not build_model("shake_shake", 10, depth=8, base_channels=4).fc.bias.any()


def test_eval_is_the_mean_of_the_branches_and_draws_nothing(zoo_images):
    model = build_model("shake_shake", 10, depth=8, base_channels=4).eval()
    state = torch.get_rng_state()
    assert torch.equal(model(zoo_images), model(zoo_images))
    assert torch.equal(state, torch.get_rng_state())
    block = model.stage2.block1
    active = torch.rand(2, 4, 8, 8)
    mean = (block.residual_path1(active) + block.residual_path2(active)) / 2
    torch.testing.assert_close(block(active), block.shortcut(active) + mean)


def test_a_shortcut_takes_the_map_and_the_map_moved_by_a_pixel():
    skip = build_model("shake_shake", 10, depth=8, base_channels=4).stage2.block1.shortcut.skip.eval()
    active = torch.rand(1, 4, 5, 5)  # odd, so that the moved map ends in a row and a column of zeros
    seen = skip(active)
    assert seen.shape == (1, 8, 3, 3)
    for row in range(3):
        for column in range(3):
            at, moved = active[0, :, 2 * row, 2 * column], torch.zeros(4)
            if 2 * row + 1 < 5 and 2 * column + 1 < 5:
                moved = active[0, :, 2 * row + 1, 2 * column + 1]
            expected = torch.cat([skip.conv1.weight[:, :, 0, 0] @ at, skip.conv2.weight[:, :, 0, 0] @ moved])
            torch.testing.assert_close(seen[0, :, row, column] * (1 + 1e-5) ** 0.5, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_learns_in_every_parameter(layout):
    model = build_model("shake_shake", 10, depth=8, base_channels=4).to(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.rand(3, 3, 32, 32).to(memory_format=layout)).float().logsumexp(1).sum()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_as_a_teacher_most_of_it_folds(zoo_images):
    model = build_model("shake_shake", 10, depth=8, base_channels=4).eval()
    folded = fold_batchnorm(model)
    assert (
        sum(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules()) == 3
    )  # those behind two convolutions
    torch.testing.assert_close(folded(zoo_images), model(zoo_images), rtol=0, atol=1e-4)


def test_options_are_read_and_bad_ones_refused():
    given = {"depth": "14", "base_channels": "16", "shake_image": "False"}
    assert check_model("shake_shake", options=given) == {
        "depth": 14,
        "base_channels": 16,
        "shake_forward": True,
        "shake_backward": True,
        "shake_image": False,
    }
    for bad, message in {
        ("depth", 27): "depth=27 of shake_shake must be a whole number from 8 to 1202 in steps of 6",
        ("base_channels", 7): "base_channels=7 of shake_shake must be a whole number from 2 to 512 in steps of 2",
        ("base_channels", 32.0): "base_channels=32.0",
        ("base_channels", True): "base_channels=True",
        ("shake_image", 1): "shake_image=1 of shake_shake must be one of True, False",
        ("shake_image", "maybe"): "shake_image='maybe'",
    }.items():
        with pytest.raises(ValueError, match=message):
            check_model("shake_shake", options=dict([bad]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_coefficients_are_drawn_without_waiting_for_the_gpu(zoo_images):
    model, images = build_model("shake_shake", 10, depth=8, base_channels=4).cuda(), zoo_images.cuda()
    model(images).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(images).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
