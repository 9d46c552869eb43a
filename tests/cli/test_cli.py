"""The command line: output, exit codes, one-line errors, a start without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import record_fixtures
from click.testing import CliRunner, Result
from suite_fixtures import job, make_root, profile

import kdhelpers.suite
from kdhelpers import Run, fit
from kdhelpers.cli.commands import main
from kdhelpers.display.progress import Progress

COMMANDS = ("suite", "train", "list", "report", "explore", "compare", "data", "export", "predict", "teachers")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_root(tmp_path, monkeypatch)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_help_is_everywhere_and_needs_no_torch():
    check = (
        "import sys; from kdhelpers.cli.commands import main; main(['--help'], standalone_mode=False);"
        "sys.exit(bool({'torch', 'pandas', 'papermill', 'pydantic'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert all(f"  {command} " in process.stdout for command in COMMANDS)
    assert process.stdout.count("\n    python -m kdhelpers ") == 3  # examples
    for command in COMMANDS:
        assert run(command, "--help").output.startswith(f"Usage: main {command}")


def test_help_of_the_suite_names_the_profiles_without_torch(root: Path):
    path = root / "notebooks" / "profiles" / "night.yaml"
    path.write_text("# night: real data, for a GPU. It takes hours.\n# More\n- {name: a, notebook: good}\n")
    profile(root, job("a"))
    check = (
        "import sys; from kdhelpers.cli.commands import main; main(['suite', '--help'], standalone_mode=False);"
        "sys.exit(bool({'torch', 'pandas', 'papermill'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    lines = [line.split(maxsplit=1) for line in process.stdout.splitlines()]
    assert ["night", "real data, for a GPU"] in lines
    assert ["tiny"] in lines  # a profile without a comment


def test_suite_takes_several_values_per_option(monkeypatch: pytest.MonkeyPatch, root: Path):
    options = {}

    def run_suite(profile, only, seeds, workers, ray, force, time_limit) -> bool:
        options.update(profile=profile, only=only, seeds=seeds, workers=workers, ray=ray, force=force)
        assert time_limit is None
        return True

    monkeypatch.setattr(kdhelpers.suite, "run_suite", run_suite)
    arguments = "--seeds 0 1 2 --profile paper --only a b --workers 3 --force"
    result = run("suite", *arguments.split())
    assert result.exit_code == 0, result.output
    assert options == dict(profile="paper", only=("a", "b"), seeds=(0, 1, 2), workers=3, ray=None, force=True)
    assert run("suite", "--seeds", "3", "3", "--only=a", "--only", "b", "c", "--workers", "2").exit_code == 0
    assert (options["seeds"], options["only"], options["workers"]) == ((3, 3), ("a", "b", "c"), 2)
    assert run("suite").exit_code == 0
    assert options == dict(profile="smoke", only=(), seeds=(0,), workers=None, ray=None, force=False)
    for wrong in (
        ["--seeds"],
        ["--seeds", "x"],
        ["--seeds", "--force"],
        ["--workers", "0"],
        ["extra"],
        ["--workers", "1", "2"],
    ):
        result = run("suite", *wrong)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert "suite --help`" in result.stderr
    assert "--profile" in run("suite", "--profil", "x").stderr


@pytest.mark.parametrize(("finished", "exit_code"), [(True, 0), (False, 1)])
def test_suite_writes_the_report_and_exits_with_1_after_a_failure(
    monkeypatch, root: Path, finished: bool, exit_code: int
):
    monkeypatch.setattr(kdhelpers.suite, "run_suite", lambda *_, **__: finished)
    result = run("suite")
    assert result.exit_code == exit_code
    assert result.output == f"report: {root / 'plots' / 'index.html'}\n"
    assert (root / "plots" / "index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["suite", "--profile", "huge"], "profile = huge: no such name or file; known: tiny"),
        (["suite", "--profile", "tiny", "--only", "x"], "--only = x: is not a job of tiny; known: a"),
        (["compare", "first", "second"], "run = first: not stored"),
        (["explore", "first"], "explore = first: not stored"),
        (["explore"], "explore: no student of a teacher is stored with its weights"),
        (["data", "digts"], "dataset = digts: unknown; did you mean digits? known: digits"),
        (["suite", "--profile", "tinny"], "did you mean tiny?"),
        (["lisst"], "command = lisst: unknown; did you mean list?"),
        (["list", "notebook"], "section = notebook: unknown; did you mean notebooks?"),
        (["list", "notebooks", "goood"], "filter = goood: no row of notebooks contains it; did you mean good?"),
        (["train", "resnet8"], "train = resnet8: is neither NAME=VALUE nor a JSON file"),
        (["train", "lr=1", "lr=2"], "error: lr: given twice; keep one"),
        (["train", "lr="], "error: lr: has no value"),
        (["data", ""], "error: data: is empty"),
        (["train", "missing.json"], "train = missing.json: no such file"),
        (["train", "model=resnet9"], "model = resnet9: unknown; did you mean resnet8?"),
        (["train", "method=lmm"], "method = lmm: unknown; did you mean lm?"),
        (["train", "temprature=4"], "temprature = 4: unknown"),
        (["train", "dataset=digts"], "error: dataset = 'digts': unknown; did you mean digits?"),
        (["data", "nothing"], "dataset = nothing: unknown; known: digits"),
    ],
)
def test_errors_are_one_line_on_stderr(root: Path, arguments: list[str], message: str):
    profile(root, job("a"))
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_read_only_folder_is_one_line_too_and_a_traceback_on_request(root: Path, monkeypatch: pytest.MonkeyPatch):
    (root / "plots").write_text("a file where the folder should be")
    result = run("report")
    assert result.exit_code == 1
    assert "error: cannot write" in result.stderr
    monkeypatch.setenv("KD_TRACEBACK", "1")
    assert isinstance(run("report").exception, OSError)


def test_data_prints_the_card(root: Path):
    result = run("data", "digits")
    assert result.exit_code == 0, result.output
    card = dict(line.split(maxsplit=1) for line in result.output.splitlines() if len(line.split(maxsplit=1)) == 2)
    assert card["test"] == "360"
    assert int(card["train"]) + int(card["val"]) == 1437


def test_compare_two_stored_runs(root: Path):
    shared = {"epochs": 1, "augmentation": "none", "precision": "fp32"}
    first = fit(Run(**shared), progress=Progress())
    second = fit(Run(**shared, lr=0.01, seed=1), progress=Progress())
    result = run("compare", first.name, second.name)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[:2] == [["A", first.name], ["B", second.name]]
    assert ["lr", "0.05", "0.01"] in lines
    assert ["seed", "0", "1"] in lines
    assert not any(line[:1] == ["epochs"] for line in lines)
    difference = first.metrics["test_top1_pct"] - second.metrics["test_top1_pct"]
    assert f"A - B: {difference:+.2f} points top-1, 95 % interval" in result.output
    assert "over 360 test images" in " ".join(result.output.split())

    second.weights_path.unlink()
    text = " ".join(run("compare", first.name, second.name).output.split())
    assert f"not possible: {second.weights_path} is missing" in text
    assert f"train {second.record_path}`" in text
    assert f"did you mean {first.name}" in run("compare", "student_si_resnet8_digit", first.name).stderr


def test_runs_of_different_data_sets_are_not_compared(root: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = record_fixtures.record(50.0), record_fixtures.record(90.0, dataset="digits")
    record_fixtures.store(first, second)
    monkeypatch.setattr("kdhelpers.cli.output._paired", None)
    result = run("compare", first["name"], second["name"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.endswith("cifar100 and digits; give runs of one data set\n")


def test_report_can_open_the_page(root: Path, monkeypatch: pytest.MonkeyPatch):
    opened = []
    monkeypatch.setattr("click.launch", lambda url: opened.append(url))
    assert run("report").exit_code == 0
    assert opened == []
    assert run("report", "--open").exit_code == 0
    assert opened == [(root / "plots" / "index.html").as_uri()]


def test_explore_prints_the_page_and_can_open_it(root: Path, monkeypatch: pytest.MonkeyPatch):
    page, opened, given = root / "page.html", [], []
    page.write_text("x" * 250_000)
    monkeypatch.setattr("click.launch", lambda url: opened.append(url))
    monkeypatch.setattr("kdhelpers.report.explorer.write_explorer", lambda *arguments: given.append(arguments) or page)
    assert run("explore").output == f"{page} (0.2 MB)\n"
    options = "--dataset digits --images 20 --name mine --open"
    assert run("explore", "a", "b", *options.split()).exit_code == 0
    assert given == [((), None, 500, None), (("a", "b"), "digits", 20, "mine")]
    assert opened == [page.as_uri()]
    assert run("explore", "--images", "0").exit_code == 2
