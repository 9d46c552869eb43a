"""The check: all findings in one run."""

from click.testing import CliRunner
from PIL import Image

from kdhelpers.cli.commands import main
from kdhelpers.data import check_data
from kdhelpers.data.findings import FAULTS, NOTE, SERIOUS, WARNING, Findings, grouped
from tests.data.readers.test_decoding import empty, html
from tests.data.readers.test_image_files import picture, write_folders


def test_the_check_lists_all_findings_in_one_run(root):
    folder = write_folders(root / "data" / "pets", count=6)
    for number in range(5):
        empty(folder / "train" / "cat" / f"{number}.png")
    html(folder / "val" / "dog" / "0.png")
    (folder / "train" / "emu").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "train" / "dog" / "0.png")
    picture(40, 50).save(folder / "train" / "dog" / "1.png")
    result = CliRunner().invoke(main, ["data", "pets", "--check"])
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    for part in (
        "severity count where: what; remedy",
        "serious 5 ",
        "and 2 more: is an empty file, not an image; copy or download it again",
        "0.png: is a web page, not an image",
        "emu: has no images; add some",
        "class 'emu' is in train but not in val",
        "the images are not all squares of one size (32x32, 40x50); give an image_size",
        "images of train have one colour only (1)",
    ):
        assert part in text
    assert result.output.index("serious") < result.output.index("warning")


def test_the_check_of_sound_data_finds_nothing(root):
    write_folders(root / "data" / "pets")
    result = CliRunner().invoke(main, ["data", "pets", "--check"])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "pets: nothing is odd about its files")
    assert CliRunner().invoke(main, ["data", "digits", "--check"]).exit_code == 0


def test_every_fault_is_used_and_has_a_remedy():
    from pathlib import Path

    import kdhelpers.data

    text = "".join(path.read_text() for path in Path(kdhelpers.data.__file__).parent.rglob("*.py"))
    for name, fault in FAULTS.items():
        assert fault.severity in (SERIOUS, WARNING, NOTE)
        assert text.count(f'"{name}"') > 1, name
        assert "delete" not in fault.remedy


def test_a_long_list_is_cheap():
    found = Findings("pets")
    for number in range(20_000):
        found.add("enlarged", f"{number}.png", size=32)
        found.add("enlarged", f"{number}.png", size=32)
    [(_, wheres)] = grouped(found)
    assert len(wheres) == 20_000


def test_a_finding_that_stops_the_reading_is_listed_once(tmp_path):
    folder = write_folders(tmp_path / "pets")
    for file in (folder / "val").rglob("*.png"):
        file.write_bytes(b"")
    found = check_data("pets", root=tmp_path)
    assert [(len(wheres), first.what) for first, wheres in grouped(found)] == [(8, "is an empty file, not an image")]
