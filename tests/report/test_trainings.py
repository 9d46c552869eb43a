"""Pictures of the trainings: a panel per network and budget, a line per setting, the mean over its seeds."""

import pytest
import record_fixtures as fixtures

from kdhelpers import trainings
from kdhelpers.display.colours import colour_of


def lines(axes) -> dict:
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines if line.get_label()[0] != "_"}


def test_a_line_is_the_mean_over_the_seeds_of_a_setting(root):
    fixtures.store(*fixtures.study())
    figure, frame = trainings.pictures("cifar100")["results_curves_cifar100"]
    teachers, students = figure.axes
    assert teachers.get_title(loc="left") == "resnet20, 8 epochs, batch 64"
    assert students.get_title(loc="left") == "resnet8, 8 epochs, batch 64"
    means = [top1 * (1 - 0.7**8) for top1 in (50.0, 52.0, 53.0)]
    assert lines(students).keys() == {"CE (no teacher)", "KD", "KD (T=2.0)"}
    ends = [lines(students)[label][-1] for label in ("CE (no teacher)", "KD", "KD (T=2.0)")]
    assert ends == pytest.approx(means)
    thick = {line.get_label(): line.get_color() for line in students.lines if line.get_label()[0] != "_"}
    assert thick["KD"] == thick["KD (T=2.0)"] == colour_of("KD")
    assert set(frame["run"]) >= {"resnet8 · CE (no teacher) (n = 3)"}
    assert "kd" in frame


def test_a_number_that_one_seed_lacks_is_left_out(root):
    first, second = fixtures.record(50.0), fixtures.record(52.0, seed=1)
    second["history"][-1]["val_top1_pct"] = None
    fixtures.store(first, second)
    figure, frame = trainings.pictures("cifar100")["results_curves_cifar100"]
    assert len(lines(figure.axes[0])["CE (no teacher)"]) == 7
    assert frame["val_top1_pct"].isna().sum() == 1


def test_teachers_of_equal_students_are_named_and_budgets_have_their_panels(root):
    other = fixtures.record(54.0, **fixtures.LM | {"name": "other", "teacher": "teacher_other"})
    other["teacher"] |= {"sha256": "c" * 64}
    fixtures.store(fixtures.record(52.0, **fixtures.LM), other, fixtures.record(40.0, epochs=2, name="short"))
    figure, _ = trainings.pictures()["results_curves_cifar100"]
    panels = {axes.get_title(loc="left"): set(lines(axes)) for axes in figure.axes}
    names = {"KD from resnet20_cifar100", "KD from other"}
    assert panels == {"resnet8, 8 epochs, batch 64": names, "resnet8, 2 epochs, batch 64": {"CE (no teacher)"}}


def test_many_settings_have_a_picture_per_network(root):
    rates = [fixtures.record(50.0, lr=0.01 * (1 + number), name=f"run{number}") for number in range(22)]
    fixtures.store(*rates, fixtures.record(60.0, role="teacher", model="resnet20"))
    found = trainings.pictures()
    assert set(found) == {"results_curves_cifar100_resnet8", "results_curves_cifar100_resnet20"}
    assert max(len(lines(axes)) for axes in found["results_curves_cifar100_resnet8"][0].axes) <= 6


def test_nothing_stored_has_no_picture(root):
    assert trainings.pictures() == {}
