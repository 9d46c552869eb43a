"""The explorer in a browser: its script computes what the package computes, and it works by keyboard and on a phone."""

import re

import pytest
import torch
from screens import brightness, dark, phone, scrolls_sideways

from kdhelpers.analysis import divergence, explorer_page, standardized_divergence
from kdhelpers.data import Data, Split
from kdhelpers.evaluation.predictions import Predictions
from kdhelpers.methods.dkd import decoupled_divergences
from kdhelpers.methods.logit_standardization import standardize

CLASSES, COUNT = 12, 30
NAMES = ["</script><b>bold", "a long name " * 30, *(f"class {c}" for c in range(2, CLASSES))]
DISAGREE = "teacher right, student wrong"


def predictions(seed: int, scale: float, labels: torch.Tensor) -> Predictions:
    logits = scale * torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(seed))
    logits += scale * torch.nn.functional.one_hot(labels, CLASSES)
    return Predictions(logits, logits, labels, torch.arange(COUNT))


@pytest.fixture(scope="module")
def networks() -> dict[str, Predictions]:
    labels = torch.arange(COUNT) % CLASSES
    return {name: predictions(seed, seed + 2.0, labels) for seed, name in enumerate(("teacher", "A", "<i>B"))}


@pytest.fixture
def explorer(page, networks, tmp_path):
    labels = networks["teacher"].labels
    images = torch.randint(0, 256, (COUNT, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(images, labels)
    data = Data("made up", split, split, split, NAMES, None, None, (0.5,) * 3, (0.5,) * 3)
    students = {name: network for name, network in networks.items() if name != "teacher"}
    file = tmp_path / "explorer.html"
    file.write_text(explorer_page(data, networks["teacher"], students, "A"), encoding="utf-8")
    page.goto(file.as_uri())
    return page


def card(page, name: str) -> dict[str, float]:
    """The numbers under a network's bars, by their name; of two with one name the first."""
    own = page.locator("#networks .card", has=page.get_by_role("heading", name=name, exact=True))
    terms, values = own.locator("dt").all_inner_texts(), own.locator("dd").all_inner_texts()
    return {term: float(text.split()[0]) for term, text in reversed([*zip(terms, values, strict=True)])}


def set_temperature(page, temperature: float) -> None:
    script = "(slider, T) => {slider.value = TEMPERATURES.indexOf(T); slider.dispatchEvent(new Event('input'))}"
    page.locator("#temperature").evaluate(script, temperature)
    assert page.locator("#shown-temperature").inner_text() == f"T = {temperature:g}"


def current(page) -> int:
    return int(re.match(r"test image (\d+)", page.locator("#where").inner_text())[1])


def listed(page) -> list[int]:
    titles = page.locator("#thumbs button").evaluate_all("all => all.map(button => button.title)")
    return [int(title.rpartition(" ")[2]) for title in titles]


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("temperature", [0.2, 1, 4, 20])
def test_divergences_are_those_of_the_package(explorer, networks, temperature, standardise):
    explorer.locator("#standardise").set_checked(standardise)
    set_temperature(explorer, temperature)
    image, expected = current(explorer), standardized_divergence if standardise else divergence
    for name in ("A", "<i>B"):
        teacher, student = networks["teacher"], networks[name]
        shown, kl = card(explorer, name), expected(teacher, student, temperature)
        assert shown[f"KL at T = {temperature:g}"] == pytest.approx(kl[image].item(), abs=1e-4)
        assert shown["KL at T = 1"] == pytest.approx(expected(teacher, student)[image].item(), abs=1e-4)
        assert shown[f"at T = {temperature:g}, mean of {COUNT}"] == pytest.approx(kl.mean().item(), abs=1e-4)
        logits = [
            standardize(one.logits.double()) if standardise else one.logits.double() for one in (student, teacher)
        ]
        of_label, _ = decoupled_divergences(*logits, teacher.labels, temperature)
        assert shown["label against others"] == pytest.approx(of_label[image].item(), abs=1e-4)
        assert shown["among the others"] == pytest.approx((kl - of_label)[image].item(), abs=1.1e-4)


@pytest.mark.parametrize("temperature", [1, 4])
def test_bars_are_the_probabilities_of_the_ten_most_probable_classes_and_the_label(explorer, networks, temperature):
    set_temperature(explorer, temperature)
    image = current(explorer)
    at_one = torch.stack([network.logits[image].softmax(0) for network in networks.values()])
    top = at_one.amax(0).topk(10).indices.tolist()
    classes = sorted({*top, networks["teacher"].labels[image].item()}, key=lambda c: -at_one[0, c])
    axis = float(re.search(r"to (\S+) %", explorer.locator("#axis").inner_text())[1]) / 100
    for number, network in enumerate(networks.values()):
        p = (network.logits[image] / temperature).softmax(0)
        own = explorer.locator("#networks .card").nth(number)
        rows = own.locator(".row:not(.rest)")
        assert rows.locator(".class").evaluate_all("all => all.map(one => one.title)") == [NAMES[c] for c in classes]
        widths = rows.locator(".fill").evaluate_all("all => all.map(one => parseFloat(one.style.width) / 100)")
        assert widths == pytest.approx([p[c].item() / axis for c in classes], abs=1e-4)
        shown = [float(text.split()[0]) for text in rows.locator(".value").all_inner_texts()]
        assert shown == pytest.approx([100 * p[c].item() for c in classes], abs=0.051)
        rest = float(own.locator(".rest .value").inner_text().split()[0])
        assert rest == pytest.approx(100 - 100 * p[classes].sum().item(), abs=0.051)
    assert own.locator(".row.label .class").get_attribute("title") == NAMES[networks["teacher"].labels[image]]


def test_sorting_and_filters(explorer, networks):
    teacher, student = networks["teacher"], networks["<i>B"]
    p, q = teacher.logits.double().softmax(1), student.logits.double().softmax(1)
    orders = {
        "kl": -divergence(teacher, student),
        "variation": -(p - q).abs().sum(1) / 2,
        "sure": -p.amax(1),
        "unsure": p.amax(1),
        "index": torch.arange(COUNT),
    }
    explorer.select_option("#student", label="<i>B")
    for order, key in orders.items():
        explorer.select_option("#order", order)
        assert listed(explorer) == key.argsort().tolist()
        assert current(explorer) == key.argmin()
    explorer.select_option("#outcome", DISAGREE)
    kept = (teacher.correct & ~student.correct).nonzero().flatten().tolist()
    assert listed(explorer) == kept
    assert kept
    shown = explorer.locator("#outcome option:checked").inner_text()
    assert shown == f"{DISAGREE} ({len(kept)})"
    for label in range(CLASSES):
        explorer.select_option("#class", str(label))
        of_class = [image for image in kept if teacher.labels[image] == label]
        assert listed(explorer) == of_class
        assert explorer.locator("#none").is_visible() == (not of_class)
        assert explorer.locator("#explorer").is_visible() == bool(of_class)


def test_keyboard(explorer):
    images = listed(explorer)
    explorer.keyboard.press("ArrowLeft")  # there is nothing before the first
    explorer.keyboard.press("ArrowRight")
    explorer.keyboard.press("ArrowRight")
    assert current(explorer) == images[2]
    explorer.locator("#thumbs [aria-selected=true]").focus()
    explorer.keyboard.press("ArrowLeft")
    focused = explorer.evaluate("document.activeElement.title")
    assert focused.endswith(f"image {images[1]}")
    explorer.locator("#temperature").focus()
    explorer.keyboard.press("ArrowRight")  # moves the slider
    assert current(explorer) == images[1]
    assert explorer.locator("#shown-temperature").inner_text() == "T = 1.25"
    explorer.locator("#previous").focus()
    explorer.keyboard.press("Enter")
    assert current(explorer) == images[0]
    explorer.locator("#thumbs button").nth(4).click()
    assert current(explorer) == images[4]


def test_every_part_fits_a_phone(explorer):
    phone(explorer)
    assert not scrolls_sideways(explorer)
    explorer.locator("summary").click()
    assert not scrolls_sideways(explorer)
    explorer.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert explorer.locator("#temperature").evaluate("slider => slider.getBoundingClientRect().top") >= 0  # it stays


def test_dark_and_light(explorer):
    for selector in ("body", ".card", "select"):
        assert brightness(explorer, selector) > 200
        assert brightness(explorer, selector, "color") < 100
    dark(explorer)
    for selector in ("body", ".card", "select"):
        assert brightness(explorer, selector) < 60
        assert brightness(explorer, selector, "color") > 150


def test_names_are_text_and_the_images_are_shown(explorer, networks):
    assert explorer.locator("#networks h3").all_inner_texts() == [*networks]
    assert explorer.locator("b, i:not(.key i)").count() == 0
    loaded = """async () => {
        const url = getComputedStyle(document.getElementById("picture")).backgroundImage.slice(5, -2);
        const image = new Image(); image.src = url; await image.decode(); return [image.width, image.height];
    }"""
    assert explorer.evaluate(loaded) == [25 * 8, 2 * 8]


def test_the_way_back_leads_to_the_restored_choice(explorer):
    for _ in range(5):  # a browser keeps the choices a moment after the change: on a busy machine later than it leaves
        set_temperature(explorer, 4)
        explorer.locator("#outcome").select_option(DISAGREE)
        chosen = listed(explorer)
        explorer.wait_for_timeout(500)
        explorer.goto("data:text/html,elsewhere")
        explorer.go_back()
        if explorer.locator("#outcome").input_value() == DISAGREE:
            break
    assert explorer.locator("#shown-temperature").inner_text() == "T = 4"
    assert listed(explorer) == chosen


@pytest.mark.parametrize(("classes", "scale"), [(1, 1.0), (4, 1e30)])
def test_one_class_and_huge_logits_have_a_page(page, tmp_path, classes, scale):
    labels = torch.arange(6) % classes
    logits = [scale * torch.randn(6, classes, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    teacher, student = (Predictions(one, one, labels, torch.arange(6)) for one in logits)
    split = Split(torch.zeros(6, 3, 8, 8, dtype=torch.uint8), labels)
    data = Data("made up", split, split, split, NAMES[:classes], None, None, (0.5,) * 3, (0.5,) * 3)
    file = tmp_path / "explorer.html"
    file.write_text(explorer_page(data, teacher, {"A": student}), encoding="utf-8")
    page.goto(file.as_uri())
    text = page.locator("#networks .card").nth(1).inner_text()
    assert re.search(r"KL at T = 1\s+(0\.0000|\d\.\d\de\+\d+) nats", text), text
    assert not re.search(r"NaN|-0\.0000|\d{8}", text)
