"""Which test images a teacher changes: wrong to right and back, by class, and where the teacher is wrong itself.

All functions take `Predictions` of the same images: of the student trained alone, of the student with a teacher, and of
the teacher. The images that become right minus those that become wrong are the difference of the two accuracies.
"""

import pandas
import torch
from torch import Tensor

from kdhelpers.evaluation.metrics import per_class_pct
from kdhelpers.evaluation.predictions import Predictions, require_same_images

KINDS = {  # (the student alone is right, the student with a teacher is right) -> name
    (False, True): "wrong to right",
    (True, False): "right to wrong",
    (True, True): "right in both",
    (False, False): "wrong in both",
}


def kinds_of(alone: Predictions, taught: Predictions) -> dict[str, Tensor]:
    """Kind of change -> bool [N]: the images of that kind. Each image is of one kind."""
    require_same_images(alone, taught)
    return {name: (alone.correct == first) & (taught.correct == second) for (first, second), name in KINDS.items()}


def change_frame(teacher: Predictions, alone: Predictions, students: dict[str, Predictions]):
    """A DataFrame with a row per student, kind of change and whether the teacher is right: images, points.

    points: the part of gain_points, the student's accuracy minus that of the student alone, in percentage points:
    images * 100 / N for wrong to right, -images * 100 / N for right to wrong, 0 for the others. The points of a student
    add up to its gain_points, and its images to N. followed: images on which the student predicts the class of a wrong
    teacher. Raises ValueError for predictions of different images.
    """
    rows = []
    for name, taught in students.items():
        require_same_images(teacher, taught)
        gain = 100 * (int(taught.correct.sum()) - int(alone.correct.sum())) / len(alone.labels)
        same = teacher.logits.argmax(1) == taught.logits.argmax(1)
        for kind, images in kinds_of(alone, taught).items():
            sign = {"wrong to right": 1, "right to wrong": -1}.get(kind, 0)
            for right in (True, False):
                chosen = images & (teacher.correct == right)
                count, followed = int(chosen.sum()), int((chosen & same).sum())
                points = sign * 100 * count / len(images)
                rows.append((name, kind, right, count, points, 0 if right else followed, gain))
    return pandas.DataFrame(
        rows, columns=["student", "change", "teacher_right", "images", "points", "followed", "gain_points"]
    )


def class_gain_frame(teacher: Predictions, alone: Predictions, students: dict[str, Predictions], class_names):
    """A DataFrame with a row per student and class, the largest gain first: images, to_right, to_wrong, gain_points.

    gain_points: 100 (to_right - to_wrong) / images of the class, the difference of the class's two accuracies; NaN for
    a class without images. teacher_pct and alone_pct are the class's accuracies.
    """
    count = torch.bincount(alone.labels, minlength=len(class_names))
    frames = []
    for name, taught in students.items():
        kinds = kinds_of(alone, taught)
        better, worse = (_per_class(alone.labels[kinds[kind]], class_names) for kind in list(kinds)[:2])
        columns = {"student": name, "class": list(map(str, class_names)), "images": count.tolist()}
        columns |= {"to_right": better.tolist(), "to_wrong": worse.tolist()}
        columns["gain_points"] = (100 * (better - worse).double() / count).tolist()
        columns |= {"alone_pct": per_class_pct(alone).tolist(), "teacher_pct": per_class_pct(teacher).tolist()}
        frames.append(pandas.DataFrame(columns).sort_values("gain_points", ascending=False, kind="stable"))
    return pandas.concat(frames, ignore_index=True)


def _per_class(labels: Tensor, class_names) -> Tensor:
    return torch.bincount(labels, minlength=len(class_names))


def examples(teacher: Predictions, alone: Predictions, taught: Predictions, count: int = 6) -> dict[str, Tensor]:
    """Title -> index of at most `count` images: right and wrong changes, each with a right and with a wrong teacher.

    The first ones are those that the student with a teacher is most certain of.
    """
    kinds, confidence = kinds_of(alone, taught), taught.logits.double().softmax(1).amax(1)
    chosen = {}
    for kind in list(KINDS.values())[:2]:
        for right in (True, False):
            places = (kinds[kind] & (teacher.correct == right)).nonzero()[:, 0]
            order = confidence[places].argsort(descending=True, stable=True)
            chosen[f"{kind}, teacher {'right' if right else 'wrong'}"] = places[order[:count]]
    return chosen
