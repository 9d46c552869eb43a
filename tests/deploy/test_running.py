"""Files at work: the script of the documentation without this package, latency, the table and the picture."""

import os
import re
import subprocess
import sys

import pandas
import pytest
import torch
from pages import ROOT, python_blocks
from PIL import Image

from kdhelpers import Run, deploy, ensure_students, fit, load_data
from kdhelpers.deploy import extras, measuring, timing
from kdhelpers.deploy.network import Deployable, load_source
from kdhelpers.display.alt_text import describe

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
PAGE = ROOT / "docs" / "deploy.md"
QUICK = {"batch_size": 64, "precision": "fp32", "lr": 0.1, "augmentation": "crop=2"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A root with a teacher of the digits and its two students."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ROOT", str(tmp_path_factory.mktemp("cohort")))
        patch.delenv("KD_DATA", raising=False)
        fit(Run(model="resnet8", role="teacher", epochs=2, **QUICK))
        yield ensure_students(Run(model="resnet8", method="lm", teacher="resnet8", epochs=1, **QUICK))


def test_the_script_of_the_page_runs_an_int8_file_without_this_package(cohort, tmp_path):
    (script,) = [block for block in python_blocks(PAGE) if block.startswith("# run_onnx.py")]
    (tmp_path / "run_onnx.py").write_text(script)
    data, name = load_data("digits"), cohort.teacher
    paths = []
    for number, image in enumerate(data.test.images[:20]):
        paths.append(tmp_path / f"image {number}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    file = deploy.export(name, int8=True, images=100).path
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('kdhelpers', 'torch'):\n    sys.modules[name] = None\n"  # neither can be imported
    )
    command = [sys.executable, "run_onnx.py", str(file), *map(str, paths)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    printed = re.findall(r"image \d+\.png (\S+)$", done.stdout, re.MULTILINE)
    run = pytest.importorskip("onnxruntime").InferenceSession(str(file)).run
    images = data.test.images[:20].numpy()
    classes = [run(None, {"images": image[None]})[0].argmax() for image in images]
    assert printed == [data.class_names[label] for label in classes]
    absent = [sys.executable, "-c", "import kdhelpers"]
    assert subprocess.run(absent, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode


def test_the_script_of_the_page_has_ten_lines():
    (script,) = [block for block in python_blocks(PAGE) if block.startswith("# run_onnx.py")]
    code = [line for line in script.splitlines() if line and not re.match(r"#|import|from", line)]
    assert len(code) <= 10


def test_the_page_names_the_opset_and_the_counts_of_the_code():
    page = PAGE.read_text()
    assert f"opset {deploy.exporting.formats.OPSET}" in page
    assert f"{deploy.exporting.CALIBRATION} training images" in page
    assert extras.INSTALL in page


def test_latency_has_a_row_per_network_batch_and_number_of_threads():
    networks = {"b": Deployable(torch.nn.Conv2d(3, 2, 3), [0.5] * 3, [0.2] * 3), "a": torch.nn.Flatten()}
    before = torch.get_num_threads()
    frame = deploy.latency(networks, image_size=8, batches=(1, 4), threads=(1, 2), repeats=6)
    assert torch.get_num_threads() == before
    assert list(map(tuple, frame[["network", "batch", "threads"]].values)) == [
        (name, batch, threads) for batch in (1, 4) for threads in (1, 2) for name in ("b", "a")
    ]
    assert (frame["low_ms"] <= frame["median_ms"]).all()
    assert (frame["median_ms"] <= frame["high_ms"]).all()
    assert (frame["repeats"] == 6).all()
    assert frame["images_per_second"].iloc[0] == pytest.approx(1000 / frame["median_ms"].iloc[0])
    assert frame["machine"].iloc[0]


def test_a_slow_network_is_timed_less_often(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(now)))  # each batch takes a second
    times = timing.timed(torch.nn.Flatten(), 1, 8, 1, 30)
    assert times == [1000.0] * len(times)
    assert 3 <= len(times) <= 4


def test_the_candidates_are_teacher_student_alone_and_the_best_taught(cohort):
    chosen = deploy.candidates(cohort, 0)
    assert list(chosen) == ["teacher", "CE (no teacher)", "KD"]
    assert chosen["teacher"] == cohort.teacher
    assert list(deploy.candidates(cohort, 0, 0)) == ["teacher", "CE (no teacher)"]


def test_the_table_and_the_picture_have_float_and_int8(cohort):
    data = load_data(*cohort.data)
    networks = {"KD": cohort.students[0]["KD"]}
    frame = deploy.measure(networks, data, repeats=3)
    rows = frame.drop_duplicates("network").set_index("precision")
    assert list(rows.index) == ["float", "int8"]
    assert rows["megabytes"]["int8"] < rows["megabytes"]["float"]
    assert rows["top1_pct"]["float"] == pytest.approx(load_source(networks["KD"]).facts["test_top1_pct"])
    assert set(frame["batch"]) == {1, 64}
    text = describe(deploy.picture(frame))
    assert "1 image at a time, 1 thread" in text
    assert "KD: float" in text


def test_without_the_extra_pytorch_alone_is_measured(cohort, monkeypatch, capsys):
    monkeypatch.setattr(measuring, "lacking", lambda form: ["onnxruntime"])
    frame = deploy.measure({"KD": cohort.students[0]["KD"]}, load_data(*cohort.data), repeats=3)
    assert set(frame["precision"]) == {"PyTorch"}
    assert "onnxruntime not installed: pip install -r requirements-export.txt" in capsys.readouterr().err
    assert isinstance(frame, pandas.DataFrame)
    assert "hollow" not in describe(deploy.picture(frame))
