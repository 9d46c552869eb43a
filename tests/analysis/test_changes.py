"""Images that a teacher changes: each counted once, and the counts add up to the difference of the accuracies."""

import math

import pandas
import pytest
import torch
from matplotlib.colors import to_hex

from kdhelpers.analysis import change_bars, change_frame, changed_images, class_gain_bars, class_gain_frame, kinds_of
from kdhelpers.display.colours import colour_of
from kdhelpers.display.text import signed_text
from kdhelpers.evaluation.metrics import top_k_pct
from kdhelpers.evaluation.predictions import Predictions

CLASSES = [f"class {number}" for number in range(5)]


def of_classes(predicted, labels):
    logits = torch.nn.functional.one_hot(torch.as_tensor(predicted), len(CLASSES)).float()
    return Predictions(logits, logits, torch.as_tensor(labels), torch.arange(len(labels)))


def random(seed: int, count: int = 60):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4  # the last class has no image
    return of_classes(torch.randint(5, (count,), generator=draw), labels)


@pytest.fixture
def networks():
    teacher, alone, *taught = (random(seed) for seed in range(4))
    return teacher, alone, dict(zip(("KD", "DKD"), taught, strict=True))


def test_each_image_is_of_one_kind(networks):
    _, alone, students = networks
    kinds = kinds_of(alone, students["KD"])
    assert torch.stack(list(kinds.values())).sum(0).tolist() == [1] * 60


def test_the_counts_add_up_to_the_difference_of_the_accuracies(networks):
    teacher, alone, students = networks
    frame = change_frame(teacher, alone, students)
    for name, rows in frame.groupby("student"):
        difference = top_k_pct(students[name]) - top_k_pct(alone)
        assert rows["images"].sum() == 60
        assert rows["points"].sum() == pytest.approx(difference)
        assert list(rows["gain_points"]) == pytest.approx([difference] * len(rows))
        right = rows[rows["teacher_right"]]["images"].sum()
        assert right == teacher.correct.sum()


def test_the_kinds_are_those_of_a_loop(networks):
    teacher, alone, students = networks
    expected: dict[tuple, int] = {}
    for label, one, two, three in zip(
        alone.labels.tolist(),
        *(network.logits.argmax(1).tolist() for network in (teacher, alone, students["DKD"])),
        strict=True,
    ):
        kind = {(0, 1): "wrong to right", (1, 0): "right to wrong", (1, 1): "right in both", (0, 0): "wrong in both"}
        key = kind[int(two == label), int(three == label)], one == label
        expected[key] = expected.get(key, 0) + 1
    rows = change_frame(teacher, alone, students).query("student == 'DKD'")
    counted = {(row["change"], row["teacher_right"]): row["images"] for row in rows.to_dict("records")}
    assert {key: count for key, count in counted.items() if count} == expected


def test_followed_counts_the_mistakes_of_the_teacher_that_the_student_repeats():
    teacher, alone = of_classes([1, 1, 0], [0, 0, 0]), of_classes([0, 0, 0], [0, 0, 0])
    frame = change_frame(teacher, alone, {"KD": of_classes([1, 2, 0], [0, 0, 0])})
    lost = frame[(frame["change"] == "right to wrong") & ~frame["teacher_right"]]
    assert (lost["images"].item(), lost["followed"].item()) == (2, 1)
    assert frame["followed"].sum() == 1


def test_gains_per_class_add_up_and_a_class_without_images_has_none(networks):
    teacher, alone, students = networks
    frame = class_gain_frame(teacher, alone, students, CLASSES)
    rows = frame[frame["student"] == "KD"]
    assert list(rows["gain_points"].dropna()) == sorted(rows["gain_points"].dropna(), reverse=True)
    assert math.isnan(rows.set_index("class").loc["class 4", "gain_points"])
    total = (rows["gain_points"].fillna(0) * rows["images"]).sum() / rows["images"].sum()
    assert total == pytest.approx(top_k_pct(students["KD"]) - top_k_pct(alone))
    assert (rows["to_right"] - rows["to_wrong"]).sum() == students["KD"].correct.sum() - alone.correct.sum()


def test_other_images_are_refused(networks):
    teacher, alone, _ = networks
    with pytest.raises(ValueError, match="images"):
        change_frame(teacher, alone, {"KD": random(0, 40)})


def test_bars_have_the_counts_colours_and_the_sum_in_words(networks):
    teacher, alone, students = networks
    frame = change_frame(teacher, alone, students)
    axes = change_bars(frame).axes[0]
    kd = frame[frame["student"] == "KD"].set_index(["change", "teacher_right"])["images"]
    widths = [bar.get_width() for bar in axes.patches[:4]]
    better, worse = ([kd[kind, right] for right in (True, False)] for kind in ("wrong to right", "right to wrong"))
    assert widths == [*better, *(-count for count in worse)]
    assert to_hex(axes.patches[0].get_facecolor()).upper() == colour_of("KD")
    gain = top_k_pct(students["KD"]) - top_k_pct(alone)
    change = signed_text(sum(better) - sum(worse), 0)
    total = f"+{sum(better)} − {sum(worse)} = {change} images, {signed_text(gain)} points"
    assert axes.texts[0].get_text() == total


def test_bars_of_several_seeds_are_means(networks):
    teacher, alone, students = networks
    frames = [change_frame(teacher, alone, {"KD": students[name]}).assign(seed=name) for name in ("KD", "DKD")]
    axes = change_bars(pandas.concat(frames)).axes[0]
    means = [frame.query("change == 'wrong to right' and teacher_right")["images"].item() for frame in frames]
    assert axes.patches[0].get_width() == sum(means) / 2


def test_class_bars_show_the_ends_of_a_long_list():
    labels = torch.arange(60)
    logits = torch.eye(60)
    alone = Predictions(logits.roll(1, 1), logits, labels, labels)
    taught = Predictions(logits, logits, labels, labels)
    names = [f"name {number}" for number in range(60)]
    figure = class_gain_bars(class_gain_frame(taught, alone, {"KD": taught}, names))
    assert len(figure.axes[0].patches) == 16
    assert "the 8 classes of largest" in figure.get_supxlabel()


def test_example_images_are_of_their_kind_and_an_empty_kind_says_so():
    labels = [0, 0, 0]
    teacher, alone, taught = (of_classes(predicted, labels) for predicted in ([0, 1, 0], [1, 1, 0], [0, 0, 0]))
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    figure = changed_images(images, teacher, alone, taught, CLASSES)
    titles = [rows.get_suptitle() for rows in figure.subfigs]
    assert titles[:2] == ["wrong to right, teacher right", "wrong to right, teacher wrong"]
    assert titles[2] == "right to wrong, teacher right: no image"
    assert figure.subfigs[0].axes[0].get_title() == "class 0\nclass 1 → class 0"
    assert len([axes for axes in figure.subfigs[0].axes if axes.images]) == 1
