"""Figures draw the given data, and saved files hold it."""

import re
import subprocess
import sys

import numpy
import pandas
import pytest
import record_fixtures as fixtures
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from kdhelpers.display import plots
from kdhelpers.display.colours import colour_of
from kdhelpers.display.curves import short_names
from kdhelpers.display.style import HIGHEST, MAX_WIDTH
from kdhelpers.report.results import results, summarize


def drawn(axes):
    """The lines of an axes that have a label, as label -> y values."""
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines if not line.get_label().startswith("_")}


def overlapping(figure):
    """Pairs of texts whose drawn boxes overlap."""
    figure.draw_without_rendering()  # lays it out
    # Numbers are left out: matplotlib thins tick labels itself, and keeps undrawn ones outside the axes.
    texts = [text for text in figure.findobj(Text) if re.search("[a-zA-Z]", text.get_text()) and text.get_visible()]
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts]  # without an annotation's line
    return [(a, b) for number, (a, one) in enumerate(boxes) for b, other in boxes[number + 1 :] if one.overlaps(other)]


@pytest.mark.parametrize("kind", [torch.from_numpy, lambda array: array])
def test_samples_shows_every_image_under_its_title(kind):
    images = numpy.random.default_rng(0).integers(0, 256, (11, 3, 8, 8), dtype=numpy.uint8)
    figure = plots.samples(kind(images), [f"class {number}" for number in range(11)], columns=4)
    assert len(figure.axes) == 12
    for number, axes in enumerate(figure.axes[:11]):
        assert axes.get_title() == f"class {number}"
        assert numpy.array_equal(axes.images[0].get_array(), images[number].transpose(1, 2, 0))
    assert not figure.axes[11].images
    assert not overlapping(figure)


def test_samples_wants_a_title_per_image():
    with pytest.raises(ValueError, match="titles: 1 given for 2 images"):
        plots.samples(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ["one"])


def test_long_titles_do_not_run_into_each_other():
    figure = plots.samples(torch.zeros(8, 3, 32, 32, dtype=torch.uint8), ["aquarium_fish_with_a_long_name"] * 8)
    assert not overlapping(figure)


def test_names_with_dollars_are_not_formulas():
    figure = plots.samples(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ["a$_$", "5$"])
    figure.draw_without_rendering()  # as a notebook does, outside the house style
    assert figure.axes[0].get_title() == "a$_$"


def test_curves_has_a_panel_per_loss_term_and_accuracy():
    student, distilled = fixtures.history(4, 50.0), fixtures.history(4, 52.0, ("ce", "kd"))
    figure = plots.curves({"CE (no teacher)": student, "KD (T=4.0)": distilled}, teacher_top1_pct=60.0)
    ce, kd, accuracy, _ = figure.axes
    assert [axes.get_title(loc="left").split()[0] for axes in (ce, kd, accuracy)] == ["ce", "kd", "accuracy"]
    assert [list(line.get_ydata()) for line in ce.lines] == [[row["ce"] for row in run] for run in (student, distilled)]
    assert [list(line.get_ydata()) for line in kd.lines] == [[row["kd"] for row in distilled]]  # CE has no such term
    assert kd.lines[0].get_color() == ce.lines[1].get_color()  # a run keeps its colour
    assert drawn(accuracy)["KD (T=4.0)"] == [row["val_top1_pct"] for row in distilled]
    teacher = accuracy.lines[-1]
    assert (teacher.get_linestyle(), teacher.get_ydata()[0]) == ("--", 60.0)
    assert names(accuracy) == ["CE (no teacher)", "KD", "teacher (test 60.0 %)"]  # from the lowest end to the highest
    assert [text.get_color() for text in kd.texts] == [kd.lines[0].get_color()] == [colour_of("KD")]
    assert all(axes.get_xlabel() == "epoch" and axes.get_ylabel() for axes in (ce, kd, accuracy))
    assert not figure.legends
    assert_readable(figure)


def names(axes):
    return [text.get_text().replace("\n", " ") for text in axes.texts]


