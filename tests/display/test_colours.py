"""One look for each method: distinct, readable on white, distinguishable for colour-blind readers."""

import itertools

import pytest
import torch

from kdhelpers import METHODS, Method
from kdhelpers.display import colours

# Red, green and blue of light as two kinds of colour-blind readers see them (Machado et al., 2009).
VISION = {
    "usual": torch.eye(3),
    "deuteranopia": torch.tensor([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "protanopia": torch.tensor([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
}


def light(colour: str):
    """Linear red, green, blue."""
    parts = torch.tensor([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return torch.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(colour: str, vision: str):
    to_xyz = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ (VISION[vision] @ light(colour)).clamp(0, 1) / to_xyz.sum(1)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116).tolist()
    return torch.tensor([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(first: str, second: str, vision: str) -> float:
    return torch.linalg.vector_norm(lab(first, vision) - lab(second, vision)).item()


def test_each_method_of_the_package_has_a_colour_of_its_own():
    assert set(colours.LOOKS) == set(METHODS)
    assert len({look.colour for look in colours.LOOKS.values()}) == len(METHODS)


@pytest.mark.parametrize("colour", [*(look.colour for look in colours.LOOKS.values()), *colours.OWN_COLOURS])
def test_colours_are_readable_on_white(colour):
    luminance = (torch.tensor([0.2126, 0.7152, 0.0722]) @ light(colour)).item()
    assert 1.05 / (luminance + 0.05) >= 3  # WCAG 2.1: graphics


@pytest.mark.parametrize("vision", VISION)
def test_members_of_a_family_differ_in_lightness_or_marker(vision):
    for family in colours.FAMILIES.values():
        for one, other in itertools.combinations(map(colours.look_of, family), 2):
            assert one.marker != other.marker or distance(one.colour, other.colour, vision) >= 10, (one, other)


@pytest.mark.parametrize("vision", VISION)
def test_the_usual_comparison_is_distinguishable(vision):
    compared = [colours.look_of(method).colour for method in ("si", "lm", "dkd", "hints", "crd", "cocord")]
    for one, other in itertools.combinations(compared, 2):
        assert distance(one, other, vision) >= 12, (one, other)


@pytest.mark.parametrize(
    ("label", "method"),
    [
        ("KD", "lm"),
        ("KD (T=2.0)", "lm"),
        ("KD, standardised (kd_weight=0.9)", "lm_standardized"),
        ("KD + unlabelled [base_channels 8]", "lm_unlabelled"),
        ("resnet8 · CE (no teacher) (n = 3)", "si"),
        ("DKD, placebo shuffled", "dkd"),
        ("CE, jittered images (40.9 %)", "si"),
        ("KDE", ""),
        ("CEO", ""),
        ("lion", ""),
        ("", ""),
    ],
)
def test_a_label_names_its_method_by_title(label, method):
    assert colours.method_of(label) == method


def test_a_method_of_ones_own_keeps_its_look(monkeypatch):
    class Mine(Method):
        title = "Mine (beta)"

    monkeypatch.setitem(METHODS, "mine", Mine)
    look = colours.look_of("mine")
    assert colours.colour_of("Mine (beta) (T=1)") == look.colour
    assert look == colours.look_of("mine") == colours.Look(look.colour, look.marker, colours.OWN)
    assert look.colour not in {other.colour for other in colours.LOOKS.values()}


def test_teachers_are_black_and_other_labels_have_the_default():
    assert colours.colour_of("resnet20 · teacher (single run)") == colours.TEACHER
    assert colours.colour_of("chance (maps of different images)", "#123456") == colours.CHANCE
    assert colours.colour_of("student_a", "#123456") == "#123456"
