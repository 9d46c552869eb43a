"""RandAugment on batches against torchvision's own, one image and one operation at a time."""

import pytest
import torch
from device_checks import DeviceCheck
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms.autoaugment import _apply_op

from kdhelpers.data.augmentation import randaugment as module
from kdhelpers.data.augmentation.randaugment import CODES, randaugment


@pytest.fixture(scope="module")
def images():
    smooth = torch.nn.functional.interpolate(
        torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(0)), size=24, mode="bicubic"
    )
    return (smooth.clamp(0, 1) * 255).byte()


def theirs(image, code, magnitude):
    """torchvision's RandAugment with the operation `code // 2`, in its first or second direction."""
    space = RandAugment()._augmentation_space(31, tuple(image.shape[-2:]))
    name = list(space)[code // 2]
    strengths, signed = space[name]
    strength = strengths[magnitude].item() if strengths.ndim else 0.0
    sign = -1 if signed and code % 2 else 1
    return _apply_op(image, name, sign * strength, interpolation=InterpolationMode.NEAREST, fill=None)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("code", range(CODES))
def test_every_operation_is_torchvisions(images, code, magnitude):
    found = randaugment(images, torch.full((len(images), 1), code), magnitude)
    expected = torch.stack([theirs(image, code, magnitude) for image in images])
    assert torch.equal(found, expected)


def test_each_image_gets_its_own_operations_in_their_order(images):
    codes = torch.tensor([[0, 0], [2, 11], [11, 2], [27, 22], [21, 9], [5, 26]])
    found = randaugment(images, codes, 9)
    for image, (first, second), result in zip(images, codes.tolist(), found, strict=True):
        assert torch.equal(result, theirs(theirs(image, first, 9), second, 9))
    assert torch.equal(found[0], images[0])
    assert not torch.equal(randaugment(images, codes.flip(1), 9)[1], found[1])


def test_a_gpus_branch_gives_the_same_bits_and_waits_for_nothing(images, monkeypatch):
    codes = torch.randint(0, CODES, (len(images), 3), generator=torch.Generator().manual_seed(1))
    expected = randaugment(images, codes, 9)
    monkeypatch.setattr(module, "_transforms_all", lambda device: True)
    monkeypatch.delattr("torchvision.transforms._functional_tensor._blurred_degenerate_image")  # copies to the device
    with DeviceCheck() as operations:
        found = randaugment(images, codes, 9)
    assert torch.equal(found, expected)
    assert operations.count.total() < 300 * codes.shape[1]  # torchvision's own: 4400 per operation
