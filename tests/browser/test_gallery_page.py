"""The gallery in a browser: sorted, filtered, opened, by mouse and keyboard, on a phone, light and dark."""

import json
import re

import pytest
from screens import brightness, dark, phone, scrolls_sideways

from kdhelpers import artifacts
from kdhelpers.report.gallery import write_gallery

STUDENTS = {"si": (50.0, 52.0), "lm": (53.0, 54.0), "crd": (58.0, 59.0)}
DESKTOP = {"width": 1280, "height": 900}


def record(name: str, top1: float, dataset: str = "cifar100", **run) -> dict:
    teacher = run.get("teacher")
    settings = {"role": "student", "model": "resnet8", "method": "si", "seed": 0, "epochs": 2, "batch_size": 64}
    return {
        "schema": 1,
        "name": name,
        "identity": f"{name:0<64}",
        "status": "finished",
        "run": settings | {"dataset": dataset, "selection": "last", "hyperparameters": {}} | run,
        "teacher": teacher and {"name": teacher, "sha256": "a" * 64, "model": "resnet20", "test_top1_pct": 60.0},
        "environment": {"device": "cpu", "precision": "fp32"},
        "metrics": {"test_top1_pct": top1},
        "model": {"parameters": 78_000, "macs": 12_000_000},
        "history": [{"epoch": epoch, "loss": 1 / epoch, "val_top1_pct": 20.0 * epoch} for epoch in (1, 2)],
    }


@pytest.fixture
def gallery(page, tmp_path, monkeypatch):
    """The start page of a gallery with a pair on CIFAR-100, a student on Imagenette, and one on the digits."""
    monkeypatch.setenv("KD_ROOT", str(tmp_path))
    stored = [record("t", 60.0, role="teacher", model="resnet20")]
    for method, accuracies in STUDENTS.items():
        teacher = {} if method == "si" else {"teacher": "t"}
        stored += [record(f"{method}{n}", top1, method=method, seed=n, **teacher) for n, top1 in enumerate(accuracies)]
    stored += [record("other", 9.5, "imagenette"), record("toy", 99.0, "digits")]
    for one in stored:
        artifacts.save_json(artifacts.record_path(one["name"]), one)
    picture = artifacts.folder("plots") / "distillation_grad_cam_comparison_resnet8_cifar100.png"
    from PIL import Image

    Image.new("RGB", (600, 300), "white").save(picture)
    page.goto(write_gallery().as_uri())
    return page


def methods(page) -> list[str]:
    return page.locator("#runs-table tbody tr:visible th").all_inner_texts()


def test_a_click_sorts_and_a_second_click_turns_the_order(gallery):
    head = gallery.locator("#runs-table thead th", has_text="test top-1")
    head.get_by_role("button").click()
    assert methods(gallery) == ["teacher", "CRD", "KD", "CE (no teacher)", "CE (no teacher)"]
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    assert methods(gallery)[-1] == "teacher"
    assert gallery.locator("#runs-table tbody tr").first.inner_text().count("9.50") == 1  # a number, not a text
    assert head.get_attribute("aria-sort") == "ascending"
    assert gallery.locator("[aria-sort]").count() == 1


def test_missing_values_come_last_in_both_orders(gallery):
    button = gallery.locator("#runs-table thead th", has_text="gain").get_by_role("button")
    for order in (["CRD", "KD"], ["KD", "CRD"]):
        button.click()
        assert methods(gallery)[:2] == order


def test_the_keyboard_sorts(gallery):
    gallery.locator("#runs-table thead th", has_text="method").get_by_role("button").focus()
    gallery.keyboard.press("Enter")
    assert methods(gallery) == ["CE (no teacher)", "CE (no teacher)", "CRD", "KD", "teacher"]


def test_filters_combine_with_the_text_and_are_reset(gallery):
    form = gallery.locator("form.filters").first
    form.get_by_label("data set").select_option("cifar100")
    assert len(methods(gallery)) == 4
    form.get_by_label("pair").select_option("t → resnet8")
    assert methods(gallery) == ["CRD", "KD"]
    form.get_by_label("text").fill("kd")
    assert methods(gallery) == ["KD"]
    assert "1 of 5 settings" in form.inner_text()
    form.get_by_role("button", name="Show all").click()
    gallery.get_by_text("5 of 5 settings").wait_for()
    assert len(methods(gallery)) == 5


def test_a_text_with_a_hyphen_finds_the_minus_sign(gallery):
    worse = record("mean", 40.0, method="lm", teacher="t", hyperparameters={"temperature": 9.0})
    artifacts.save_json(artifacts.record_path("mean"), worse)
    gallery.goto(write_gallery().as_uri())
    gallery.locator("form.filters").first.get_by_label("text").fill("-10.00")
    assert methods(gallery) == ["KD (T=9.0)"]


