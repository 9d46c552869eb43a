"""Measures of embeddings against naive loops and limits."""

import math

import numpy
import pytest
import torch
from embedding_fixtures import network, predictions, units
from fake_device import FakeDevice

from kdhelpers.analysis import embedding
from kdhelpers.analysis.embedding import (
    alignment,
    class_alignment,
    embedding_quality,
    nearest_neighbour_pct,
    uniformity,
)
from kdhelpers.evaluation.linear_probe import probe_accuracy_pct


def squared(first, second):
    return sum((a - b) ** 2 for a, b in zip(first, second, strict=True))


def test_alignment_is_the_mean_over_the_pairs_of_directions():
    first, second = network(0).embeddings, network(1).embeddings
    pairs = [squared(f, g) for f, g in zip(units(first), units(second), strict=True)]
    assert alignment(first, second) == pytest.approx(sum(pairs) / len(pairs), rel=1e-9)
    assert alignment(first, 7 * first) == pytest.approx(0, abs=1e-12)
    assert alignment(first, -first) == pytest.approx(4)
    assert alignment(torch.eye(2), torch.eye(2).flip(0)) == pytest.approx(2)


def test_alignment_refuses_views_that_are_no_pairs():
    with pytest.raises(ValueError, match=r"shapes \(3, 2\) and \(1, 2\) differ; give the two views"):
        alignment(torch.ones(3, 2), torch.ones(1, 2))


@pytest.mark.parametrize("count", [80, 7])  # classes of 20, of 1 and 2
def test_class_alignment_equals_the_loop_over_pairs_of_one_class(count):
    found = network(0, count)
    rows, labels = units(found.embeddings), found.labels.tolist()
    pairs = [squared(rows[i], rows[j]) for i in range(count) for j in range(count) if i != j and labels[i] == labels[j]]
    assert class_alignment(found.embeddings, found.labels) == pytest.approx(sum(pairs) / len(pairs), rel=1e-9)


def test_class_alignment_of_a_class_in_one_point_is_0_and_classes_of_one_image_have_none():
    labels = torch.arange(12) % 3
    assert class_alignment(torch.eye(5)[labels] * 3, labels) == 0
    assert class_alignment(torch.eye(4), torch.tensor([2, 2, 2, 2])) == pytest.approx(2)
    assert math.isnan(class_alignment(torch.eye(4), torch.tensor([0, 1, 2, 3])))


@pytest.mark.parametrize("t", [2.0, 0.5])
@pytest.mark.parametrize("count", [80, 251, 500])  # within a chunk, one image beyond it, two whole chunks
def test_uniformity_equals_the_loop_over_pairs(count, t):
    rows = torch.tensor(units(network(0, count).embeddings), dtype=torch.float64).numpy()
    values = [numpy.exp(-t * ((rows[i] - rows[:i]) ** 2).sum(1)).sum() for i in range(count)]
    expected = math.log(sum(values) / math.comb(count, 2))
    assert uniformity(network(0, count).embeddings, t) == pytest.approx(expected, rel=1e-9)


def test_uniformity_is_0_for_equal_embeddings_and_less_the_more_even_they_are():
    assert uniformity(torch.tensor([[1.0, 2.0, 3.0]]).repeat(300, 1) * torch.arange(1.0, 301)[:, None]) == (
        pytest.approx(0, abs=1e-7)
    )
    assert uniformity(torch.eye(9)) == pytest.approx(-4)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)
    generator = torch.Generator().manual_seed(0)
    even, crowded = torch.randn(400, 8, generator=generator), 2 + torch.randn(400, 8, generator=generator)
    assert uniformity(even) < uniformity(crowded) - 1 < -1


def test_fewer_than_two_images_have_no_uniformity():
    assert math.isnan(uniformity(torch.ones(1, 3)))
    assert math.isnan(uniformity(torch.ones(0, 3)))


def test_a_zero_embedding_stays_at_the_centre():
    with_zero = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    assert alignment(with_zero, torch.tensor([[0.0, 0.0], [3.0, 0.0]])) == 0
    assert class_alignment(with_zero, torch.tensor([0, 0])) == pytest.approx(1)
    assert uniformity(with_zero) == pytest.approx(-2)
    tiny = torch.tensor([[1e-30, 0.0], [0.0, 1e-30]])  # small, but not without direction
    assert uniformity(tiny) == pytest.approx(-4)


