"""`benchmarks gpu`: sections with deadlines, a JSON after each; the rehearsal on the CPU."""

import json
import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import __main__ as benchmarks_command
from benchmarks.gpu import command, finish
from benchmarks.gpu.concurrency import phase_name
from benchmarks.gpu.epochs import PAIRS
from benchmarks.gpu.plans import PLANS, Recipe
from benchmarks.gpu.real import OutOfTime, Real, UntilDeadline
from benchmarks.gpu.session import Section, Session, attempts
from benchmarks.gpu.waits import waits
from benchmarks.measure import row
from kdhelpers import METHODS, artifacts, fit_sweep
from kdhelpers.models import build_model
from kdhelpers.training.run import Run

CPU = torch.device("cpu")


@pytest.fixture
def out(root, monkeypatch):
    monkeypatch.setenv("KD_DATA", str(root / "data"))  # so that it is restored after the command has set it
    return root / "out"


def run(out, seconds=60, *options):
    return command.main(["check", "--device", "cpu", "--seconds", str(seconds), "--out", str(out), *options])


def sections_of(out):
    return json.loads((out / "gpu_check.json").read_text())["sections"]


@pytest.mark.slow
def test_every_section_runs_on_the_cpu_within_the_time(out, capsys):
    start = time.monotonic()
    run(out, 20)
    assert time.monotonic() - start < 40  # a piece of a section is not cut
    found = sections_of(out)
    assert list(found) == [section.name for section in command.CHECK]
    assert not [entry["traceback"] for entry in found.values() if "traceback" in entry]
    lines = [line for entry in found.values() for line in entry["rows"]]
    assert not [line for line in lines if "traceback" in line]
    assert all(entry["rows"] or entry["status"] == "out of time" for entry in found.values())  # on a busy machine
    assert {line["device"] for line in lines} == {found["machine"]["device"]}
    assert [line["case"] for line in lines if line["met"] is False] == []
    assert "sections that failed" in capsys.readouterr().out


@pytest.fixture
def sections(monkeypatch):
    """Sections `first`, `broken` and `last`; `broken` fails as long as `state.broken`. `state.ran`: their names."""
    state = SimpleNamespace(ran=[], broken=True)

    def section(name):
        def work(session):
            state.ran.append(name)
            yield row(f"{name} case", 1.0, "ms")
            if name == "broken" and state.broken:
                raise RuntimeError("the reason")

        return Section(name, 1, work)

    monkeypatch.setattr(command, "CHECK", tuple(map(section, ("first", "broken", "last"))))
    return state


def test_a_failing_section_leaves_its_traceback_and_the_others_run(out, sections, capsys):
    assert run(out) == 1
    found = sections_of(out)
    assert [found[name]["status"] for name in ("first", "broken", "last")] == ["finished", "failed", "finished"]
    assert "RuntimeError: the reason" in found["broken"]["traceback"]
    assert found["broken"]["rows"][0]["case"] == "broken case"
    assert "the reason" in capsys.readouterr().out


def test_a_second_call_skips_finished_sections(out, sections, capsys):
    run(out)
    sections.broken = False
    assert run(out) == 0
    assert sections.ran == ["first", "broken", "last", "broken"]
    assert run(out) == 0
    assert len(sections.ran) == 4
    assert "first case" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "ran"), [(("--only", "last"), ["last"]), (("--skip", "broken"), ["first", "last"])]
)
def test_sections_are_chosen_by_name(out, sections, options, ran):
    run(out, 60, *options)
    assert sections.ran == ran


def test_an_unknown_section_is_refused(out, sections, capsys):
    with pytest.raises(SystemExit):
        run(out, 60, "--only", "nonsense")
    assert "known: first, broken, last" in capsys.readouterr().err


def test_the_json_of_the_state_is_copied_after_each_section(out, sections, tmp_path):
    run(out, 60, "--state", str(tmp_path / "state"))
    assert (out / "gpu_check.json").read_text() == (tmp_path / "state" / "gpu_check.json").read_text()
    assert [path.name for path in out.iterdir()] == ["gpu_check.json"]


def test_a_section_ends_at_its_deadline_and_the_next_one_runs(out, monkeypatch):
    def endless(session):
        while True:
            time.sleep(0.01)
            yield row("piece", 1.0, "ms")

    last = Section("last", 0.1, lambda session: iter([row("done", 1.0, "ms")]), repeated=True)
    monkeypatch.setattr(command, "CHECK", (Section("endless", 1, endless), last))
    start = time.monotonic()
    run(out, 0.5)
    assert time.monotonic() - start < 5
    assert sections_of(out)["endless"]["status"] == "out of time"
    assert sections_of(out)["last"]["status"] == "finished"


