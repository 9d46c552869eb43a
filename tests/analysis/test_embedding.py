"""Embeddings: measures against naive loops and limits, the same images for every network, figures and page."""

import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import numpy
import pytest
import torch

from kdhelpers.analysis.embedding import (
    alignment,
    class_alignment,
    embedding_quality,
    hypersphere,
    nearest_neighbour_pct,
    tsne,
    uniformity,
)
from kdhelpers.analysis.embedding_figures import LOOKS, choose_classes, hypersphere_picture, tsne_maps
from kdhelpers.analysis.hypersphere_page import hypersphere_page
from kdhelpers.data import Data, Split
from kdhelpers.evaluation import Predictions
from kdhelpers.probe import probe_accuracy_pct


def predictions(embeddings, labels, classes=None):
    labels = torch.as_tensor(labels)
    logits = torch.zeros(len(labels), classes or int(labels.max()) + 1)
    return Predictions(logits, embeddings, labels, torch.arange(len(labels)))


def network(seed, count=80, classes=4, width=6, spread=0.5):
    """Classes around centres of their own, some images of the same direction but of other length."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=generator)
    embeddings = centres[labels] + spread * torch.randn(count, width, generator=generator)
    return predictions(embeddings * torch.linspace(0.1, 9, count)[:, None], labels)


def units(embeddings):
    return [[x / math.hypot(*row) for x in row] for row in embeddings.double().tolist()]


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
    assert class_alignment(found) == pytest.approx(sum(pairs) / len(pairs), rel=1e-9)


def test_class_alignment_of_a_class_in_one_point_is_0_and_classes_of_one_image_have_none():
    labels = torch.arange(12) % 3
    assert class_alignment(predictions(torch.eye(5)[labels] * 3, labels)) == 0
    assert class_alignment(predictions(torch.eye(4), [2, 2, 2, 2])) == pytest.approx(2)
    assert math.isnan(class_alignment(predictions(torch.eye(4), [0, 1, 2, 3])))


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
    assert class_alignment(predictions(with_zero, [0, 0])) == pytest.approx(1)
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


def test_embedding_quality_has_a_row_of_the_test_images_per_network():
    train, test = {"a": network(0), "b": network(2, width=9)}, {"b": network(2, 40, width=9), "a": network(0, 40)}
    frame = embedding_quality(train, test, k=5)
    measures = ["alignment", "uniformity", "nearest_neighbour_pct", "probe_pct", "top1_pct"]
    assert list(frame) == ["network", *measures, "width"]
    assert frame["network"].tolist() == ["b", "a"]
    assert frame["width"].tolist() == [9, 6]
    first = frame.iloc[0]
    assert first["alignment"] == class_alignment(test["b"])
    assert first["uniformity"] == uniformity(test["b"].embeddings)
    assert first["nearest_neighbour_pct"] == nearest_neighbour_pct(train["b"], test["b"], 5)
    assert first["probe_pct"] == probe_accuracy_pct(train["b"], test["b"]) > 90
    assert first["top1_pct"] == 25  # logits of zeros: class 0
    with pytest.raises(ValueError, match="test: a, c for train a, b; give both splits"):
        embedding_quality(train, {"a": train["a"], "c": train["a"]})


def two_networks(**options):
    return {"teacher": network(0, **options), "student": network(1, **options)}


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
    with pytest.raises(ValueError, match="classes: no image is of class 7; choose among the labels"):
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


def test_tsne_refuses_what_it_cannot_map():
    for perplexity in (80, 0):
        with pytest.raises(ValueError, match=rf"perplexity = {perplexity}: must lie between 0 and 80"):
            tsne(two_networks(), perplexity=perplexity)
    collapsed = predictions(torch.ones(80, 6), network(0).labels)
    with pytest.raises(ValueError, match="the embeddings of collapsed are all alike"):
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


def test_a_cone_of_embeddings_is_shown_as_a_crowd_and_a_zero_embedding_at_the_centre():
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


def data_of(names, superclasses=None):
    split = Split(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.long))
    return Data("own", split, split, split, names, superclasses, None, (0.5,) * 3, (0.5,) * 3)


def test_classes_are_chosen_by_name_or_number_in_the_order_given():
    named = data_of(["7", "guitar pick", "church", "0"])
    assert choose_classes(named, " church  guitar_pick ") == [2, 1]
    assert choose_classes(named, "0 7 2") == [3, 0, 2]  # a name is sooner meant than a number
    assert choose_classes(named, 1) == [1]  # as papermill passes it
    with pytest.raises(ValueError, match="classes = chruch: unknown; did you mean church.* from 0 to 3"):
        choose_classes(named, "0 chruch")
    for wrong in ("4", "-1", "²"):
        with pytest.raises(ValueError, match=f"classes = {wrong}: unknown; give names, or numbers from 0 to 3"):
            choose_classes(named, wrong)


def test_of_no_choice_all_classes_that_can_be_told_apart_are_taken_and_ten_of_more():
    assert choose_classes(data_of([f"c{c}" for c in range(21)])) == list(range(21))
    many = [f"c{c}" for c in range(100)]
    assert choose_classes(data_of(many)) == list(range(10))
    superclasses = [(7 * c + 3) % 20 for c in range(100)]
    chosen = choose_classes(data_of(many, superclasses), " ")
    assert [superclasses[c] for c in chosen] == list(range(10))
    assert max(chosen) < 20  # the first of each: all 20 superclasses occur in the first 20 classes
    assert choose_classes(data_of(many, [c // 50 for c in range(100)])) == [0, 50]


NAMES = ["apple", "bear", "clock", "dolphin"]


def colours_at(axes):
    """Place of each point drawn -> its colour."""
    from matplotlib.colors import to_hex

    drawn = [shape for shape in axes.collections if hasattr(shape, "get_sizes") and len(shape.get_sizes())]
    pairs = (zip(shape.get_offsets().tolist(), shape.get_facecolors(), strict=True) for shape in drawn)
    return {tuple(place): to_hex(colour).upper() for group in pairs for place, colour in group}


def test_tsne_maps_draw_each_image_in_the_colour_of_its_class():
    frame = tsne(two_networks(), perplexity=5)
    figure = tsne_maps(frame, NAMES)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["teacher", "student"]
    for axes, (_, rows) in zip(figure.axes, frame.groupby("network", sort=False), strict=False):
        expected = {(row.x, row.y): LOOKS[row.label][0].upper() for row in rows.itertuples()}
        assert colours_at(axes) == pytest.approx(expected)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == NAMES
    assert "80 images, perplexity 5" in figure.get_suptitle()


def test_of_many_classes_superclasses_are_coloured_and_without_them_there_is_no_legend():
    frame = tsne({"one": network(0, classes=30)}, perplexity=5)
    names = [f"class {c}" for c in range(30)]
    assert not tsne_maps(frame, names).legends
    grouped = tsne_maps(frame, names, superclasses=["odd" if c % 2 else "even" for c in range(30)])
    assert [text.get_text() for text in grouped.legends[0].get_texts()] == ["even", "odd"]
    expected = {(row.x, row.y): LOOKS[row.label % 2][0].upper() for row in frame.itertuples()}
    assert colours_at(grouped.axes[0]) == pytest.approx(expected)


def test_eight_classes_differ_by_colour_or_shape():
    assert len(set(LOOKS)) == len(LOOKS) == 21
    frame = hypersphere({"one": network(0, classes=9)}, classes=[1, 3, 8])
    legend = hypersphere_picture(frame, [f"class {c}" for c in range(9)]).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["class 1", "class 3", "class 8"]


@pytest.mark.parametrize("show", [hypersphere_picture, hypersphere_page])
def test_more_classes_than_can_be_told_apart_are_refused(show):
    frame = hypersphere({"one": network(0, classes=22)}, classes=list(range(22)))
    with pytest.raises(ValueError, match="frame: 22 classes, 21 at most can be told apart; choose fewer"):
        show(frame, [f"class {c}" for c in range(22)])


def test_networks_stand_side_by_side_in_rows_of_nearly_equal_length():
    for count, shape in ((1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (7, (2, 4)), (9, (3, 3))):
        frame = hypersphere({f"net {n}": network(n, 20) for n in range(count)}, classes=[0, 1])
        assert hypersphere_picture(frame, NAMES).axes[0].get_gridspec().get_geometry() == shape


def test_the_static_sphere_states_what_is_kept():
    frame = hypersphere(two_networks(), classes=[0, 1, 2, 3])
    kept = frame.groupby("network", sort=False)["kept_pct"].first()
    titles = [axes.get_title() for axes in hypersphere_picture(frame, NAMES).axes]
    assert titles == [f"{name}\n{share:.0f} % of the variance" for name, share in kept.items()]


class Tags(HTMLParser):
    """Every tag with its attributes, and the text inside each script."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.tags[-1:] and self.tags[-1][0] == "script":
            self.scripts.append(text)
        self.text += text


