"""A wrong name and the nearest right ones."""

import pytest

from kdhelpers.nearest import check_known, known_names, nearest


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("adam", ["adamw"]),
        ("SGD", ["sgd"]),
        ("lion_pytorch", ["lion"]),  # it contains a name
        ("mwei", []),
        ("", []),
        (3, []),
    ],
)
def test_the_nearest_name(name, near):
    assert nearest(name, ["sgd", "adamw", "lion"]) == near


def test_several_near_names_come_nearest_first():
    assert nearest("resnet9", ["vgg8", "resnet110", "resnet8"], 2) == ["resnet8", "resnet110"]


def test_an_unknown_name_is_refused_with_what_is_allowed():
    check_known("optimizer", "sgd", ["sgd"])
    with pytest.raises(ValueError, match=r"^dataset = digts: unknown; did you mean digits\? known: digits, or"):
        check_known("dataset", "digts", ["digits"], "or a folder")
    many = [f"name{number}" for number in range(13)]
    assert known_names("name1x", many) == "did you mean name1? `python -m kdhelpers list` has all names"
    assert "known: " in known_names("name1x", many[:12])
    assert nearest("learning_rate", ["warmup_rate", "lr"]) == ["lr"]
    assert known_names("x", []) == "known: none"
    assert known_names("x", map(str, range(100))).endswith("58, 59, ...")
