"""The machinery of the benchmarks; what they measure is never part of the timed tests."""

import json
import os
import sys
import types

import pytest
import torch

import benchmarks
from benchmarks import __main__ as command
from benchmarks import image_pipeline
from benchmarks.dispatch import Counting, per_step
from benchmarks.measure import Apart, Timing, interleave, row


def test_cases_take_turns_after_one_warm_up():
    calls = []
    timings = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert "".join(calls) == "ab" * 4
    assert len(timings["a"].seconds) == 3


def prepare_appending(path, word):
    return lambda: path.write_text((path.read_text() if path.exists() else str(os.getpid())) + word)


def test_a_case_apart_runs_in_its_own_process(tmp_path):
    case = Apart(prepare_appending, tmp_path / "calls", " ran")
    try:
        case()
        case()
    finally:
        case.close()
    process, *calls = (tmp_path / "calls").read_text().split()
    assert int(process) != os.getpid()
    assert calls == ["ran", "ran"]


def test_ratio_pairs_the_rounds():
    ours, bound = Timing([1.0, 10.0, 2.0]), Timing([2.0, 20.0, 1.0])  # a slow round slows both
    assert ours.ratio_to(bound) == 0.5
    assert ours.median == 2.0


def test_row_scales_a_timing():
    line = row("case", Timing([0.1, 0.3, 0.2], 50.0), "ms", scale=1e3)
    assert line["value"] == pytest.approx(200)
    assert line["spread"] == pytest.approx([100, 300])
    assert line["peak_mib"] == 50


def test_counts_operations_that_compute():
    x = torch.randn(4, 4)
    with Counting() as mode:
        (x.view(16).view(4, 4).t() @ x).relu_()
        torch.empty(3)
    assert mode.counts == {"aten::mm": 1, "aten::relu_": 1}


def test_counts_per_step_leave_out_what_an_epoch_does_once():
    x = torch.randn(3)

    def epoch(steps):
        return lambda: (x.exp(), [x.sum().item() for _ in range(steps)])

    counts = per_step(epoch)
    assert {name: count for name, count in counts.items() if count} == {"aten::sum": 1, "aten::_local_scalar_dense": 1}


@pytest.fixture
def fake_benchmark(monkeypatch):
    """A benchmark named `fake` whose only goal is met or missed as told."""

    def install(met):
        module = types.ModuleType("benchmarks.fake")
        module.run = lambda threads: [row("ours", 12.5, "ms", 0.9, "<= 1", met)]
        monkeypatch.setitem(sys.modules, "benchmarks.fake", module)
        monkeypatch.setattr(command, "BENCHMARKS", ("fake",))

    return install


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, 1), (None, 0)])
def test_exit_code_tells_a_missed_goal(fake_benchmark, monkeypatch, capsys, tmp_path, met, code):
    fake_benchmark(met)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "fake", "--json", str(tmp_path / "rows.json")])
    assert command.main() == code
    printed = capsys.readouterr().out
    assert "threads 1, load average" in printed
    assert torch.__version__ in printed
    assert "12.5" in printed
    assert json.loads((tmp_path / "rows.json").read_text())["rows"][0]["met"] is met


def test_the_device_is_passed_on(monkeypatch, capsys):
    module, asked = types.ModuleType("benchmarks.fake"), []
    module.run = lambda threads, device: asked.append((threads, device)) or []
    monkeypatch.setitem(sys.modules, "benchmarks.fake", module)
    monkeypatch.setattr(command, "BENCHMARKS", ("fake",))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "fake", "--device", "cpu"])
    assert command.main() == 0
    assert asked == [(1, "cpu")]


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["startup", "--threads", "0"], ["startup", "--device", "nonsense"]]
)
def test_bad_arguments_are_refused(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as refused:
        command.main()
    assert refused.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


@pytest.mark.parametrize("name", image_pipeline.RECIPES)
def test_both_image_pipelines_take_the_same_files(tmp_path, name):
    paths = image_pipeline.write_photographs(tmp_path, count=2, side=36)
    split = image_pipeline.read(paths, 32)
    assert split.images.float().flatten(1).std(1).min() > 20  # a picture, not a grey square
    for held in (False, True):
        image, label = image_pipeline.Photographs(paths, 32, name, held)[1]
        assert image.shape == split.images[1].shape
        assert image.dtype == torch.float32
        assert label == split.labels[1]


def test_resized_crops_of_the_image_pipeline_are_torchvisions(tmp_path):
    split = image_pipeline.read(image_pipeline.write_photographs(tmp_path, count=4, side=36), 32)
    apart = image_pipeline.differences(split)
    assert apart["float"].shape == (4,)
    assert apart["float"].max() < image_pipeline.TOLERANCE
    assert 0.1 < apart["uint8"].max() < 1.01  # whole levels, rounded once per direction


def test_every_benchmark_is_there():
    from importlib import import_module

    for name in benchmarks.BENCHMARKS:
        module = import_module(f"benchmarks.{name}")
        assert callable(module.run)
        assert module.__doc__