def assert_readable(figure):
    """No text overlaps another one or leaves the figure."""
    assert not overlapping(figure)
    boxes = [Text.get_window_extent(text) for axes in figure.axes for text in axes.texts]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    assert all(box.y0 >= 0 and box.y1 <= figure.bbox.height for box in boxes)


@pytest.mark.parametrize("label", ["KD", "a_name_without_a_space_" * 5, "words of a long name " * 5])
def test_four_panels_are_two_by_two_and_names_stay_inside(label):
    rows = [{"epoch": epoch, "ce": 1.0, "kd": 1.0, "crd": 1.0, "val_top1_pct": 50.0} for epoch in (1, 2)]
    figure = plots.curves({label: rows})
    assert figure.axes[0].get_gridspec().ncols == 2
    assert_readable(figure)


def test_more_than_six_runs_have_panels_of_six_with_the_student_alone_the_best_first():
    runs = {f"KD (T={number}.0)": fixtures.history(5, 50.0 + number, ("ce", "kd")) for number in range(20)}
    figure = plots.curves(runs | {"CE (no teacher)": fixtures.history(5, 40.0)}, 70.0)
    panels = [set(drawn(axes)) - {"teacher"} for axes in figure.axes]
    assert [len(panel) for panel in panels] == [6, 6, 6, 6]
    assert all("CE (no teacher)" in panel for panel in panels)
    assert set.union(*panels) == {*runs, "CE (no teacher)"}
    assert "KD (T=19.0)" in panels[0]
    assert "KD (T=0.0)" in panels[-1]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    looks = {(line.get_color(), str(line.get_linestyle())) for line in figure.axes[0].lines if line.get_linewidth() > 1}
    assert len(looks) >= 4  # lines of one method differ in their style
    assert_readable(figure)


def test_names_lose_what_does_not_distinguish_them():
    names = {
        "KD (T=2.0) (n = 3)": "KD",
        "CRD (β=1.0, T=2.0)": "CRD (β=1.0)",
        "CRD (β=2.0, T=2.0)": "CRD (β=2.0)",
        "CE (no teacher) (single run)": "CE (no teacher)",
        "DKD (n = 3)": "DKD",
        "DKD (β=2.0) (n = 3)": "DKD (β=2.0)",
        "KD (T=2.0), placebo mean": "KD, placebo mean",
    }
    assert short_names(list(names)) == names


def without_accuracy(epochs=3):
    return [row | {"train_top1_pct": None, "val_top1_pct": None} for row in fixtures.history(epochs, terms=("supcon",))]


def test_a_run_without_accuracy_is_in_the_legend_and_leaves_no_empty_panel():
    alone = plots.curves({"SupCon": without_accuracy()})
    assert [axes.get_title(loc="left") for axes in alone.axes if axes.axison] == ["supcon loss"]
    assert names(alone.axes[0]) == ["SupCon"]
    both = plots.curves({"SupCon": without_accuracy(), "SI": fixtures.history(3)}, 60.0)
    assert names(both.axes[0]) == ["SupCon"]
    assert names(both.axes[2]) == ["SI", "teacher (test 60.0 %)"]
    assert set(drawn(both.axes[2])) >= {"SI"}
    assert "SupCon" not in drawn(both.axes[2])


@pytest.mark.filterwarnings("error")
def test_live_says_when_accuracy_comes_later():
    accuracy = plots.live(without_accuracy(), epochs=8).axes[1]
    assert [text.get_text() for text in accuracy.texts] == ["measured at the end"]


@pytest.mark.parametrize("records", [{}, {"SI": []}, {"SI": fixtures.history(1)}, {"SI": [{"epoch": 1, "loss": 2.0}]}])
def test_curves_of_little_or_nothing_still_draw(records):
    assert plots.png(plots.curves(records)).startswith(b"\x89PNG")


def test_missing_values_leave_no_point():
    history = fixtures.history(3)
    history[1] = history[1] | {"val_top1_pct": None}
    assert len(drawn(plots.curves({"SI": history}).axes[1])["SI"]) == 2