def test_a_failing_piece_is_a_missed_row():
    def rows():
        yield row("one", 1.0, "ms")
        raise ValueError("first line\nsecond line")

    one, missed = attempts("two", rows())
    assert (one["case"], missed["case"], missed["met"]) == ("one", "two", False)
    assert missed["note"] == "ValueError: first line"


def test_waits_are_operations_whose_result_the_host_reads():
    values = torch.arange(4.0)
    with waits(CPU) as places:
        torch.where(values > 1, values, 0).sum()
        values[torch.tensor([0, 1])]
        assert places() == []
        values.sum().item()
        values[values > 1]
    assert [place.split(" in ")[0] for place in places()] == ["_local_scalar_dense", "index.Tensor"]


def test_gpu_is_a_command_of_the_benchmarks(out, sections, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu", "check", "--device", "cpu", "--out", str(out)])
    assert benchmarks_command.main() == 1
    assert sections.ran == ["first", "broken", "last"]
    assert "gpu" not in benchmarks_command.BENCHMARKS


@pytest.mark.parametrize("each", PAIRS.values(), ids=PAIRS)
def test_the_pairs_of_a_gpu_build(each):
    with torch.device("meta"):
        student = build_model(each.student, 100, **each.options, **each.student_options)
        assert student(torch.empty(2, 3, each.side, each.side)).shape == (2, 100)
        if each.teacher:
            build_model(each.teacher, 100, **each.options)
    for fields in each.methods.values():
        METHODS[fields.get("method", "si")](**fields.get("hyperparameters", {}))


def real(out, seconds, epochs=1):
    session = Session("real", CPU, seconds, out)
    return session, Real(session, SimpleNamespace(dataset="digits", epochs=epochs, unpack=None))


@pytest.mark.parametrize(
    ("seconds", "chosen"), [(1000, "A with CRD"), (120, "A with KD+LS"), (100, "A"), (1, PLANS[-1].name)]
)
def test_the_first_plan_that_fits_is_chosen(out, data, seconds, chosen):
    session, work = real(out, seconds, epochs=1000)
    work._data = data  # two steps an epoch
    names = {phase_name("resnet20", plan.first): 10.0 * len(plan.first) for plan in PLANS}
    names |= {phase_name(None, plan.second): 9.0 * len(plan.second) for plan in PLANS if plan.second}
    session.results["concurrency"] = {"rows": [row(name, ms, "ms/step") for name, ms in names.items()]}
    lines = list(work.choose(session))
    session.results["choose"] = {"rows": lines}
    assert work.plan.name == chosen
    assert {line["case"] for line in lines[:-1]} == {plan.name for plan in PLANS}


def test_runs_follow_the_benchmark_and_share_their_batches(root):
    recipe = Recipe("cifar100", 240, "bf16", "vgg13", "vgg8")
    first, second = recipe.phases(PLANS[0])
    assert [run.method for run in first] == ["si", "si", "ls"]
    assert [run.method for run in second] == ["lm", "dkd", "crd"]
    assert {run.teacher for run in second} == {"teacher_vgg13_cifar100"}
    assert first[0].artifact_name == "teacher_vgg13_cifar100"
    assert first[0].schedule_options["milestones"] == [150, 180, 210]
    assert len({run.artifact_name for run in first + second}) == 6


def test_the_deadline_interrupts_and_keeps_the_checkpoints(root, data):
    runs = [
        Run(model="resnet8", epochs=3, batch_size=32, name=name, seed=1, lr=lr) for name, lr in (("a", 0.1), ("b", 0.2))
    ]
    progress = UntilDeadline(time.monotonic() + 1000)
    finished_epoch = progress.epoch

    def epoch(history):
        progress.ends = 0
        finished_epoch(history)

    progress.epoch = epoch
    with pytest.raises(OutOfTime, match="epoch 2 of 3"):
        fit_sweep(runs, data, progress=progress)
    checkpoints = [artifacts.load_tensors(path) for path in artifacts.folder("checkpoints").glob("*.pt")]
    assert [state["epochs_done"] for state in checkpoints] == [1, 1]
    assert all("interrupted" in record["error"] for record in artifacts.records())


def test_parts_join_to_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "PART", 10)
    content = bytes(range(25))
    parts = finish.split(content, tmp_path / "weights.tar")
    assert [part.name for part in parts] == [f"weights.tar.part{number}" for number in range(3)]
    assert b"".join(part.read_bytes() for part in parts) == content
