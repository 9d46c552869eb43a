"""Which stored students are set side by side: one budget, teacher and data for all seeds, weights at hand."""

import pytest
from training_fixtures import QUICK

from kdhelpers import Run, artifacts, ensure_students, fit, stored_students
from kdhelpers.weights.load import describe_teacher

ONCE = QUICK | {"epochs": 1}
SI, LS, LM = ({"method": method} for method in ("si", "ls", "lm"))
LM |= {"teacher": "resnet8"}


@pytest.fixture
def train(root, data):
    """Trains students one after the other, once a teacher stands."""
    fit(Run(**ONCE, role="teacher"), data)
    return lambda *specials: [fit(Run(**ONCE | special), data).name for special in specials]


def found(**options):
    return stored_students("digits", "resnet8", "resnet8", **options).students


def test_students_of_one_budget_stand_in_the_methods_order(train):
    train(LS, LM, SI, SI | {"epochs": 2})
    cohort = stored_students("digits", "resnet8", "resnet8")
    assert cohort.teacher == "teacher_resnet8_digits"
    assert list(cohort.students[0]) == ["CE (no teacher)", "KD", "label smoothing"]
    assert artifacts.load_record(cohort.students[0]["CE (no teacher)"])["run"]["epochs"] == 1
    assert cohort.data == ("digits", None, 0.1, 0)


def test_all_seeds_are_of_one_budget(train):
    """Seed 1 has more students at two epochs, but of both seeds together most were trained for one."""
    train(SI, LS, LM, SI | {"seed": 1}, *(each | {"seed": 1, "epochs": 2} for each in (SI, LS)))
    assert {seed: list(students) for seed, students in found(seeds=[0, 1]).items()} == {
        0: ["CE (no teacher)", "KD", "label smoothing"],
        1: ["CE (no teacher)"],
    }


def test_the_budget_of_a_named_student_is_taken_however_many_others_there_are(train, capsys):
    names = train(SI, SI | {"epochs": 2}, LS | {"epochs": 2})
    capsys.readouterr()
    assert found() == {0: {"CE (no teacher)": names[1], "label smoothing": names[2]}}
    assert f"students of 2 budgets are stored; left out: {names[0]} (`like` picks" in capsys.readouterr().err
    assert found(like=names[0]) == {0: {"CE (no teacher)": names[0]}}
    assert "budgets" not in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="students: nothing is not stored for digits with its weights; known: "):
        found(like="nothing")


def test_of_two_budgets_as_large_the_newer_is_taken(train):
    names = train(SI, SI | {"epochs": 2})
    for newer in (0, 1):
        for place, name in enumerate(names):
            record = artifacts.load_record(name)
            record["environment"]["finished"] = f"2026-01-0{2 if place == newer else 1}T00:00:00+00:00"
            artifacts.save_json(artifacts.record_path(name), record)
        assert found() == {0: {"CE (no teacher)": names[newer]}}


def test_a_label_means_one_setting_whatever_the_seed(train):
    train(LM, LM | {"seed": 1, "hyperparameters": {"temperature": 2}})
    assert {seed: list(students) for seed, students in found(seeds=[0, 1]).items()} == {0: ["KD"], 1: ["KD (T=2.0)"]}


def test_students_of_another_teacher_are_left_out_also_of_one_trained_again_under_the_name(train, data):
    train(SI, LM)
    other = fit(Run(**ONCE | {"seed": 7}, role="teacher"), data)
    assert list(stored_students("digits", "resnet8", other.name).students[0]) == ["CE (no teacher)"]
    path = artifacts.weights_path("teacher_resnet8_digits")
    for suffix in (".pth", ".json"):
        artifacts.write_atomic(path.with_suffix(suffix), other.weights_path.with_suffix(suffix).read_bytes())
    assert list(found()[0]) == ["CE (no teacher)"]


def test_missing_and_damaged_weights_are_left_out(train):
    train(SI, LM, LS)
    artifacts.weights_path("student_ls_resnet8_digits").unlink()
    artifacts.write_atomic(artifacts.weights_path("student_lm_resnet8_digits"), b"damaged")
    assert list(found()[0]) == ["CE (no teacher)"]


def test_students_picked_by_name_may_be_of_any_budget_and_stand_under_their_own_seed(train):
    names = train(SI, SI | {"epochs": 2}, LS | {"seed": 3})
    assert found(names=" ".join(names)) == {
        0: {names[0]: names[0], names[1]: names[1]},
        3: {"label smoothing": names[2]},
    }
    with pytest.raises(FileNotFoundError, match="students: nobody is not stored for digits.*student_ls_resnet8_digits"):
        found(names="nobody")


def test_students_of_other_data_are_not_mixed(train):
    names = train(SI, SI | {"seed": 1})
    record = artifacts.load_record(names[1])
    record["run"]["image_size"] = 16
    artifacts.save_json(artifacts.record_path(names[1]), record)
    assert len(found(seeds=[0, 1])) == 1
    with pytest.raises(ValueError, match="students: trained on different data dataset, image_size"):
        found(names=" ".join(names))


def test_where_there_are_none_the_notebooks_are_named(train):
    with pytest.raises(FileNotFoundError, match="no student resnet8 of seed 0, 1 .*02_independent_student to 07_crd"):
        found(seeds=[0, 1])


def test_a_description_says_what_a_teacher_is(train):
    assert describe_teacher("resnet8", "digits")["name"] == "teacher_resnet8_digits"
    artifacts.weights_path("teacher_resnet8_digits").with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="has no description; `python -m kdhelpers teachers"):
        describe_teacher("resnet8", "digits")


@pytest.fixture
def few_images(data, monkeypatch):
    monkeypatch.setattr("kdhelpers.report.cohort.load_data", lambda *arguments: data)


def test_missing_students_and_their_teacher_are_trained_once(root, few_images, capsys):
    run = Run(**ONCE | LM)
    first = ensure_students(run, seeds=[0, 1])
    assert "No student resnet8 of the teacher resnet8 is stored for digits: two are" in capsys.readouterr().err
    assert {seed: list(students) for seed, students in first.students.items()} == {
        seed: ["CE (no teacher)", "KD"] for seed in (0, 1)
    }
    assert ensure_students(run, seeds=[0, 1]) == first
    assert "are trained" not in capsys.readouterr().err


def test_students_without_a_teacher_alone_are_not_enough(train, few_images):
    train(SI)
    assert list(ensure_students(Run(**ONCE | LM)).students[0]) == ["CE (no teacher)", "KD"]


def test_named_students_are_never_replaced_by_new_ones(train):
    (name,) = train(SI)
    assert ensure_students(Run(**ONCE | LM), names=name).students == {0: {"CE (no teacher)": name}}