def test_live_leaves_room_for_the_epochs_to_come():
    losses, accuracy = plots.live(fixtures.history(2, terms=("ce", "kd")), epochs=8).axes
    assert set(drawn(losses)) == {"ce", "kd"}
    assert set(drawn(accuracy)) == {"training", "validation"}
    assert losses.get_xlim()[1] >= 8


def test_live_does_not_cut_off_the_labels_of_its_axes():
    losses = 2.216, 1.561, 1.019  # ticks of 0.5, or of 0.25 in higher axes
    accuracies = (17.9, 22.2), (46.6, 66.0), (75.0, 81.2)
    history = [
        {"epoch": epoch, "ce": loss, "train_top1_pct": training, "val_top1_pct": validation}
        for epoch, (loss, (training, validation)) in enumerate(zip(losses, accuracies, strict=True), 1)
    ]
    figure = plots.live(history, 3)
    figure.set_dpi(110)
    with plots.styled():
        figure.draw_without_rendering()
    assert min(axes.yaxis.label.get_window_extent().x0 for axes in figure.axes) >= 0


@pytest.fixture
def summary(root):
    fixtures.store(*fixtures.study())
    return summarize(results())


def bars_of(axes):
    labels = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(labels, (bar.get_width() for bar in axes.patches), strict=True))


def test_bars_show_mean_deviation_and_n_in_a_panel_per_network_and_budget(summary):
    figure = plots.bars(summary)
    teachers, students = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["teachers", "resnet8, 8 epochs, batch 64"]
    assert bars_of(teachers) == {"resnet20, 8 epochs, batch 64 (n = 1)": 60.0}
    assert bars_of(students) == {"KD (T=2.0) (n = 1)": 53.0, "KD (n = 3)": 52.0, "CE (no teacher) (n = 3)": 50.0}
    whiskers = [container.errorbar for container in students.containers if getattr(container, "errorbar", None)]
    spans = sorted(float(numpy.ptp(bar.lines[2][0].get_segments()[0][:, 0])) for bar in whiskers)
    assert spans == pytest.approx([1.0, 2.0])  # twice the deviation, for the two settings that have one
    colours = [to_hex(bar.get_facecolor()).upper() for axes in figure.axes for bar in axes.patches]
    assert colours == ["#000000", colour_of("CE (no teacher)"), colour_of("KD"), colour_of("KD")]  # from below
    assert students.get_xlim()[0] == 0
    assert figure.get_size_inches()[0] <= MAX_WIDTH
    assert not overlapping(figure)


def test_bars_of_digits_carry_the_note_not_evidence(summary):
    assert plots.bars(summary).get_suptitle() == ""
    assert "not evidence" in plots.bars(summary.assign(dataset="digits")).get_suptitle()


def test_bars_of_several_teachers_and_data_sets_name_them(summary):
    more = summary.assign(dataset="cifar10", teacher=list("abcd"), label="KD", role="student")
    axes = plots.bars(pandas.concat([summary, more])).axes[-1]
    assert axes.get_title(loc="left").startswith("cifar10: resnet")
    assert any("KD from" in label for label in bars_of(axes))


def test_bars_of_many_settings_fit_on_a_screen_and_have_the_number_of_those_left_out(summary):
    student = summary[summary["role"] == "student"].iloc[:1]
    several = [student.assign(label=f"KD (T={n})", budget=f"{n % 2}", test_top1_pct=float(n)) for n in range(60)]
    figure = plots.bars(pandas.concat([summary, *several]))
    assert figure.get_size_inches()[1] <= HIGHEST
    last = figure.axes[-1]
    shown = bars_of(last)
    assert last.get_title(loc="left") == f"resnet8, 1 (best {len(shown)} of 30)"
    assert list(shown.values()) == sorted(range(59, -1, -2), reverse=True)[: len(shown)][::-1]
    drawn = sum(len(axes.patches) for axes in figure.axes)
    assert f"settings that are left out: {len(summary) + 60 - drawn}; the table has all" in figure.get_suptitle()


def test_bars_of_many_budgets_have_the_panels_of_most_settings(summary):
    student = summary[summary["role"] == "student"].iloc[:1]
    several = [student.assign(budget=f"{n} epochs") for n in range(30)]
    figure = plots.bars(pandas.concat([*several, summary]))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert len(titles) == 12
    assert any(title.startswith("resnet8, 8 epochs, batch 64") for title in titles)
    assert figure.get_size_inches()[1] <= HIGHEST


