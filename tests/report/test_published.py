"""Published figures beside ours: what is matched with what, and what is subtracted from what."""

import math

import pytest
import record_fixtures as fixtures

from kdhelpers import METHODS, results, summarize
from kdhelpers.report import published

BUDGET = {"selection": "last", "model": "resnet18"}
TAUGHT = {"teacher": "teacher_resnet50_cifar100"}
PURE = {"alpha": 1.0, "beta": 12.0, "temperature": 0.07, "lam": 1.0, "form": "in", "teacher_head": "co_trained"}
PURE |= {"dim": 128}
SUPCON = {"method": "supcon", "hyperparameters": {"temperature": 0.07, "form": "out", "dim": 128}}


def student(top1_pct, name, seed=0, **run):
    return fixtures.record(top1_pct, name=name, seed=seed, **BUDGET | run)


def supcrd(top1_pct, name, seed=0, teacher="teacher_resnet50_cifar100", budget=None, **hyperparameters):
    chosen = {"method": "supcrd", "teacher": teacher, "hyperparameters": PURE | hyperparameters}
    return student(top1_pct, name, seed, **chosen | (budget or {}))


@pytest.fixture
def stored(root):
    fixtures.store(
        *(student(top1, "supcon", seed, **SUPCON) for seed, top1 in enumerate((40.0, 42.0, 44.0))),
        *(supcrd(top1, "pure", seed) for seed, top1 in enumerate((45.0, 46.0))),
        supcrd(50.0, "hybrid", lam=0.3),
        supcrd(51.0, "own_setting", lam=0.35),
        student(39.0, "alone"),
        supcrd(99.0, "other_head", teacher_head="frozen_random"),
        supcrd(98.0, "longer", budget={"epochs": 9}, beta=1.0),
    )


def by_setting(name="pure"):
    return published.beside_ours("supcrd", name).set_index("method")


def test_every_published_figure_has_a_row_in_its_order_and_ours_stand_beside(stored):
    frame = by_setting()
    assert list(frame.index[:3]) == ["teacher", "SupCon + linear probe", "SupCRD α 1, β 1"]
    row = frame.loc["SupCRD α 1, β 12"]
    assert (row["published_pct"], row["published_gain_points"]) == (70.9, pytest.approx(70.9 - 69.08))
    assert (row["test_top1_pct"], row["n"]) == (45.5, 2)
    assert row["test_top1_std_pct"] == pytest.approx(math.sqrt(0.5))


def test_gains_are_over_the_supcon_baseline_in_pairs_of_one_seed(stored):
    row = by_setting().loc["SupCRD α 1, β 12"]
    assert row["over_baseline_n"] == 2
    assert row["over_baseline_points"] == 4.5  # (45 - 40 + 46 - 42) / 2; the means of unequal seeds differ by 3.5
    assert row["over_baseline_std_points"] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(by_setting().loc["SupCon + linear probe", "over_baseline_points"])


def test_the_gain_is_that_of_every_other_table(stored):
    summary = summarize(results()).set_index("label")
    row = by_setting().loc["SupCRD α 1, β 12"]
    assert (row["gain_points"], row["gain_n"]) == (6.0, 1)  # over CE (no teacher), which has seed 0 alone
    assert summary.loc["SupCRD", "gain_points"] == 6.0
    table = published.table("supcrd", "pure").data.set_index("setting")
    assert table.loc["SupCRD α 1, β 12", "our paired gain"] == "+6.00 (1 seed)"


def test_the_teachers_own_accuracy_stands_beside_the_published_one(stored):
    row = by_setting().loc["teacher"]
    assert (row["published_pct"], row["test_top1_pct"]) == (72.17, fixtures.TEACHER_TOP1_PCT)


def test_what_was_not_run_or_not_published_is_missing_not_zero(stored):
    frame = by_setting()
    assert math.isnan(frame.loc["SupCRD α 1, β 1", "test_top1_pct"])  # only run at another budget
    assert frame.loc["SupCRD α 1, β 1", "n"] == 0
    assert math.isnan(frame.loc["SupCRD α 1, β 12, T 0.05", "published_pct"])


def test_other_methods_and_settings_of_the_budget_follow_below(stored):
    frame = by_setting()
    printed = len(published.published("supcrd"))
    assert {"CE (no teacher)", "SupCRD (λ=0.35)"} <= set(frame.index[printed:])
    assert frame.loc["CE (no teacher)", "over_baseline_points"] == -1.0


def test_another_teacher_head_is_not_mixed_in(stored):
    assert by_setting().loc["SupCRD α 1, β 12", "test_top1_pct"] == 45.5
    assert by_setting("other_head").loc["SupCRD α 1, β 12", "test_top1_pct"] == 99.0


def test_another_teacher_of_that_name_is_not_mixed_in(stored):
    again = supcrd(97.0, "taught_by_another", beta=1.0)
    again["teacher"]["sha256"] = "f" * 64
    fixtures.store(again)
    assert by_setting().loc["SupCRD α 1, β 1", "n"] == 0


def test_a_method_run_in_other_settings_too_is_matched_by_its_defaults(stored):
    hot = SUPCON["hyperparameters"] | {"temperature": 0.5}
    fixtures.store(student(60.0, "z_supcon_hot", method="supcon", hyperparameters=hot))
    frame = by_setting()
    assert (frame.loc["SupCon + linear probe", "test_top1_pct"], frame.loc["SupCon + linear probe", "n"]) == (42.0, 3)
    assert frame.loc["SupCRD α 1, β 12", "over_baseline_points"] == 4.5
    assert frame.loc["SupCon (T=0.5)", "test_top1_pct"] == 60.0
    fixtures.store(supcrd(44.0, "z_hybrid_out", lam=0.3, form="out"), student(47.0, "logits", **fixtures.LM | TAUGHT))
    assert by_setting("logits").loc["hybrid λ 0.3", "test_top1_pct"] == 50.0


