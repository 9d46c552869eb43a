"""Maps and spheres of embeddings: the images, their positions, and errors."""

import dataclasses

import numpy
import pytest
import torch
from embedding_fixtures import network, predictions, two_networks, units

from kdhelpers.analysis.embedding import hypersphere, tsne


def test_tsne_maps_the_same_images_for_every_network_and_again_the_same():
    both = two_networks(count=120)
    frame = tsne(both, count=40, perplexity=5)
    assert list(frame) == ["network", "index", "label", "x", "y", "perplexity"]
    teacher, student = (rows.reset_index() for _, rows in frame.groupby("network", sort=False))
    assert frame["network"].unique().tolist() == ["teacher", "student"]
    assert teacher["index"].tolist() == student["index"].tolist()
    assert teacher["label"].tolist() == both["teacher"].labels[teacher["index"].tolist()].tolist()
    assert teacher["label"].value_counts().tolist() == [10] * 4
    assert numpy.isfinite(frame[["x", "y"]].to_numpy()).all()
    assert abs(teacher["x"] - student["x"]).max() > 1
    assert tsne(both, count=40, perplexity=5).equals(frame)
    other = tsne(both, count=40, perplexity=5, seed=1)
    assert other["index"].tolist() != frame["index"].tolist()


def test_tsne_keeps_classes_together_that_the_network_keeps_together():
    frame = tsne({"one": network(0, spread=0.05)}, perplexity=10)
    assert len(frame) == 80  # all: there are fewer than asked for
    centres = frame.groupby("label")[["x", "y"]].transform("mean")
    within = (frame[["x", "y"]] - centres).pow(2).sum(axis=1).mean()
    assert within < 0.3 * (centres - centres.mean()).pow(2).sum(axis=1).mean()


def test_given_classes_alone_are_chosen_in_proportion():
    labels = torch.tensor([0] * 30 + [1] * 20 + [5] * 10)
    both = {"one": dataclasses.replace(network(0, 60), labels=labels, index=torch.arange(60) + 100)}
    frame = hypersphere(both, [5, 0], count=20)
    assert frame["label"].value_counts().to_dict() == {0: 15, 5: 5}
    assert frame["index"].between(100, 159).all()
    assert hypersphere(both, [5, 0])["label"].value_counts().to_dict() == {0: 30, 5: 10}
    assert set(tsne(both, 20, [1], perplexity=3)["label"]) == {1}


@pytest.mark.parametrize("project", [tsne, hypersphere])
def test_choices_that_leave_nothing_to_show_are_refused(project):
    both = two_networks()
    with pytest.raises(ValueError, match="classes: no image has class 7; choose among the labels"):
        project(both, classes=[1, 7])
    with pytest.raises(ValueError, match=r"count = 1, classes = \[0\]: leaves 1 images; at least 2"):
        project(both, classes=[0], count=1)
    with pytest.raises(ValueError, match=r"leaves 0 images"):
        project(both, classes=[])
    with pytest.raises(ValueError, match="predictions: none given"):
        project({}, classes=[0])
    other = dataclasses.replace(both["student"], index=both["student"].index.flip(0))
    with pytest.raises(ValueError, match="of different images; infer both on the same split"):
        project({"teacher": both["teacher"], "student": other}, classes=[0])


def test_tsne_refuses_perplexities_out_of_range_and_equal_embeddings():
    for perplexity in (80, 0):
        with pytest.raises(ValueError, match=rf"perplexity = {perplexity}: must lie between 0 and 80"):
            tsne(two_networks(), perplexity=perplexity)
    collapsed = predictions(torch.ones(80, 6), network(0).labels)
    with pytest.raises(ValueError, match="the embeddings of collapsed are all equal"):
        tsne({"fine": network(0), "collapsed": collapsed}, count=20, perplexity=5)


def test_three_dimensions_keep_their_angles_on_the_sphere():
    found = network(0, width=3)
    frame = hypersphere({"one": found}, classes=[0, 1, 2, 3])
    assert list(frame) == ["network", "index", "label", "x", "y", "z", "kept_pct"]
    points = frame[["x", "y", "z"]].to_numpy()
    unit = numpy.array(units(found.embeddings))
    assert points @ points.T == pytest.approx(unit @ unit.T, abs=1e-9)
    assert frame["kept_pct"].tolist() == pytest.approx([100] * 80)


def test_the_sphere_keeps_the_leading_directions_about_its_centre_and_says_how_much_they_hold():
    found = network(0, width=8)
    frame = hypersphere({"one": found}, classes=[0, 1, 2, 3])
    unit = numpy.array(units(found.embeddings))
    _, vectors = numpy.linalg.eigh(unit.T @ unit)
    seen = unit @ vectors[:, ::-1][:, :3]
    seen *= numpy.sign(seen.sum(0))
    assert frame["kept_pct"].iloc[0] == pytest.approx(100 * seen.var(0).sum() / unit.var(0).sum())
    assert 40 < frame["kept_pct"].iloc[0] < 99
    points = frame[["x", "y", "z"]].to_numpy()
    assert points == pytest.approx(seen / numpy.linalg.norm(seen, axis=1, keepdims=True), abs=1e-9)


def test_a_cone_of_embeddings_stays_together_and_a_zero_embedding_at_the_centre():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0]) + torch.randn(50, 5, generator=generator)
    embeddings[3] = 0
    frame = hypersphere({"cone": predictions(embeddings, torch.zeros(50, dtype=torch.long))}, classes=[0])
    assert frame.loc[3, ["x", "y", "z"]].tolist() == [0, 0, 0]
    assert frame["x"].drop(3).min() > 0.9


def test_spheres_of_networks_equal_up_to_a_rotation_lie_alike():
    one = network(0)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    frame = hypersphere({"one": one, "turned": predictions(-one.embeddings @ rotation, one.labels)}, [0, 1, 2, 3])
    first, second = (rows[["x", "y", "z"]].to_numpy() for _, rows in frame.groupby("network", sort=False))
    assert second == pytest.approx(first, abs=1e-5)
    apart = hypersphere({"one": network(3), "other": one}, [0, 1, 2, 3]).groupby("network", sort=False)
    alone = hypersphere({"other": one}, [0, 1, 2, 3])[["x", "y", "z"]].to_numpy()
    turned = apart.get_group("other")[["x", "y", "z"]].to_numpy()
    assert turned @ turned.T == pytest.approx(alone @ alone.T, abs=1e-9)  # turned as a whole, not bent
    product = turned.T @ apart.get_group("one")[["x", "y", "z"]].to_numpy()
    assert product == pytest.approx(product.T, abs=1e-9)  # with no negative eigenvalue: no other turn is nearer
    assert numpy.linalg.eigvalsh(product).min() > 0


def test_two_dimensions_lie_on_a_circle():
    frame = hypersphere({"flat": network(0, width=2)}, classes=[0, 1, 2, 3])
    assert frame["z"].abs().max() == 0
    assert numpy.hypot(frame["x"], frame["y"]).tolist() == pytest.approx([1] * 80)
