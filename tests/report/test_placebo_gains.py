"""The gain over the placebo: paired by seed with the run that differs in `placebo` alone."""

import math

import pytest
import record_fixtures as fixtures

from kdhelpers import gains, results, summarize
from kdhelpers import placebo as placebos
from kdhelpers.report.placebo import COLUMNS, placebo_of
from kdhelpers.zoo.benchmark import matches, published

DKD = fixtures.LM | {"method": "dkd", "hyperparameters": {}}


def placebo(top1, kind="shuffled", **run):
    return fixtures.record(top1, name=f"placebo_{kind}_{run['method']}", **run, placebo=kind)


@pytest.fixture
def stored(root):
    """Alone, DKD, KD of seeds 0 to 2; the shuffled placebo of DKD for seeds 0, 1 and 3, its mean placebo for seed 0."""
    fixtures.store(
        *(fixtures.record(50.0, seed=seed) for seed in range(3)),
        *(fixtures.record(top1, seed=seed, **DKD) for seed, top1 in enumerate((55.0, 57.0, 55.0))),
        *(fixtures.record(52.0, seed=seed, **fixtures.LM) for seed in range(3)),
        *(placebo(top1, seed=seed, **DKD) for seed, top1 in ((0, 51.0), (1, 51.5), (3, 10.0))),
        placebo(52.0, "mean", **DKD),
    )


def by_label(frame, kind="shuffled"):
    labels = dict(zip(frame["setting"], frame["label"], strict=True))
    return placebo_of(frame, kind).rename(index=labels)


def test_seeds_that_both_have_are_paired(stored):
    found = by_label(results("cifar100"))
    assert list(found.columns) == COLUMNS
    gain, std, n = found.loc["DKD"]
    assert (gain, std, n) == (pytest.approx((4 + 5.5) / 2), pytest.approx(1.5 / math.sqrt(2)), 2)
    mean = by_label(results("cifar100"), "mean").loc["DKD"]
    assert (mean["placebo_gain_points"], mean["placebo_n"]) == (pytest.approx(3.0), 1)
    assert math.isnan(mean["placebo_gain_std"])


def test_a_method_without_a_placebo_and_a_placebo_have_no_gain_over_one(stored):
    found = by_label(results("cifar100"))
    for label in ("KD", "CE (no teacher)", "DKD, placebo shuffled", "DKD, placebo mean"):
        assert found.loc[label, "placebo_n"] == 0
        assert math.isnan(found.loc[label, "placebo_gain_points"])


@pytest.mark.parametrize("change", [{"epochs": 9}, {"hyperparameters": {"beta": 2.0}}, {"model": "resnet20"}])
def test_a_placebo_of_another_setting_is_not_its_placebo(root, change):
    fixtures.store(fixtures.record(55.0, **DKD), placebo(51.0, **DKD | change))
    assert (placebo_of(results("cifar100"))["placebo_n"] == 0).all()


def test_a_placebo_of_another_teacher_is_not_its_placebo(root):
    other = placebo(51.0, **DKD)
    other["teacher"] |= {"sha256": "c" * 64}
    fixtures.store(fixtures.record(55.0, **DKD), other)
    assert (placebo_of(results("cifar100"))["placebo_n"] == 0).all()


def test_no_run_gives_an_empty_frame_with_the_columns(root):
    assert list(placebo_of(results("cifar100")).columns) == COLUMNS


def test_tables_compare_placebos_at_the_budget_of_their_method_and_name_them(stored):
    """Records that were written before there were placebos read as runs without one."""
    fixtures.store(fixtures.record(56.0, seed=5, placebo="", **DKD))
    summary = summarize(results("cifar100"))
    assert set(summary["label"]) == {"CE (no teacher)", "KD", "DKD", "DKD, placebo shuffled", "DKD, placebo mean"}
    assert summary.set_index("label").loc["DKD", "n"] == 4
    assert summary.set_index("label").loc["DKD, placebo mean", "gain_points"] == pytest.approx(2.0)
    assert set(gains.by_seed("cifar100")["method"]) == {"KD", "DKD", "DKD, placebo shuffled", "DKD, placebo mean"}


def test_the_placebo_alone_keeps_its_name(root):
    fixtures.store(fixtures.record(50.0), placebo(51.0, **DKD))
    assert list(gains.by_seed("cifar100")["method"]) == ["DKD, placebo shuffled"]


def test_students_of_an_untrained_teacher_are_labelled(root):
    untrained = fixtures.record(51.0, **DKD)
    untrained["teacher"]["untrained"] = True
    fixtures.store(untrained, fixtures.record(1.0, role="teacher", epochs=0))
    assert set(results("cifar100")["label"]) == {"DKD, untrained teacher", "untrained teacher"}


def test_a_control_is_not_beside_the_published_figure(stored):
    figure = next(row for row in published("crd_benchmark") if row["method"] == "dkd")
    run = {"method": "dkd", "hyperparameters": {}, "optimizer": "sgd", "dataset": "cifar100"}
    run["hyperparameters"] = dict(figure["hyperparameters"])
    assert matches(run, figure)
    assert not matches(run | {"placebo": "mean"}, figure)
    assert not matches(run | {"untrained_teacher": True}, figure)


def test_the_table_and_the_picture_have_both_gains(stored):
    frame = placebos.compared("cifar100", only=results("cifar100")["name"])
    texts = placebos.table(frame).data.set_index("method")
    assert texts.loc["DKD", "gain over CE (no teacher)"] == "+5.67 ± 1.15 (3 seeds)"
    assert texts.loc["DKD", "gain over placebo shuffled"] == "+4.75 ± 1.06 (2 seeds)"
    assert texts.loc["DKD", "gain over placebo mean"] == "+3.00 (1 seed)"
    assert list(texts.loc["KD"])[2:] == ["–", "–"]
    axes = placebos.picture(frame).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        label for label in frame["label"] if label != "CE (no teacher)"
    ]
    assert [text.get_text() for text in axes.texts][:3] == ["+5.67", "+4.75", "+3.00"]


def test_only_the_given_runs_are_compared(stored):
    frame = placebos.compared("cifar100", only=["student_si_resnet8_cifar100", "student_lm_resnet8_cifar100"])
    assert set(frame["label"]) == {"CE (no teacher)", "KD"}
    assert len(placebos.picture(frame).axes[0].texts) == 1
