"""`list`: sections that fit 80 columns, filters, true states of runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import record_fixtures
from suite_fixtures import job, make_root, profile

from kdhelpers import artifacts, build_model
from kdhelpers.cli.listing import SECTIONS, WIDTH, listing, overview
from kdhelpers.models import count_parameters


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KD_DATA", str(tmp_path / "data"))
    return make_root(tmp_path, monkeypatch)


def fits(text: str) -> bool:
    return max(map(len, text.splitlines())) <= WIDTH


def test_the_overview_counts_every_section(root: Path):
    profile(root, job("a"))
    record_fixtures.store(*record_fixtures.study())
    text = overview()
    words = [line.split(maxsplit=2) for line in text.splitlines()]
    counts = {line[0]: line[1:] for line in words if len(line) == 3}
    assert counts["notebooks"] == ["5", "good, killed, leaves, raises, sleeps"]
    assert counts["profiles"] == ["1", "tiny"]
    assert counts["runs"] == ["10", "10 on cifar100"]
    assert set(SECTIONS) <= set(counts)
    assert fits(text)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_fits_80_columns(root: Path, section: str):
    profile(root, *(job(f"a_job_with_quite_a_long_name_{number}") for number in range(5)))
    record_fixtures.store(*record_fixtures.study())
    assert fits(listing(section))


def test_a_notebook_alone_has_a_line_per_parameter_with_its_meaning(root: Path):
    text = listing("notebooks")
    assert "good    The good one\n    name='one', seed=0, force_retrain=False" in text
    alone = [line.split(maxsplit=3) for line in listing("notebooks", "good").splitlines()]
    assert alone[1:3] == [["name", "=", "'one'", "of the record"], ["seed", "=", "0", "seed"]]
    assert listing("notebooks", "force_retrain").startswith("good ")  # by the name of a parameter
    assert "raises" not in listing("notebooks", "good")


def test_profiles_are_counted_and_one_alone_names_its_jobs(root: Path):
    profile(root, job("a", seeds="each"), job("b", "killed"))
    profile(root, job("a", "nowhere"), name="broken")
    assert listing("profiles").startswith("broken  faulty")
    assert "tiny    2 jobs" in listing("profiles")
    assert listing("profiles", "tiny").splitlines()[1:] == ["  a", "  b"]


def test_data_sets_include_folders(root: Path):
    (root / "data" / "birds").mkdir(parents=True)
    (root / "data" / "cifar-100-python").mkdir()  # the layout of a registered data set
    names = [line.split()[0] for line in listing("data").splitlines() if not line.startswith(" ")]
    assert names == ["digits", "cifar10", "cifar100", "imagenette", "birds"]


def test_methods_and_models_alone_show_their_options(root: Path):
    method = [line.strip() for line in listing("methods", "lm").splitlines()]
    assert method[-4:] == ["needs a teacher", "temperature = 4.0", "ce_weight = 0.5", "kd_weight = 0.5"]
    assert "one of cifar, imagenet" in listing("models", "resnet18")
    assert f"{count_parameters(build_model('resnet8', 100)):,} parameters with 100" in listing("models", "resnet8")


def test_a_killed_run_is_interrupted_and_a_resumed_one_says_so(root: Path):
    running = record_fixtures.record(status="running", seed=4)
    finished = record_fixtures.record(60.0) | {"resumed": ["2026-11-21T02:30:00+00:00", "2026-11-21T02:40:00+00:00"]}
    record_fixtures.store(running, finished)
    rows = listing("runs", "student_si").splitlines()
    assert rows[0].split() == ["test", "top-1", "(%)", "run"]
    assert rows[1].split() == ["60.00", finished["name"]]
    assert rows[2].strip() == "finished; resumed 2 times"
    assert rows[4].strip().startswith("interrupted; the same run continues")
    assert running["name"] in listing("runs", "interrupted")
    with artifacts.lock(artifacts.run_lock_path(running["identity"])):
        assert listing("runs", "seed4").splitlines()[1].split() == ["state", "running"]
    assert "2026-11-21T02:40:00+00:00" in listing("runs", finished["name"])


def test_a_plain_name_stands_first_and_a_damaged_record_is_a_warning(root: Path, capsys):
    first = record_fixtures.record(60.0)
    record_fixtures.store(first, record_fixtures.record(50.0, lr=0.3) | {"name": f"{first['name']}-0123abcd"})
    artifacts.record_path("broken").write_text("{")
    names = [line.split()[-1] for line in listing("runs").splitlines()[1:]]
    assert names == [first["name"], f"{first['name']}-0123abcd"]
    [warning] = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {artifacts.record_path('broken')}: damaged JSON")


def test_a_filter_that_matches_nothing_names_what_is_near(root: Path):
    record_fixtures.store(record_fixtures.record(60.0))
    with pytest.raises(ValueError, match="filter = .*: .*did you mean student_si_resnet8_cifar100"):
        listing("runs", "student_si_resnet8_cifar10O")
    assert listing("profiles") == "none yet"


def test_a_run_without_metrics_and_environment_is_listed(root: Path):
    bare = record_fixtures.record() | {"metrics": None, "environment": None}
    record_fixtures.store(bare)
    assert bare["name"] in listing("runs", bare["name"])
