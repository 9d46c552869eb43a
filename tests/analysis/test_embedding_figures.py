"""Figures and the page of embeddings: colours, captions, and names that cannot become markup."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from embedding_fixtures import network, two_networks

from kdhelpers.analysis.embedding import hypersphere, tsne
from kdhelpers.analysis.embedding_figures import MARKERS, choose_classes, hypersphere_picture, tsne_maps
from kdhelpers.analysis.hypersphere_page import hypersphere_page
from kdhelpers.data import Data, Split


def data_of(names, superclasses=None):
    split = Split(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.long))
    return Data("own", split, split, split, names, superclasses, None, (0.5,) * 3, (0.5,) * 3)


def test_classes_are_chosen_by_name_or_number_in_the_order_given():
    named = data_of(["7", "guitar pick", "church", "0"])
    assert choose_classes(named, " church  guitar_pick ") == [2, 1]
    assert choose_classes(named, "0 7 2") == [3, 0, 2]  # a name is sooner meant than a number
    assert choose_classes(named, 1) == [1]  # as papermill passes it
    with pytest.raises(ValueError, match="classes = chruch: unknown; did you mean church.* to 3"):
        choose_classes(named, "0 chruch")
    for wrong in ("4", "-1", "²"):
        with pytest.raises(ValueError, match=f"classes = {wrong}: unknown; give names, or numbers to 3"):
            choose_classes(named, wrong)


def test_without_names_all_distinguishable_classes_are_taken_and_ten_of_more():
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
        expected = {(row.x, row.y): MARKERS[row.label][0].upper() for row in rows.itertuples()}
        assert colours_at(axes) == pytest.approx(expected)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == NAMES
    assert "80 images, perplexity 5" in figure.get_suptitle()


def test_of_many_classes_superclasses_are_coloured_and_without_them_there_is_no_legend():
    frame = tsne({"one": network(0, classes=30)}, perplexity=5)
    names = [f"class {c}" for c in range(30)]
    assert not tsne_maps(frame, names).legends
    grouped = tsne_maps(frame, names, superclasses=["odd" if c % 2 else "even" for c in range(30)])
    assert [text.get_text() for text in grouped.legends[0].get_texts()] == ["even", "odd"]
    expected = {(row.x, row.y): MARKERS[row.label % 2][0].upper() for row in frame.itertuples()}
    assert colours_at(grouped.axes[0]) == pytest.approx(expected)


def test_eight_classes_differ_by_colour_or_shape():
    assert len(set(MARKERS)) == len(MARKERS) == 21
    frame = hypersphere({"one": network(0, classes=9)}, classes=[1, 3, 8])
    legend = hypersphere_picture(frame, [f"class {c}" for c in range(9)]).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["class 1", "class 3", "class 8"]


@pytest.mark.parametrize("show", [hypersphere_picture, hypersphere_page])
def test_more_classes_than_are_distinguishable_are_refused(show):
    frame = hypersphere({"one": network(0, classes=22)}, classes=list(range(22)))
    with pytest.raises(ValueError, match="frame: 22 classes, at most 21 are distinguishable; choose fewer"):
        show(frame, [f"class {c}" for c in range(22)])


def test_networks_stand_side_by_side_in_rows_of_nearly_equal_length():
    for count, shape in ((1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (7, (2, 4)), (9, (3, 3))):
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
    assert looks == [f"--own: {colour}" for colour, _ in MARKERS[:2]]
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
