"""What the tests of folders share: class folders, the findings on them, and how they are refused."""

import pytest

from kdhelpers import load_data
from kdhelpers.data import check_data
from tests.data.readers.test_image_files import picture

SIZE = 8


def write(folder, classes=("cat", "dog"), count=10, kind="png"):
    """Class folders without splits."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture(SIZE, SIZE).save(folder / name / f"{number}.{kind}")
    return folder


def faults(root, name="pets", **options):
    return [(severity, what) for severity, _, what, _ in check_data(name, root=root, **options)]


def refused(root, match, name="pets", **options):
    with pytest.raises(ValueError, match=match) as caught:
        load_data(name, root=root, **options)
    assert "\n" not in str(caught.value)
    assert any(str(caught.value).startswith(each.where) for each in check_data(name, root=root, **options))
    return str(caught.value)
