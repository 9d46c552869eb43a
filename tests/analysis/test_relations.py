"""Relations between images: batches, columns, and the order of the pictures."""

import pytest
import torch

from kdhelpers.analysis import relations, similarity_maps
from kdhelpers.evaluation.predictions import Predictions
from kdhelpers.methods import pkt_loss, sp_loss
from kdhelpers.methods.rkd import relation_differences


def predictions(seed, images=10, width=3):
    embeddings = torch.randn(images, width, generator=torch.Generator().manual_seed(seed))
    return Predictions(torch.zeros(images, 2), embeddings, torch.arange(images) % 2, torch.arange(images))


def losses(student, teacher):
    distances, angles = relation_differences(student, teacher)
    return torch.stack([distances, angles, pkt_loss(student, teacher), sp_loss(student, teacher)])


def test_every_column_is_a_loss_over_whole_batches_as_a_share_of_that_of_the_student_alone():
    teacher, student, alone = predictions(0), predictions(1, width=5), predictions(2)
    frame = relations(teacher, {"student": student, "teacher": teacher, "alone": alone}, alone, batch_size=4)
    first, second = (
        sum(losses(one.embeddings[i : i + 4], teacher.embeddings[i : i + 4]) for i in (0, 4))
        for one in (student, alone)
    )
    assert list(frame) == ["network", "distances_pct", "angles_pct", "neighbours_pct", "similarities_pct"]
    assert frame["network"].tolist() == ["student", "teacher", "alone"]
    assert frame.iloc[0, 1:].tolist() == pytest.approx((100 * first / second).tolist())
    assert frame.iloc[1, 1:].tolist() == pytest.approx([0] * 4, abs=1e-4)
    assert frame.iloc[2, 1:].tolist() == pytest.approx([100] * 4)


def test_fewer_images_than_a_batch_are_one_batch():
    teacher, student, alone = predictions(0), predictions(1), predictions(2)
    frame = relations(teacher, {"student": student}, alone)
    first, second = (losses(one.embeddings, teacher.embeddings) for one in (student, alone))
    assert frame.iloc[0, 1:].tolist() == pytest.approx((100 * first / second).tolist())


def test_similarities_are_sorted_by_class():
    one = predictions(0)
    (found,) = similarity_maps({"student": one}, per_class=2).values()
    rows = one.embeddings[[0, 2, 1, 3]]
    torch.testing.assert_close(found, torch.nn.functional.normalize(rows @ rows.T, dim=1))
