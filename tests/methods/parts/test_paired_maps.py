import math

import pytest
import torch
import torch.nn.functional as F

from kdhelpers.methods.parts.paired_maps import paired_maps, pooled, same_size, unit
from kdhelpers.models import FeatureExtractor, build_model


def maps_of(name):
    return FeatureExtractor(build_model(name, 10).eval())(torch.zeros(1, 3, 32, 32)).feature_maps


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ("resnet8", "wrn_16_1", [("layer1", "block1"), ("layer2", "block2"), ("layer3", "block3")]),
        ("shufflenetv1", "resnet8x4", [("layer1", "layer1"), ("layer2", "layer2"), ("layer3", "layer3")]),
        ("vgg8", "vgg11", [(name, name) for name in ("block1", "block2", "block3", "block4")]),
        (
            "mobilenetv2",
            "resnet50_crd",
            [("block1", "layer1"), ("block2", "layer2"), ("block4", "layer3"), ("block6", "layer4")],
        ),
    ],
)
def test_all_maps_but_the_first_are_paired_in_order(student, teacher, expected):
    assert paired_maps(maps_of(student), maps_of(teacher)) == expected


def test_unequal_numbers_are_refused_with_both_lists():
    with pytest.raises(ValueError, match=r"student has 3 .*stem, layer1.*teacher 4 \(block0, .*, block4\)"):
        paired_maps(maps_of("resnet8"), maps_of("vgg8"))


@pytest.mark.parametrize("names", [[], ["only"]])
def test_networks_without_a_second_map_are_refused(names):
    with pytest.raises(ValueError, match="the student has 0 after its first"):
        paired_maps(names, names)


def test_the_larger_map_is_pooled_to_the_smaller_in_each_direction():
    large, small = torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)
    for first, second in (same_size(large, small), reversed(same_size(small, large))):
        assert torch.equal(second, small)
        torch.testing.assert_close(first, F.avg_pool2d(large, 2))
    first, second = same_size(torch.zeros(1, 1, 8, 2), torch.zeros(1, 1, 4, 4))
    assert first.shape == second.shape == (1, 1, 4, 2)


def test_equal_sizes_are_left_alone():
    one, two = torch.randn(2, 1, 3, 4, 4).unbind()
    assert same_size(one, two)[0] is one
    assert same_size(one, two)[1] is two
    assert pooled(one, 4) is one


def test_a_smaller_map_is_repeated():
    small = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert pooled(small, 4).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]]]


def test_unit_vectors_equal_the_definition():
    x = torch.randn(3, 4, dtype=torch.float64)
    for row, got in zip(x.tolist(), unit(x, 1).tolist(), strict=True):
        norm = math.sqrt(sum(value**2 for value in row))
        assert got == pytest.approx([value / norm for value in row], rel=1e-12)
    torch.testing.assert_close(unit(x, 0), unit(x.T, 1).T)
    torch.testing.assert_close(unit(x, (0, 1)), x / x.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_vector_of_norm_zero_stays_zero_and_gets_no_gradient(dtype):
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    result = unit(x, 1)
    (result * torch.tensor([[1.0, 0.0], [5.0, 7.0]])).sum().backward()
    assert result.dtype == torch.float32
    assert result.tolist() == [pytest.approx([0.6, 0.8]), [0, 0]]
    assert x.grad[0].tolist() == pytest.approx([0.128, -0.096], rel=0.01)
    assert x.grad[1].tolist() == [0, 0]


def test_half_types_are_squared_in_float32():
    """300^2 is more than float16 holds."""
    assert unit(torch.tensor([300.0, 400.0], dtype=torch.float16), 0).tolist() == pytest.approx([0.6, 0.8])


def test_gradcheck_in_float64():
    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: unit(x, 1), x)
    assert torch.autograd.gradcheck(lambda x: unit(x, (1, 2)), x)