def test_profiles_with_blanks_are_one_value_each(gallery):
    gallery.goto(write_gallery({"si": ["my own profile", "laptop"], "lm": ["laptop"]}).as_uri())
    assert gallery.locator("form.filters").first.get_by_label("profile").is_hidden()  # no record names its notebook
    for name in ("si0", "lm0"):
        path = artifacts.record_path(name)
        artifacts.save_json(path, artifacts.load_json(path) | {"notebook": f"notebooks/executed/{name[:2]}.ipynb"})
    gallery.goto(write_gallery({"si": ["my own profile", "laptop"], "lm": ["laptop"]}).as_uri())
    chooser = gallery.locator("form.filters").first.get_by_label("profile")
    assert chooser.locator("option").all_inner_texts() == ["all", "laptop", "my own profile"]
    chooser.select_option("my own profile")
    assert methods(gallery) == ["CE (no teacher)"]


def test_the_way_back_leads_to_the_filtered_table(gallery):
    form = gallery.locator("form.filters").first
    form.get_by_label("data set").select_option("cifar100")
    form.get_by_label("text").fill("kd")
    gallery.locator("#runs-table tbody tr:visible a").click()
    gallery.go_back()
    form.get_by_text("1 of 5 settings").wait_for()
    assert methods(gallery) == ["KD"]
    assert form.get_by_label("text").input_value() == "kd"


def test_a_row_that_has_the_focus_is_not_below_the_heads(gallery):
    gallery.set_viewport_size({"width": 1280, "height": 200})
    links = gallery.locator("#runs-table tbody a")
    links.last.focus()
    heads = "link.closest('table').tHead.rows[0].cells[0]"  # they stay in view
    top = f"link => link.getBoundingClientRect().top - {heads}.getBoundingClientRect().bottom"
    for place in reversed(range(links.count() - 1)):
        gallery.keyboard.press("Shift+Tab")
        assert links.nth(place).evaluate(top) >= 0


def test_filters_with_one_value_are_not_shown(gallery):
    form = gallery.locator("form.filters").first
    assert form.get_by_label("method").is_visible()
    assert form.get_by_label("profile").is_hidden()


def test_two_clicks_lead_to_the_best_student_and_where_it_looks(gallery):
    card = gallery.locator("#overview .card", has_text="cifar100")
    assert "58.50 ± 0.71" in card.inner_text()
    card.get_by_role("link", name="Grad-CAM").click()
    assert gallery.locator("figure:target img").evaluate("image => image.getBoundingClientRect().top < innerHeight")
    gallery.go_back()
    card.get_by_role("link", name="CRD").click()
    assert "58.50 ± 0.71" in gallery.locator("main").inner_text()
    assert gallery.locator("svg").count() == 2
    assert gallery.locator("img").evaluate("image => image.naturalWidth") == 600
    gallery.get_by_role("link", name="All settings").click()
    assert gallery.url.endswith("index.html#settings")


@pytest.mark.parametrize("look", [phone, lambda page: page.set_viewport_size({"width": 700, "height": 500})])
def test_the_accuracy_stays_in_view_while_the_table_scrolls(gallery, look):
    look(gallery)
    box = gallery.locator(".scroll", has=gallery.locator("#runs-table"))
    box.scroll_into_view_if_needed()
    box.evaluate("box => box.scrollLeft = 400")
    assert box.evaluate("box => box.scrollLeft") == 400
    for column in (1, 2):
        inside = "cell => cell.getBoundingClientRect().left >= 0 && cell.getBoundingClientRect().right <= innerWidth"
        assert gallery.locator(f"#runs-table tbody tr:first-child > :nth-child({column})").evaluate(inside)


def test_the_contents_are_folded_on_a_phone_and_open_on_a_desktop(gallery):
    assert gallery.locator("nav a").first.is_visible()
    phone(gallery)
    gallery.reload()
    assert gallery.locator("nav a").first.is_hidden()
    gallery.locator("nav summary").click()
    assert gallery.locator("nav a").first.is_visible()


@pytest.mark.parametrize("size", [{"width": 390, "height": 844}, DESKTOP])
def test_no_page_scrolls_sideways(gallery, size):
    gallery.set_viewport_size(size)
    links = gallery.locator("#runs-table tbody th a").evaluate_all("links => links.map(link => link.href)")
    for address in (gallery.url, *links):
        gallery.goto(address)
        assert not scrolls_sideways(gallery), address


def test_dark_mode_is_dark_and_readable(gallery):
    assert brightness(gallery) > 200
    dark(gallery)
    assert brightness(gallery) < 60
    assert brightness(gallery, of="color") > 180
    assert brightness(gallery, "#runs-table td") < 60


def test_digits_stand_last_and_are_marked(gallery):
    sections = gallery.locator("section").evaluate_all("sections => sections.map(section => section.id)")
    assert sections[-1] == "digits"
    assert "not evidence" in gallery.locator("#digits h2").inner_text()
    assert "99.00" not in gallery.locator("#settings").inner_text()


def test_without_javascript_the_table_is_readable(browser, gallery):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(gallery.url)
    assert len(methods(plain)) == 5
    assert plain.locator("form.filters").first.is_hidden()
    context.close()


def test_pictures_have_alternative_texts(gallery):
    texts = gallery.locator("img").evaluate_all("images => images.map(image => image.alt)")
    assert texts
    assert all(re.search(r"\w{3}", text) for text in texts), json.dumps(texts)