def test_bars_of_no_run_still_draw(summary):
    assert plots.png(plots.bars(summary.iloc[:0])).startswith(b"\x89PNG")


def test_save_writes_picture_and_data(root):
    figure = plots.curves({"SI": fixtures.history(2)})
    data = pandas.DataFrame(fixtures.history(2))
    path = plots.save(figure, "student_curves", data)
    assert path == root / "plots" / "student_curves.png"
    with Image.open(path) as picture:
        assert picture.size == tuple(round(150 * inches) for inches in figure.get_size_inches())
    pandas.testing.assert_frame_equal(pandas.read_csv(path.with_suffix(".csv")), data)
    assert sorted(item.name for item in path.parent.iterdir()) == ["student_curves.csv", "student_curves.png"]


def test_a_page_is_saved_as_it_is_but_not_in_place_of_the_gallery(root):
    path = plots.save_page("<title>Å</title>", "sphere_0.5")
    assert path == root / "plots" / "sphere_0.5.html"
    assert path.read_text(encoding="utf-8") == "<title>Å</title>"
    assert [item.name for item in path.parent.iterdir()] == ["sphere_0.5.html"]
    with pytest.raises(ValueError, match="name = 'index': is the name of the gallery's page"):
        plots.save_page("", "index")


@pytest.mark.parametrize("name", ["", "../escaped", "a/b", "a b"])
def test_save_refuses_other_names_than_file_names(root, name):
    with pytest.raises(ValueError, match="is not a file name"):
        plots.save(plots.curves({}), name)
    with pytest.raises(ValueError, match="is not a file name"):
        plots.save_page("", name)
    assert not (root / "plots").exists()


def test_figures_leave_pyplot_and_the_users_style_alone():
    code = (
        "import matplotlib; matplotlib.rcParams['font.size'] = 31; from kdhelpers import plots; import sys\n"
        "figure = plots.curves({'SI': [{'epoch': 1, 'ce': 1.0}]}); plots.png(figure)\n"
        "assert matplotlib.rcParams['font.size'] == 31\n"
        "assert figure.axes[0].xaxis.label.get_fontsize() == 9\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_live_shows_loss_and_accuracy_of_each_student_in_lockstep():
    rows = [
        {"epoch": e, "lion": 1 / e, "adamw": 2 / e, "lion val_top1_pct": 9.0 * e, "adamw val_top1_pct": None}
        for e in (1, 2)
    ]
    losses, accuracy = plots.live(rows, 3).axes
    assert [line.get_label() for line in losses.lines] == ["lion", "adamw"]
    assert [(line.get_label(), list(line.get_ydata())) for line in accuracy.lines] == [("lion", [9.0, 18.0])]
    assert losses.lines[0].get_color() == accuracy.lines[0].get_color()


def test_many_students_in_lockstep_have_one_legend_below_the_panels():
    names = [f"student{number}" for number in range(9)]
    rows = [{"epoch": 1} | dict.fromkeys(names, 2.0) | {f"{name} val_top1_pct": 40.0 for name in names}]
    figure = plots.live(rows, 3)
    assert [axes.get_legend() for axes in figure.axes] == [None, None]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    assert plots.png(figure)


def test_without_validation_images_the_accuracy_is_that_of_training():
    history = [{key: value for key, value in row.items() if not key.startswith("val")} for row in fixtures.history()]
    axes = plots.curves({"KD": history}).axes[1]
    assert axes.get_ylabel() == "training top-1 (%)"
    assert drawn(axes) == {"KD": [row["train_top1_pct"] for row in history]}
    both = plots.curves({"KD": history, "CE (no teacher)": fixtures.history()}).axes[1]
    assert both.get_ylabel() == "validation top-1 (%),\nthin: training"
    assert set(drawn(both)) == {"KD", "CE (no teacher)"}  # a name each
    assert [line.get_linewidth() for line in both.lines][0] < 1
