"""The gallery and the tables with damaged records, pictures and pages: each is named, and everything else is shown."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from gallery_fixtures import Page, setting_pages, store
from PIL import Image

from kdhelpers import artifacts
from kdhelpers.cli.commands import main
from kdhelpers.report.gallery import write_gallery
from kdhelpers.report.tables import missing


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KD_ROOT", str(tmp_path))
    return tmp_path


def change(stem: str, **fields) -> Path:
    path = artifacts.record_path(stem)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


def test_a_record_with_little_in_it_does_not_break_the_page():
    artifacts.save_json(
        artifacts.record_path("bare"), {"schema": 1, "name": "bare", "identity": "0" * 64, "status": "running"}
    )
    (artifacts.folder("results") / "other.json").write_text(json.dumps([1]))
    assert "bare" in Page(write_gallery()).text


@pytest.mark.parametrize(
    ("field", "value"), [("name", None), ("run", "text"), ("teacher", ["a"]), ("metrics", "text"), ("weights", 3)]
)
def test_a_record_of_another_shape_does_not_hide_the_others(field, value):
    store("good")
    store("bad", method="lm")
    change("bad", **{field: value})
    assert "1 stored run," in Page(write_gallery()).text
    assert len(setting_pages()) == 1


@pytest.mark.parametrize("name", ["pages/a.html", "notebooks/a.html", "results_gains_a.png", "a.html"])
def test_a_folder_with_the_name_of_a_page_or_picture_is_left_out(name):
    store("first")
    (artifacts.folder("plots") / name).mkdir(parents=True)
    page = Page(write_gallery())
    assert not [link for link in page.links if link.endswith((name, "a.png"))]


def test_a_picture_with_too_many_pixels_to_open_and_a_broken_one_are_shown_by_name(monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10)
    store("first")
    artifacts.write_atomic(artifacts.folder("plots") / "broken.png", b"no picture")
    Image.new("1", (10, 10)).save(artifacts.folder("plots") / "large.png")
    alts = [value for name, value in Page(write_gallery()).attributes if name == "alt"]
    assert {"picture: broken", "picture: large"} <= set(alts)


def test_a_student_without_a_method_and_a_notebook_with_a_long_name_have_a_page():
    store("first", method=None)
    change("first", notebook="n" * 3000)
    store("second", method="lm")
    write_gallery()
    assert len(setting_pages()) == 2


def test_a_damaged_record_is_named_on_the_page_and_in_the_output(root, monkeypatch, capsys):
    store("good")
    store("bad<b>")
    path = change("bad<b>", metrics={"test_top1_pct": "<i>high"})
    fault = f"{path}: metrics.test_top1_pct = '<i>high': input should be a valid number; correct the file, or delete it"
    page = Page(write_gallery())
    assert fault.removeprefix(f"{root}{os.sep}") in page.text
    assert str(root) not in page.text  # the page may be published
    assert ("href", "#damaged") in page.attributes
    monkeypatch.setattr(sys, "argv", ["kdhelpers", "report"])
    with pytest.raises(SystemExit):
        main()
    assert f"warning: {fault}" in capsys.readouterr().err


def test_a_page_of_damaged_records_alone_does_not_name_the_first_command():
    store("bad")
    change("bad", notes=3)
    text = Page(write_gallery()).text
    assert "notes = 3: input should be a valid list" in text
    assert "No runs yet" not in text


def test_a_run_without_a_method_is_not_missing():
    store("first", method=None)
    assert "cifar100: dkd" in str(missing())
