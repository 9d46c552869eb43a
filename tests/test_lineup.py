"""Which stored students are set side by side: one budget, one architecture, weights at hand, in the methods' order."""

import pytest
from training_fixtures import QUICK

from kdhelpers import Run, artifacts, fit, stored_students
from kdhelpers.teachers import description


@pytest.fixture
def stored(root, data):
    """A teacher, and students by LM, SI and LS of one budget; one of another budget, one of another seed."""
    teacher = fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)
    quick = QUICK | {"epochs": 1}
    for special in (
        {"method": "lm", "teacher": "resnet8"},
        {"method": "si"},
        {"method": "ls"},
        {"method": "si", "epochs": 2},
        {"method": "si", "seed": 3},
    ):
        fit(Run(**quick | special), data)
    return teacher.name


def test_the_largest_set_of_one_budget_is_taken_in_the_methods_order(stored):
    found = stored_students("digits", "resnet8", "resnet8")
    assert list(found) == ["SI", "LM", "LS"]
    assert artifacts.load_record(found["SI"])["run"]["epochs"] == 1
    assert list(stored_students("digits", "resnet8", stored, seed=3)) == ["SI"]


def test_students_of_another_teacher_are_left_out(stored, data):
    other = fit(Run(**QUICK | {"epochs": 1, "seed": 7}, role="teacher"), data)
    assert list(stored_students("digits", "resnet8", other.name)) == ["SI", "LS"]
    assert list(stored_students("digits", "resnet8")) == ["SI", "LS"]


def test_records_without_weights_are_left_out(stored):
    artifacts.weights_path("student_ls_resnet8_digits").unlink()
    assert list(stored_students("digits", "resnet8", stored)) == ["SI", "LM"]


def test_students_picked_by_name_may_differ_in_budget_and_share_a_method(stored):
    names = [name for name in map("student_si_resnet8_digits{}".format, ["", "_seed3"])]
    found = stored_students("digits", "resnet8", stored, names=" ".join([*names, "student_ls_resnet8_digits"]))
    assert found == {names[0]: names[0], names[1]: names[1], "LS": "student_ls_resnet8_digits"}
    with pytest.raises(FileNotFoundError, match="students: nobody is not stored for digits.*student_ls_resnet8_digits"):
        stored_students("digits", "resnet8", names="nobody")


def test_where_there_are_none_the_notebooks_are_named(root):
    with pytest.raises(FileNotFoundError, match="no student resnet8 of seed 0.*02_independent_student to 07_crd"):
        stored_students("digits", "resnet8")


def test_a_description_says_what_a_teacher_is(stored):
    assert description("resnet8", "digits")["name"] == stored
    assert description(stored, "digits")["model"] == "resnet8"
    artifacts.weights_path(stored).with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="has no description beside it"):
        description(stored, "digits")