def test_the_page_carries_every_point_with_its_class_and_nothing_from_outside():
    frame = hypersphere(two_networks(), classes=[1, 3])
    page = hypersphere_page(frame, NAMES)
    found = Tags(page)
    for sphere, (_, rows) in zip(json.loads(found.scripts[0]), frame.groupby("network", sort=False), strict=True):
        assert sphere["at"] == [pytest.approx(row, abs=6e-4) for row in rows[["x", "y", "z"]].to_numpy().tolist()]
        assert sphere["look"] == [[1, 3].index(label) for label in rows["label"]]
    assert [tag for tag, _ in found.tags].count("canvas") == 2
    looks = [attributes["style"] for _, attributes in found.tags if attributes.get("class") == "look"]
    assert looks == [f"--own: {colour}" for colour, _ in LOOKS[:2]]
    assert not {"link", "img", "iframe", "base", "object"} & {tag for tag, _ in found.tags}
    assert not [name for _, attributes in found.tags for name in attributes if name in ("src", "href", "srcset")]
    assert not re.search(r"https?:|//[a-z]|url\(|@import|\bimport\b|fetch\(|XMLHttpRequest", page)
    assert "prefers-color-scheme: dark" in page


def test_names_cannot_become_markup():
    bad = "</script><b onclick=x></title>"
    frame = hypersphere({f"{bad}net": network(0)}, classes=[0, 1])
    page = hypersphere_page(frame, [bad, "a & b", "", ""], f"{bad}subject")
    found = Tags(page)
    tags = [tag for tag, _ in found.tags]
    assert (tags.count("script"), page.count("</script>"), tags.count("b")) == (2, 2, 0)
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert f"{bad}net" in found.text
    assert found.text.count(f"Embeddings on the sphere · {bad}subject") == 2  # title and heading
    assert "a & b" in found.text
    assert [attributes["aria-label"] for tag, attributes in found.tags if tag == "canvas"] == [f"sphere of {bad}net"]