def test_a_teacher_as_reference_has_a_table_without_runs(stored):
    fixtures.store(student(80.0, "the_teacher", role="teacher", epochs=30))
    assert (by_setting("the_teacher")["n"] == 0).all()


def test_a_reference_without_a_teacher_has_a_table_too(stored):
    assert "ours: resnet18 on cifar100" in published.table("supcrd", "alone").to_html()


def test_the_table_shows_missing_runs_as_dashes_and_says_what_is_compared(stored):
    table = published.table("supcrd", "pure")
    html = table.to_html()
    assert "nan" not in html.lower()
    assert "45.50 ± 0.71" in set(table.data["ours (%)"])
    assert "+4.50 ± 0.71 (2 seeds)" in set(table.data["ours over SupCon + linear probe"])
    assert "over n = 1 to 3 seeds" in table.caption
    assert table.caption.startswith("supcrd, published: resnet50 teaches resnet18; ours: resnet20 teaches resnet18")
    budget = "distilled from teacher_resnet50_cifar100 on cifar100 at 32 px, 8 epochs, batch 64, sgd, selection last"
    assert budget in table.conditions
    assert table.data["published budget"].tolist()[:3] == ["–", "0.42×", "0.42×"]  # 50 epochs of two views
    assert "published budget: epochs times views" in table.conditions


def test_unknown_studies_and_runs_are_refused_with_those_known(stored):
    with pytest.raises(ValueError, match="study = nothing: unknown; known: supcrd"):
        published.published("nothing")
    with pytest.raises(ValueError, match="name = nothing: not a finished run; known: "):
        published.table("supcrd", "nothing")


def test_every_published_setting_is_one_that_its_method_takes():
    for figure in published.published("supcrd"):
        if figure["role"] != "teacher":
            METHODS[figure["method"]](**figure["hyperparameters"])


CONKD = {"method": "conkd", "hyperparameters": {"alpha": 0.15, "temperature": 2.0}, **TAUGHT}
CONKD |= {"dataset": "imagenette", "optimizer": "lion"}


def test_a_study_without_a_baseline_stands_beside_ours_without_gains(root):
    fixtures.store(student(70.0, "ours", **CONKD))
    frame = published.beside_ours("conkd_lion", "ours").set_index("method")
    assert frame["printed"].tolist() == ["97", "92"]
    assert frame["published_gain_points"].isna().all()
    assert frame.loc["ResNet-18, ConKD with Lion", "test_top1_pct"] == 70.0
    assert frame["gain_points"].isna().all()
    assert "seen the test images" in frame["published_note"].iloc[0]
    table = published.table("conkd_lion", "ours")
    assert "published budget" not in table.data  # none was printed
    html = table.to_html()
    assert "published: single runs on imagenette at 224 px · ours: resnet18" in html
    assert "batch 64, lion, selection last" in html
    assert "compares order, not percentages" in html  # no gains were printed


def test_runs_by_another_optimiser_or_on_other_images_stand_below_not_beside(root):
    other = CONKD | {"optimizer": "adamw"}
    elsewhere = CONKD | {"dataset": "cifar100"}
    fixtures.store(student(71.0, "adam", **other), student(72.0, "elsewhere", **elsewhere))
    for name, top1, teacher in (("adam", 71.0, fixtures.TEACHER_TOP1_PCT), ("elsewhere", 72.0, math.nan)):
        frame = published.beside_ours("conkd_lion", name).set_index("method")
        assert frame["test_top1_pct"].tolist() == pytest.approx([teacher, math.nan, top1], nan_ok=True)


@pytest.mark.parametrize("leaky", ["teacher", "student", "neither"])
def test_an_accuracy_with_a_note_is_marked_and_the_note_is_said(root, leaky):
    ours = student(70.0, "ours", **CONKD)
    ours["notes"] = [] if leaky == "neither" else ["leakage: seen"]
    ours["teacher"]["notes"] = ["leakage: seen"] if leaky == "teacher" else []
    fixtures.store(ours)
    shown = published.table("conkd_lion", "ours")
    assert [text.endswith("†") for text in shown.data["ours (%)"]] == [leaky == "teacher", leaky != "neither"]
    assert shown.to_html().count("† leakage: seen") == (leaky != "neither")


def test_published_figures_are_shown_with_the_digits_that_were_printed(stored):
    shown = published.table("supcrd", "pure").data["published (%)"].tolist()
    assert shown[:4] == ["72.17", "69.08", "69.7", "70.1"]
    assert shown[-1] == "–"  # our own setting, which nobody printed


def test_each_budget_with_a_student_of_a_study_is_listed_once(stored):
    fixtures.store(student(70.0, "lion", **CONKD), student(71.0, "adam", **CONKD | {"optimizer": "adamw"}))
    assert published.stored() == [("supcrd", "hybrid"), ("conkd_lion", "lion"), ("supcrd", "longer")]
    assert published.stored("imagenette") == [("conkd_lion", "lion")]
    assert published.stored("digits") == []


def test_a_gain_over_a_student_by_another_optimiser_names_it(root):
    fixtures.store(student(70.0, "ours", **CONKD), student(66.0, "alone", dataset="imagenette"))
    data = published.table("conkd_lion", "ours").data.set_index("setting")
    assert data.loc["ResNet-18, ConKD with Lion", ["our paired gain", "gain over"]].tolist() == [
        "+4.00 (1 seed)",
        "CE (no teacher) by SGD",
    ]
    assert data.iloc[0]["gain over"] == ""  # the teacher