def naive_neighbours_pct(train, test, k):
    memory, hits = units(train.embeddings), 0
    for row, label in zip(units(test.embeddings), test.labels.tolist(), strict=True):
        cosines = [sum(a * b for a, b in zip(row, other, strict=True)) for other in memory]
        near = sorted(range(len(memory)), key=lambda i: -cosines[i])[:k]
        votes = {}
        for i in near:
            count, total = votes.get(int(train.labels[i]), (0, 0.0))
            votes[int(train.labels[i])] = count + 1, total + cosines[i]
        hits += max(votes, key=votes.get) == label
    return 100 * hits / len(test.labels)


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_nearest_neighbours_vote_as_in_the_naive_loop(k):
    train, test = network(0, spread=1.5), network(0, 300, spread=1.6)  # 300: more than a chunk
    expected = naive_neighbours_pct(train, test, k)
    assert 40 < expected < 99
    assert nearest_neighbour_pct(train, test, k) == pytest.approx(expected)


def test_neighbours_are_near_by_direction_and_a_vote_outweighs_any_cosine():
    train = predictions(torch.tensor([[9.0, 0.0], [0.1, 0.1], [-1.0, 1.0], [-1.0, 1.2]]), [0, 1, 2, 2])
    test = predictions(torch.tensor([[1.0, 0.9]]), [1], classes=3)
    assert nearest_neighbour_pct(train, test, 1) == 100
    assert nearest_neighbour_pct(train, test, 2) == 100  # a tie: 1 is the nearer
    assert nearest_neighbour_pct(train, test, 4) == 0  # 2 has two votes
    opposite = predictions(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]), [0, 1, 1])
    assert nearest_neighbour_pct(opposite, predictions(torch.tensor([[1.0, 0.0]]), [1]), 3) == 100


def test_neighbours_out_of_range_and_of_another_network_are_refused():
    train, test = network(0), network(1)
    for k in (0, 81):
        with pytest.raises(ValueError, match=rf"k = {k}: must lie in 1..80"):
            nearest_neighbour_pct(train, test, k)
    with pytest.raises(ValueError, match="test: 5 wide, train 6; infer both with the same network"):
        nearest_neighbour_pct(train, network(1, width=5))


@pytest.mark.parametrize(
    ("measure", "operator"),
    [
        (lambda: alignment(network(0).embeddings, network(1).embeddings), "aten::linalg_vector_norm"),
        (lambda: class_alignment(network(0).embeddings, network(0).labels), "aten::index_add_"),
        (lambda: uniformity(network(0, 300).embeddings), "aten::exp"),
        (lambda: nearest_neighbour_pct(network(0, spread=1.5), network(0, 300, spread=1.6), 5), "aten::topk"),
    ],
)
def test_a_gpu_does_the_work_and_apples_without_float64(monkeypatch, measure, operator):
    expected = measure()
    with FakeDevice("mps:0") as gpu:
        monkeypatch.setattr(embedding, "pick_device", lambda: gpu.device)
        assert measure() == pytest.approx(expected, rel=1e-5)
    assert operator in gpu.operators


def test_embedding_quality_has_a_row_of_the_test_images_per_network():
    train, test = {"a": network(0), "b": network(2, width=9)}, {"b": network(2, 40, width=9), "a": network(0, 40)}
    frame = embedding_quality(train, test, k=5)
    measures = ["alignment", "uniformity", "nearest_neighbour_pct", "probe_pct", "top1_pct"]
    assert list(frame) == ["network", *measures, "width"]
    assert frame["network"].tolist() == ["b", "a"]
    assert frame["width"].tolist() == [9, 6]
    first = frame.iloc[0]
    assert first["alignment"] == class_alignment(test["b"].embeddings, test["b"].labels)
    assert first["uniformity"] == uniformity(test["b"].embeddings)
    assert first["nearest_neighbour_pct"] == nearest_neighbour_pct(train["b"], test["b"], 5)
    assert first["probe_pct"] == probe_accuracy_pct(train["b"], test["b"]) > 90
    assert first["top1_pct"] == 25  # logits of zeros: class 0
    with pytest.raises(ValueError, match="test: a, c for train a, b; give both splits"):
        embedding_quality(train, {"a": train["a"], "c": train["a"]})
