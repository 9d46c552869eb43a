"""Pairs: what was printed stands as printed, our runs are found by their records, columns compare like with like."""

import math
import re

import pytest
import record_fixtures as fixtures

from kdhelpers import pairs
from kdhelpers.display.style import HIGHEST

BUDGET = {"epochs": 240, "val_fraction": 0.0, "selection": "last", "schedule": "multistep"}
HYPER = {
    "lm": {"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9},
    "crd": {"kd_weight": 0.0, "negatives": 16384},
    "cocord": {"kd_weight": 0.0},
    "hints": {"mode": "joint"},
    "dkd": {"beta": 2.0},
}


def student(top1_pct, method="si", seed=0, pair=("resnet56", "resnet20"), sha="a", name=None, hyper=None, **run):
    """A record of a student of the pair; its name says nothing of what it is."""
    taught = {"teacher": f"teacher_{pair[0]}_cifar100"} if method != "si" else {}
    chosen = {"hyperparameters": HYPER.get(method, {}) | (hyper or {})}
    name = name or f"run_{pair[0]}_{pair[1]}_{method}_{len(str(hyper))}_{sha}_{run.get('epochs', '')}"
    record = fixtures.record(
        top1_pct, method=method, seed=seed, model=pair[1], name=name, **BUDGET | taught | chosen | run
    )
    if taught:
        record["teacher"] |= {"model": pair[0], "sha256": sha * 64, "test_top1_pct": 72.34}
    return record


@pytest.fixture
def stored(root):
    fixtures.store(
        *(student(top1, seed=seed) for seed, top1 in enumerate((68.0, 69.0, 70.0))),
        *(student(top1, "lm", seed) for seed, top1 in enumerate((70.0, 71.0, 72.0))),
        *(student(top1, "crd", seed) for seed, top1 in enumerate((71.5, 72.5))),
        student(69.0, "crd", hyper={"kd_weight": 1.0}),
        student(68.5, "hints"),
        student(67.0, "hints", hyper={"mode": "two_stage"}),
    )


def column(frame, teacher="resnet56", student="resnet20"):
    return frame[(frame["teacher"] == teacher) & (frame["student"] == student)].set_index("method")


def test_all_thirteen_pairs_are_there_run_or_not(root):
    groups = pairs.beside_ours("cifar100")
    assert list(groups) == [pairs.SAME_STYLE, pairs.OTHER_STYLE]
    assert [frame.groupby(["teacher", "student"]).ngroups for frame in groups.values()] == [7, 6]
    assert all((frame["n"] == 0).all() for frame in groups.values())
    row = column(groups[pairs.SAME_STYLE]).loc["DKD"]
    assert (row["printed"], row["published_selection"]) == ("71.97", "test")
    assert row["published_note"].startswith("mean of 5 runs; resnet110>resnet20 from LS's table")
    assert pairs.beside_ours("digits") == {}


def test_runs_stand_in_the_row_of_their_method_and_weights(stored):
    found = column(pairs.beside_ours()[pairs.SAME_STYLE])
    assert found.loc["teacher", "test_top1_pct"] == 72.34
    assert found["test_top1_pct"].dropna().to_dict() == {
        "teacher": 72.34,
        "student": 69.0,
        "KD": 71.0,
        "FitNet": 68.5,
        "CRD": 72.0,
        "CRD+KD": 69.0,
        "Hints": 67.0,
    }
    assert found.loc["CRD", ["n", "selection", "gain_n"]].tolist() == [2, "last", 2]
    assert found.loc["CRD", "test_top1_std_pct"] == pytest.approx(math.sqrt(0.5))
    assert found.loc["CRD", "gain_points"] == 3.5
    assert math.isnan(found.loc["CoCoRD", "test_top1_pct"])
    assert found.loc["Hints", "printed"] != found.loc["Hints", "printed"]  # a row of ours alone


def test_another_budget_or_teacher_is_another_column(stored):
    fixtures.store(
        student(60.0, "lm", epochs=60),
        student(59.0, epochs=60, name="alone_60"),
        student(65.0, "lm", sha="b", name="by_another"),
        student(58.0, name="alone_at_another_rate", lr=0.1),
    )
    found = pairs.beside_ours()[pairs.SAME_STYLE]
    found = found[(found["teacher"] == "resnet56") & (found["student"] == "resnet20")]
    columns = {budget: rows.set_index("method") for budget, rows in found.groupby("budget")}
    assert len(columns) == 3
    short = columns["60 epochs, batch 64"]
    assert short.loc[["KD", "student"], "test_top1_pct"].tolist() == [60.0, 59.0]
    assert short.loc["CRD", "n"] == 0
    top1 = {budget: rows.loc["KD", "test_top1_pct"] for budget, rows in columns.items()}
    long = {budget: value for budget, value in top1.items() if budget.startswith("240 epochs")}
    assert sorted(long.values()) == [65.0, 71.0]
    assert all("teacher_resnet56_cifar100 (" in budget for budget in long)  # of one name, told apart by their hash


def test_of_several_settings_of_a_row_the_nearest_to_the_published_one_has_it(stored):
    hot = [student(75.0, "lm", seed, hyper={"temperature": 2.0}) for seed in range(4)]
    fixtures.store(*hot, student(66.0, "crd", hyper={"dim": 64}))
    found = column(pairs.beside_ours()[pairs.SAME_STYLE])
    assert found.loc["KD", "test_top1_pct"] == 71.0  # with fewer seeds
    assert found.loc["KD (T=2.0, ce_weight=0.1, kd_weight=0.9)", "test_top1_pct"] == 75.0
    assert found.loc["CRD", "test_top1_pct"] == 72.0  # as near, and with more
    assert found.loc["CRD (dim=64)", "test_top1_pct"] == 66.0


def test_a_setting_of_defaults_is_not_confused_with_the_row_of_its_title(stored):
    defaults = {"temperature": 4.0, "ce_weight": 0.5, "kd_weight": 0.5}
    fixtures.store(student(64.0, "lm", hyper=defaults, name="defaults"))
    frame = pairs.beside_ours()[pairs.SAME_STYLE]
    assert column(frame).loc[["KD", "KD (default hyperparameters)"], "test_top1_pct"].tolist() == [71.0, 64.0]
    assert cells(pairs.table(frame))["ours"]["KD (default hyperparameters)"] == "64.00 (single run) ↓ last"


def test_a_student_that_nobody_taught_yet_stands_in_its_pairs(root):
    fixtures.store(student(70.0, pair=("", "vgg8")))
    groups = pairs.beside_ours("cifar100")
    assert column(groups[pairs.SAME_STYLE], "vgg13", "vgg8").loc["student", "test_top1_pct"] == 70.0
    assert column(groups[pairs.OTHER_STYLE], "resnet50_crd", "vgg8").loc["student", "test_top1_pct"] == 70.0
    assert pairs.OUR_OWN not in groups


def test_other_pairs_and_other_data_have_their_own_group_without_empty_rows(stored):
    fixtures.store(
        student(50.0, "lm", pair=("resnet20", "resnet8")),
        student(49.0, pair=("", "resnet8")),
        student(90.0, "lm", dataset="digits", name="d_lm"),
    )
    own = pairs.beside_ours()[pairs.OUR_OWN]
    assert own[["dataset", "teacher", "student", "method", "test_top1_pct"]].values.tolist() == [
        ["cifar100", "resnet20", "resnet8", "teacher", 72.34],
        ["cifar100", "resnet20", "resnet8", "student", 49.0],
        ["cifar100", "resnet20", "resnet8", "KD", 50.0],
        ["digits", "resnet56", "resnet20", "teacher", 72.34],
        ["digits", "resnet56", "resnet20", "KD", 90.0],
    ]
    assert own["printed"].isna().all()
    assert list(pairs.beside_ours("digits")) == [pairs.OUR_OWN]
    shown = pairs.table(own)
    assert "not evidence for a method" in shown.to_html()
    assert [head[2] for head in shown.data] == ["method", "ours", "ours", "our setting"]


def cells(styler, pair="resnet56 → resnet20"):
    place = [head for head in styler.data if head[0] == pair]
    return {head[2]: dict(zip(styler.data["", "", "method"], styler.data[head], strict=True)) for head in place}


def test_the_table_has_figures_seeds_rules_and_arrows_over_kd_of_the_same_source(stored):
    styler = pairs.table(pairs.beside_ours()[pairs.SAME_STYLE])
    found = cells(styler)
    assert {method: text for method, text in found["ours"].items() if text != "–"} == {
        "teacher": "72.34",
        "student": "69.00 ± 1.00 (n 3) last",
        "KD": "71.00 ± 1.00 (n 3) last",
        "FitNet": "68.50 (single run) ↓ last",
        "CRD": "72.00 ± 0.71 (n 2) ↑ last",
        "CRD+KD": "69.00 (single run) ↓ last",
        "Hints": "67.00 (single run) ↓ last",
    }
    assert found["published"]["KD"] == "70.66 last"
    assert found["published"]["FitNet"] == "69.21 ↓ last"
    assert found["published"]["DKD"] == "71.97 ↑ test"
    assert found["published"]["CoCoRD"] == "71.74 test"  # three views: not compared with KD
    assert (found["published"]["student"], found["published"]["Hints"]) == ("69.06", "–")
    settings = dict(zip(styler.data["", "", "method"], styler.data["", "", "our setting"], strict=True))
    assert settings["KD"] == "KD (ce_weight=0.1, kd_weight=0.9)"
    html = styler.to_html()
    assert "nan" not in html.lower()
    assert "DKD, published: mean of 5 runs" in html
    assert "RLD, published: second-hand; mean of 3" in html
    assert "LumiNet: settings not published for wrn_40_2 → wrn_16_2, resnet56 → resnet20, resnet110 → resnet32 · " in (
        styler.conditions
    )
    assert "240 epochs, batch 64" in html


def test_the_best_of_each_source_is_bold_and_the_teacher_never(stored):
    styler = pairs.table(pairs.beside_ours()[pairs.SAME_STYLE]).main
    styler._compute()
    heads = list(styler.data)
    rows = list(styler.data["", "", "method"])
    bold = {
        (heads[place][2], rows[row])
        for (row, place), css in styler.ctx.items()
        if ("font-weight", "bold") in css and heads[place][0] == "resnet56 → resnet20"
    }
    assert bold == {("ours", "CRD"), ("published", "DKD+LS")}


def test_published_figures_of_a_larger_budget_come_last_and_are_not_compared(stored):
    fixtures.store(student(74.0, "cocord"))
    frame = pairs.beside_ours()[pairs.SAME_STYLE]
    styler = pairs.table(frame)
    methods = list(styler.data["", "", "method"])
    budgets = dict(zip(methods, styler.data["", "", "published budget"], strict=True))
    assert [budgets[name] for name in ("teacher", "student", "KD", "CoCoRD", "MLKD", "Hints")] == [
        *("–", "1×", "1×", "3×", "4×", "–")
    ]
    larger = [name for name in methods if budgets[name] not in ("–", "1×")]
    assert methods[-len(larger) :] == larger
    assert "CutMix+KD (SuperMix)" in larger
    found = cells(styler)
    assert (found["ours"]["CoCoRD"], found["published"]["MLKD+LS"]) == ("74.00 (single run) ↑ last", "72.33 test")
    assert "epochs times views of an image in a step" in styler.caption
    (other,) = [frame for group, frame in pairs.beside_ours().items() if group == pairs.OTHER_STYLE]
    shown = pairs.table(other).data
    in_other = dict(zip(shown["", "", "method"], shown["", "", "published budget"], strict=True))
    assert in_other["MLKD"] == "4×, 8×"
    assert "MixUp+KD (SuperMix)" not in in_other  # without a figure, and none of our methods
    axes = next(axes for axes in pairs.bars(frame).axes if axes.get_title() == "resnet56 → resnet20")
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert "CoCoRD" in labels  # we ran it
    assert not {"MLKD", "MixUp+KD (SuperMix)"} & set(labels)
    marks = {
        labels[int(line.get_xdata()[0])] for line in axes.lines if line.get_marker() == "D" and line.get_ydata()[0] > 0
    }
    assert "CoCoRD" not in marks


def test_a_note_on_the_teacher_is_shown_wherever_it_bears(root):
    told = {"notes": ["leakage: it had seen the test images"]}
    taught = student(70.0, "lm", dataset="imagenette") | told
    taught["teacher"] |= told
    fixtures.store(taught, student(69.0, dataset="imagenette", name="alone"))
    frame = pairs.beside_ours("imagenette")[pairs.OUR_OWN]
    styler = pairs.table(frame)
    (ours,) = cells(styler).values()
    assert ours == {"teacher": "72.34 †", "student": "69.00 (single run) last", "KD": "70.00 (single run) last †"}
    assert styler.to_html().count("† leakage: it had seen the test images") == 1
    figure = pairs.bars(frame)
    assert "† leakage" in figure.get_suptitle()
    assert figure.axes[0].get_title().endswith("†")


def test_with_and_without_kd_are_two_rows_though_one_alone_is_stored(root):
    fixtures.store(student(72.34, "crd", hyper={"kd_weight": 0.5}), student(71.0))
    frame = pairs.beside_ours()[pairs.SAME_STYLE]
    assert column(frame)["test_top1_pct"].dropna().to_dict() == {"teacher": 72.34, "student": 71.0, "CRD+KD": 72.34}
    styler = pairs.table(frame).main
    styler._compute()
    row = list(styler.data["", "", "method"]).index("teacher")
    assert not any(css for (where, _), css in styler.ctx.items() if where == row)  # though no student is better


def test_without_kd_of_ours_there_is_no_arrow_of_ours(root):
    fixtures.store(student(70.0, "crd"))
    assert cells(pairs.table(pairs.beside_ours()[pairs.SAME_STYLE]))["ours"]["CRD"] == "70.00 (single run) last"


def test_names_are_escaped_in_the_headers_too(root):
    record = student(70.0, "crd", pair=("resnet20", "resnet8"))
    record["teacher"]["model"] = "<b>x</b>"
    fixtures.store(record)
    html = pairs.table(pairs.beside_ours()[pairs.OUR_OWN]).to_html()
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html


def test_bars_hang_from_the_student_and_published_figures_are_marks(stored):
    frame = pairs.beside_ours()[pairs.SAME_STYLE]
    figure = pairs.bars(frame)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert len(panels) == 7
    axes = panels["resnet56 → resnet20"]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[:4] == ["student", "KD", "FitNet", "CRD"]
    drawn = {labels[round(bar.get_x() + bar.get_width() / 2)]: bar for bar in axes.patches}
    assert {label: (bar.get_y(), bar.get_height()) for label, bar in drawn.items()} == {
        "KD": (69.0, 2.0),
        "FitNet": (69.0, -0.5),
        "CRD": (69.0, 3.0),
        "CRD+KD": (69.0, 0.0),
        "Hints": (69.0, -2.0),
    }
    marks = {labels[int(line.get_xdata()[0])]: line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D"}
    assert marks["DKD"] == 71.97
    whiskers = [line for line in axes.lines if line.get_marker() == "_"]
    assert len(whiskers) == 2 * 3  # student, KD, CRD; none for a single run
    empty = panels["vgg13 → vgg8"]
    assert not empty.patches
    assert re.search("not run yet", " ".join(text.get_text() for text in empty.texts))


def test_without_our_student_alone_there_is_a_point_and_no_bar(root):
    fixtures.store(student(70.0, "crd", seed=0), student(72.0, "crd", seed=1))
    axes = next(
        axes
        for axes in pairs.bars(pairs.beside_ours()[pairs.SAME_STYLE]).axes
        if axes.get_title() == "resnet56 → resnet20"
    )
    assert not axes.patches
    assert any(line.get_marker() == "o" and line.get_ydata()[0] == 71.0 for line in axes.lines)


def test_bars_of_another_optimiser_hang_from_the_student_that_their_gain_is_over(root):
    lion = student(72.0, "conkd", dataset="imagenette", optimizer="lion", lr=0.001)
    fixtures.store(lion, student(69.0, dataset="imagenette", name="alone"))
    figure = pairs.bars(pairs.beside_ours("imagenette")[pairs.OUR_OWN])
    (axes,) = (axes for axes in figure.axes if axes.get_title())
    (bar,) = axes.patches
    assert (bar.get_y(), bar.get_height()) == (69.0, 3.0)
    assert "CE (no teacher) by SGD" in [text.get_text() for text in axes.texts]


def test_bars_of_many_pairs_are_those_with_most_settings_of_ours(root):
    pairs_of_ours = [("resnet20", f"resnet{8 + number}") for number in range(12)]
    fixtures.store(*(student(70.0, "crd", pair=pair, name=pair[1]) for pair in pairs_of_ours))
    fixtures.store(student(70.0, "lm", pair=pairs_of_ours[-1], name="kd"))
    figure = pairs.bars(pairs.beside_ours()[pairs.OUR_OWN])
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 9
    assert "resnet20 → resnet19" in titles
    assert "panels that are left out: 3; the table has all" in figure.get_suptitle()
    assert figure.get_size_inches()[1] <= HIGHEST
