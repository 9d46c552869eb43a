"""The source of a loss, checked exercises, and sketches."""

import math

import pytest
import torch
import torch.nn.functional as F

from kdhelpers import kd_loss, plots, supcon_loss
from kdhelpers.display import diagrams, notebook, sketches, teaching

LOGITS = teaching.random_logits(seed=0), teaching.random_logits(seed=1)
CASES = {f"T = {temperature}": (*LOGITS, temperature) for temperature in (1.0, 4.0)}


def without_t_squared(student, teacher, temperature):
    return kd_loss(student, teacher, temperature) / temperature**2


def test_the_source_is_the_code_that_runs():
    text = str(notebook.source(kd_loss, F.kl_div))
    assert "def kd_loss(" in text
    assert "def kl_div(" in text
    assert "<pre" in notebook.source(kd_loss)._repr_html_()


def test_a_right_solution_is_accepted_whatever_its_form():
    answer = notebook.check(lambda s, t, T: torch.sum(kd_loss(s, t, T)), kd_loss, CASES)
    assert answer.solved
    assert "right in all 2 cases" in str(answer)


def test_a_missing_factor_is_found_in_the_cases_that_show_it():
    answer = notebook.check(without_t_squared, kd_loss, CASES)
    assert answer.wrong == ["T = 4.0"]
    assert "<td>0.0625</td>" in answer._repr_html_()


@pytest.mark.parametrize("result", [math.nan, math.inf, "text", torch.ones(2)])
def test_a_solution_that_fails_or_gives_no_number_is_wrong_and_does_not_stop_the_notebook(result):
    answer = notebook.check(lambda *arguments: result, kd_loss, CASES)
    assert not answer.solved
    assert len(answer.wrong) == 2


def test_the_label_of_a_failing_case_has_the_error_escaped():
    def broken(*arguments):
        raise TypeError("<b>")

    assert "TypeError: &lt;b&gt;" in notebook.check(broken, kd_loss, CASES)._repr_html_()


def test_distributions_are_a_panel_each_on_one_scale():
    figure = sketches.distributions({"a": torch.tensor([0.2, 0.8]), "b": torch.tensor([0.5, 0.5])}, ["cat", "dog"])
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx([0.2, 0.8])
    assert left.get_ylim() == right.get_ylim()


def test_histograms_share_a_scale_and_name_the_middle_of_each_sample():
    figure = sketches.histograms({"few": torch.arange(1001) / 10, "many": torch.full((10,), 50.0)}, "accuracy (%)")
    left, right = figure.axes
    assert left.get_title() == "few\nmean 50.00, middle 95 %: 2.50 to 97.50"
    assert left.get_xlim() == right.get_xlim()
    assert sum(bar.get_height() for bar in right.patches[:20]) == 10


def test_forces_point_where_gradient_descent_moves_the_points():
    labels, angles = torch.tensor([0, 0]), torch.tensor([0.5, 1.5])
    figure = sketches.forces({"attraction": lambda z: -(z[0] * z[1]).sum()}, angles, labels.tolist(), keys=angles)
    first, second = [text for text in figure.axes[0].texts if text.arrow_patch]
    assert first.xy == pytest.approx(sketches.on_circle(torch.tensor([1.0]))[0].tolist())  # towards the other point
    assert second.xy == pytest.approx(sketches.on_circle(torch.tensor([1.0]))[0].tolist())


def test_forces_take_the_losses_of_the_package():
    angles, labels = torch.tensor([0.2, 1.0, 2.6, 3.6]), torch.tensor([0, 0, 1, 1])
    figure = sketches.forces({"SupCon": lambda z: supcon_loss(z[:, None], labels, 0.5)}, angles, labels.tolist())
    assert len(plots.png(figure)) > 5_000


def test_maps_have_a_labelled_row_each():
    figure = sketches.maps({"teacher": torch.rand(4, 2, 2), "student": torch.rand(2, 2, 2)}, columns=3)
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == [
        "teacher\n4 × 2 × 2",
        "student\n2 × 2 × 2",
    ]
    assert sum(bool(axes.images) for axes in figure.axes) == 5


def test_candidates_are_a_picture_each_and_a_bar_for_all_but_the_anchor():
    images, scores = torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.tensor([0.9, -0.2])
    figure = sketches.candidates(images, ["image", "positive", "negative"], {"cosine": scores})
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "positive", "negative"]
    assert [bar.get_height() for axes in figure.axes[3:] for bar in axes.patches] == pytest.approx([0.9, -0.2])
    assert figure.axes[3].get_ylabel() == "cosine"


def test_forces_draw_keys_of_images_without_a_point():
    figure = sketches.forces({"pull": lambda z: -z[:, 1].sum()}, torch.zeros(1), [0, 1, 2], keys=torch.arange(3.0))
    circle, *marks = figure.axes[0].lines
    assert [mark.get_marker() for mark in marks] == ["s", "s", "s", "o"]


def test_a_diagram_has_a_box_for_each_name_and_an_arrow_for_each_pair():
    boxes = {"view": (0, 0), "student": (1, 0), "loss": (2, 0)}
    figure = diagrams.diagram(boxes, [("view", "student")], [("student", "loss")])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts if text.get_text()] == list(boxes)
    solid, dashed = [text.arrow_patch for text in axes.texts if not text.get_text()]
    assert (solid.get_linestyle(), dashed.get_linestyle() == solid.get_linestyle()) == ("solid", False)
    assert len(plots.png(figure)) > 3_000


def test_a_diagram_refuses_an_arrow_to_a_box_that_does_not_exist():
    with pytest.raises(ValueError, match="'los' is not a box; the boxes are view, loss"):
        diagrams.diagram({"view": (0, 0), "loss": (1, 0)}, [("view", "los")])


def test_circles_have_a_point_per_angle():
    left, right = sketches.circles({"a": torch.zeros(3), "b": torch.arange(3.0)}, [0, 0, 1]).axes
    assert [tuple(line.get_data()) for line in left.lines[1:]] == [([1.0], [0.0])] * 3
    assert len(right.lines) == 4


def test_heat_maps_share_a_scale_around_zero():
    figure = sketches.heat({"a": torch.full((2, 2), -3.0), "b": torch.ones(2, 2), "c": torch.ones(2, 2)}, columns=2)
    assert {image.get_clim() for axes in figure.axes for image in axes.images} == {(-3.0, 3.0)}
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", ""]
    assert figure.axes[2].get_subplotspec().rowspan.start == 1


def test_triangles_have_lengths_over_their_mean_and_angles_in_degrees():
    right = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    first, second = sketches.triangles({"a": right, "b": 2 * right + 7}).axes
    texts = [text.get_text() for text in first.texts]
    assert sorted(texts) == sorted(["90°", "53°", "37°", "0.75", "1.25", "1.00"])
    assert [text.get_text() for text in second.texts] == texts


def test_targets_have_a_row_of_bars_for_each_kind():
    images, rows = torch.zeros(3, 3, 4, 4, dtype=torch.uint8), {"own": torch.eye(3), "mean": torch.full((3, 3), 1 / 3)}
    figure = sketches.targets(images, ["a", "b", "c"], rows)
    assert len(figure.axes) == 9
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes[3:]]
    assert heights[:3] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert heights[5] == pytest.approx([1 / 3] * 3)
