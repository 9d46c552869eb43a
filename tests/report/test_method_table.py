"""The table of methods: gains over no teacher and over the placebo, families, costs, published figures."""

import math

import pandas
import pytest
import record_fixtures as fixtures

from kdhelpers import method_table
from kdhelpers.report.method_table.frame import family

DKD = fixtures.LM | {"method": "dkd", "hyperparameters": {}}
PLACEBO = fixtures.LM | {"placebo": "shuffled", "name": "placebo"}


@pytest.fixture
def stored(root):
    """Alone, KD and its placebo with seeds 0 to 2, DKD with seed 0, at one budget; KD alone at another."""
    fixtures.store(
        *(fixtures.record(top1, seed=seed) for seed, top1 in enumerate((50.0, 51.0, 49.0))),
        *(fixtures.record(top1, seed=seed, **fixtures.LM) for seed, top1 in enumerate((52.0, 52.5, 51.5))),
        *(fixtures.record(top1, seed=seed, **PLACEBO) for seed, top1 in enumerate((51.0, 52.0, 50.0))),
        fixtures.record(55.0, **DKD),
        fixtures.record(40.0, epochs=2, name="short"),
    )


def rows_of(frame) -> dict:
    return {row["method"]: row for row in frame.to_dict("records")}


def test_gains_are_over_the_student_alone_and_over_the_placebo(stored):
    rows = rows_of(method_table.frame("cifar100"))
    assert list(rows) == ["DKD", "KD", "KD, placebo shuffled", "CE (no teacher)"]  # best first
    assert rows["KD"]["gain_points"] == pytest.approx(2.0)
    assert rows["KD"]["gain_std_points"] == pytest.approx(0.5)
    assert rows["KD"]["placebo_gain_points"] == pytest.approx(1.0)
    assert (rows["KD"]["placebo_n"], rows["DKD"]["placebo_n"]) == (3, 0)
    assert math.isnan(rows["DKD"]["placebo_gain_points"])


def test_a_family_is_what_the_method_reads_of_its_teacher(stored):
    rows = rows_of(method_table.frame("cifar100"))
    assert {name: row["family"] for name, row in rows.items()} == {
        "DKD": "logits",
        "KD": "logits",
        "KD, placebo shuffled": "control",
        "CE (no teacher)": "no teacher",
    }
    assert family({"method": "crd", "hyperparameters": {}}) == "embeddings"
    assert family({"method": "hints", "hyperparameters": {}}) == "feature maps"
    assert family({"method": "lm", "hyperparameters": {}, "untrained_teacher": True}) == "control"
    assert family({"method": "of an earlier version", "hyperparameters": {}}) == ""


def test_students_of_an_untrained_teacher_are_controls_of_the_table(stored):
    other = fixtures.record(49.0, **fixtures.LM | {"name": "control"})
    other["teacher"] |= {"sha256": "c" * 64, "untrained": True}
    fixtures.store(other)
    frame = method_table.frame("cifar100")
    assert set(frame.loc[frame["family"] == "control", "name"]) == {"placebo_seed2", "control"}


def test_a_method_with_an_augmentation_of_its_own_gains_over_the_student_alone_of_that(stored):
    strong = {"augmentation": "crop=4 flip cutout=8"}
    mlkd = fixtures.LM | {"method": "mlkd", "hyperparameters": {}, "name": "mlkd"}
    fixtures.store(fixtures.record(45.0, name="strong_si", **strong), fixtures.record(48.0, **mlkd, **strong))
    frame = method_table.frame("cifar100")
    rows = rows_of(frame)
    assert rows["MLKD (other augmentation)"]["gain_points"] == pytest.approx(3.0)
    assert rows["MLKD (other augmentation)"]["views"] == 2
    assert list(frame["method"]).count("CE (no teacher)") == 1
    assert method_table.with_costs(frame, rounds=1)["step_ratio"].notna().all()


@pytest.mark.parametrize("pair", ["resnet56 resnet20", "resnet56>resnet20"])
def test_published_figures_stand_with_their_methods_and_budgets(stored, pair):
    rows = rows_of(method_table.frame("cifar100", published_pair=pair))
    assert (rows["KD"]["published_pct"], rows["KD"]["published_budget"]) == (70.66, 1)
    assert rows["KD"]["published_gain_points"] == pytest.approx(70.66 - 69.06)
    assert math.isnan(rows["KD, placebo shuffled"]["published_pct"])
    assert rows_of(method_table.frame("cifar100"))["KD"]["published_selection"] == ""  # our own pair has no figures
    with pytest.raises(ValueError, match="published_pair = resnet20 resnet8: not a pair of the CRD benchmark; known: "):
        method_table.frame("cifar100", published_pair="resnet20 resnet8")


def test_without_a_student_to_compare_with_all_is_empty(root):
    frame = method_table.with_costs(method_table.frame("cifar100"))
    assert frame.empty
    for table in (method_table.table(frame), method_table.published(frame)):
        assert "no stored student" in str(table)
    assert not method_table.picture(frame).axes[0].texts


@pytest.fixture
def costed(stored, monkeypatch):
    monkeypatch.setattr("kdhelpers.training.cost.MOST_BYTES", 3 * 32**2 * 200)
    return method_table.with_costs(method_table.frame("cifar100", published_pair="resnet56 resnet20"), rounds=1)


def test_costs_are_relative_to_kd(costed):
    rows = rows_of(costed)
    assert rows["KD"]["teacher_images"] == rows["DKD"]["student_images"] == 1
    assert rows["CE (no teacher)"]["teacher_images"] == rows["KD"]["trained_parameters"] == 0
    assert (costed["step_ratio"] > 0).all()


def test_the_tables_and_the_picture_have_every_method(costed):
    text = str(method_table.table(costed))
    assert "+1.00 ± 0.00 (3 seeds)" in text
    assert "55.00 (single run)" in text
    assert "0.033" in str(method_table.published(costed))  # 8 of 240 epochs
    names = {text.get_text() for text in method_table.picture(costed).axes[0].texts}
    assert names == set(costed["method"])


def test_a_gain_far_below_the_others_stands_at_the_edge(costed):
    rows = pandas.concat([costed.assign(method=costed["method"] + f" {i}") for i in range(3)], ignore_index=True)
    rows.loc[0, "gain_points"] = -40.0
    axes = method_table.picture(rows).axes[0]
    assert axes.get_ylim()[0] > -10
    assert any("(−40.0)" in text.get_text() for text in axes.texts)


def test_zero_rounds_measure_nothing(stored):
    frame = method_table.with_costs(method_table.frame("cifar100"), rounds=0)
    assert frame["step_ratio"].isna().all()
    assert str(method_table.table(frame))


def test_a_frame_without_costs_has_dashes_in_their_place(stored):
    frame = method_table.frame("cifar100")
    data = method_table.table(frame).data
    assert not method_table.picture(frame).axes[0].texts
    assert set(data["step (× KD)"]) == {"–"}
