"""Rehearsals: few steps, what is missing named first, an estimate that adds up, nothing kept."""

from __future__ import annotations

import json
import re
import socket
import tempfile
import threading

import pytest
import torch
from click.testing import CliRunner
from suite_fixtures import job, make_root, profile, write_notebook
from training_fixtures import QUICK

from kdhelpers import Run, analysis, artifacts, describe_teacher, fit, infer, load_data, load_model
from kdhelpers.cli.commands import main
from kdhelpers.deploy.network import draw
from kdhelpers.suite import rehearse_suite, run_suite
from kdhelpers.suite.profiles import fingerprints, load_profile
from kdhelpers.suite.rehearsal import LOCK, PREFIX, Estimate, _remove_left_behind, plan, scratch_root, stored_estimates
from kdhelpers.suite.stand_ins import _answers, _store_random, missing, place_weights
from kdhelpers.suite.terminal import changed_since


@pytest.fixture
def rehearsed(root, monkeypatch):
    monkeypatch.setenv("KD_REHEARSAL", str(root))
    return root


def test_a_rehearsed_training_takes_two_steps_and_has_the_time_of_whole_epochs(rehearsed, data, monkeypatch):
    from kdhelpers.training import loop

    clock = iter(range(1000))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    trained = fit(Run(**QUICK | {"epochs": 7}, val_fraction=0.1), data)
    assert [row["epoch"] for row in trained.history] == [1]
    [row] = trained.history
    # the second step lasts from one reading of the clock to the next, and the epoch has four such steps
    assert row["images_per_second"] == 120 / 4
    assert trained.record["run"]["epochs"] == 7
    assert trained.record["rehearsal"]["test_seconds"] == 1  # of all 40 images
    assert trained.weights_path.is_file()


def test_both_stages_of_a_method_are_rehearsed(rehearsed, data):
    teacher = fit(Run(**QUICK, role="teacher"), data).name
    hints = {"mode": "two_stage", "hint_epochs": 2}
    run = Run(**QUICK | {"epochs": 9}, method="hints", teacher=teacher, hyperparameters=hints, selection="last")
    assert len(fit(run, data).history) == 3


def test_few_images_of_each_class_are_predicted(rehearsed, monkeypatch):
    data = load_data("digits")
    model = fit(Run(**QUICK), data).model
    predictions = infer(model, data)
    assert (len(predictions.labels), len(predictions.labels.unique())) == (64, 10)
    assert torch.equal(predictions.labels, data.test.labels[predictions.index])
    assert len(draw(data.test, 300)) == 64  # that an export compares
    monkeypatch.delenv("KD_REHEARSAL")
    assert len(infer(model, data).labels) == len(data.test) == 360


def test_a_rehearsal_has_a_thousandth_of_the_learning_rate(rehearsed, data):
    assert fit(Run(**QUICK | {"lr": 10}), data).history[0]["lr"] <= 0.01


def test_a_rehearsed_map_keeps_its_perplexity_within_the_few_images(rehearsed):
    predictions = {"one": infer(fit(Run(**QUICK), load_data("digits")).model, load_data("digits"))}
    assert set(analysis.tsne(predictions, count=300, classes=[0, 1], perplexity=30)["perplexity"]) < {*range(1, 30)}
    with pytest.raises(ValueError, match="perplexity = 300: must lie between 0 and 300, the number of images"):
        analysis.tsne(predictions, count=300, perplexity=300)


def test_noise_stands_in_for_a_data_set_that_is_not_stored(rehearsed):
    data = load_data("cifar100")
    assert (len(data.train), len(data.val), len(data.test)) == (45_000, 5_000, 10_000)
    assert (data.num_classes, data.image_size, data.notes) == (100, 32, ())
    assert data.source == "noise in place of cifar100"


def test_what_is_missing_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("kdhelpers.suite.stand_ins._answers", lambda url: False)
    root = make_root(tmp_path, monkeypatch)
    taking = {"name": "one", "dataset": "cifar100", "teacher": "resnet56"}
    (root / "notebooks" / "good.ipynb").write_text(
        (root / "notebooks" / "good.ipynb")
        .read_text()
        .replace("name: str = 'one'", "dataset: str = 'digits'\\nteacher: str = ''\\nname: str = 'one'")
    )
    jobs = load_profile(profile(root, job("a", parameters=taking), job("b", parameters=taking), job("digits")))
    first, second = missing(jobs)
    assert first == (f"data set cifar100: is not under {root / 'data'}; no host of it answers; put it there by hand")
    assert second.startswith("teacher teacher_resnet56_cifar100: is not stored, and no job of the profile trains it; ")
    assert "`python -m kdhelpers teachers resnet56` fetches it" in second
    with scratch_root():
        place_weights(jobs)
        described = describe_teacher("resnet56", "cifar100")
        assert (described["num_classes"], described["test_top1_pct"]) == (100, 1.0)
    (root / "data" / "cifar-100-python").mkdir(parents=True)
    (root / "data" / "cifar-100-python" / "train").touch()
    artifacts.save_tensors(artifacts.weights_path("teacher_resnet56_cifar100"), {"x": torch.zeros(1)})
    assert missing(jobs) == []
    with scratch_root():
        place_weights(jobs)
        assert artifacts.load_tensors(artifacts.weights_path("teacher_resnet56_cifar100")).keys() == {"x"}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """torchvision's file of ImageNet weights is not stored, and no host answers."""

    def fail(*_arguments, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr("kdhelpers.suite.stand_ins._answers", lambda url: False)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_missing_imagenet_weights_are_named_once(offline):
    jobs = [each for each in load_profile("paper") if each.parameters.get("pretrained")]
    (line,) = missing(jobs)[-1:]
    assert line.startswith(f"ImageNet weights of resnet101: are not at {offline}/resnet101-")
    assert re.search(r"; put https://download\.pytorch\.org/models/resnet101-\w+\.pth there by hand$", line)
    file = next(word for word in line.split() if word.startswith(str(offline))).rstrip(";")
    offline.mkdir(parents=True)
    (offline / file).touch()
    assert not [line for line in missing(jobs) if "ImageNet" in line]


def test_random_weights_stand_in_for_those_of_imagenet_in_a_rehearsal_alone(offline, root, data, monkeypatch, capsys):
    run = Run(**QUICK | {"model": "resnet18", "model_options": {"stem": "imagenet"}}, pretrained=True, role="teacher")
    with pytest.raises(FileNotFoundError, match="pretrained: resnet18: download failed"):
        fit(run, data)
    monkeypatch.setenv("KD_REHEARSAL", str(root))
    assert fit(run, data).weights_path.is_file()
    assert "no route to host" in capsys.readouterr().err


def test_a_random_teacher_of_great_depth_has_finite_maps(rehearsed):
    _store_random("teacher_resnet110_cifar100", "resnet110", 100)
    with torch.no_grad():
        logits = load_model("teacher_resnet110_cifar100")(torch.randn(4, 3, 32, 32))
    assert 0 < logits.abs().max() < 1e3


def test_the_estimate_is_the_longest_chain_or_the_shared_work(tmp_path, monkeypatch):
    root = make_root(tmp_path, monkeypatch)
    entries = [job("first"), job("each", needs=["first"], seeds="each"), job("alone")]
    estimates = {
        name: Estimate("done", None, seconds, 2, memory, 10**6)
        for name, seconds, memory in (("first", 100, 50), ("each", 40, 70), ("alone", 10, 0))
    }
    jobs = load_profile(profile(root, *entries), [0, 1, 2])
    assert plan(jobs, estimates, workers=1).seconds == 100 + 3 * 40 + 10
    assert plan(jobs, estimates, workers=8).seconds == 100 + 40
    whole = plan(jobs, estimates, workers=8)
    assert (whole.trainings, whole.memory_mib, whole.bytes, whole.unknown) == (10, 70, 5 * 10**6, 0)
    assert plan(jobs, {}, workers=1).unknown == 5


def test_a_rehearsal_of_a_profile_keeps_nothing_but_its_estimate(tmp_path, monkeypatch, capsys):
    root = make_root(tmp_path, monkeypatch)
    name = profile(root, job("works"), job("raises", "raises"), job("after", needs=["raises"]))
    assert not rehearse_suite(name, workers=1)
    printed = capsys.readouterr().out
    assert "62.50 %" in printed  # this record is not of a rehearsal
    lines = {line.split()[0]: line for line in printed.splitlines()[-6:]}
    assert [lines[name].split()[1] for name in ("works", "raises", "after")] == ["yes", "no", "blocked"]
    assert "ValueError: rate = 0.1: too fast" in printed
    assert "; 2 jobs that did not work are not in it" in printed
    assert sorted(path.name for path in root.iterdir()) == ["notebooks"]
    assert [path.name for path in (root / "notebooks" / "executed").iterdir()] == ["tiny.rehearsal.json"]
    assert stored_estimates(name)["works"].state == "done"
    assert not rehearse_suite(name, workers=1)
    printed = capsys.readouterr().out
    assert "raises: running" in printed
    assert "works: running" not in printed  # it worked before, unchanged
    assert [line.split()[0] for line in printed.splitlines()[-6:] if " yes " in line] == ["works"]
    run_suite(name, only=["works"], workers=1)
    printed = capsys.readouterr().out
    assert "estimate of the last rehearsal: 0 trainings, " in printed
    assert "works: running  (0 of 1 done, about " in printed


def test_a_damaged_estimate_is_left_out(tmp_path, monkeypatch):
    root = make_root(tmp_path, monkeypatch)
    path = root / "notebooks" / "executed" / "tiny.rehearsal.json"
    path.parent.mkdir()
    for content in ("", "[]", json.dumps({"works": {"state": "done"}}), json.dumps({"works": 3})):
        path.write_text(content)
        assert stored_estimates("tiny") == {}


def test_an_answer_that_is_not_http_is_no_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection = server.accept()[0]
            connection.recv(1000)
            connection.sendall(b"a login page\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert not _answers(f"http://127.0.0.1:{server.getsockname()[1]}/x")


def test_teachers_are_also_the_defaults_of_notebooks(tmp_path, monkeypatch):
    monkeypatch.setattr("kdhelpers.suite.stand_ins._answers", lambda url: False)
    root = make_root(tmp_path, monkeypatch)
    for notebook in ("01_teacher", "takes"):
        write_notebook(root / "notebooks", notebook, ["dataset: str = 'digits'\nteacher: str = 'resnet20'", "1"])
    takes = job("takes", "takes", parameters={"dataset": "cifar100"})
    [line] = [line for line in missing(load_profile(profile(root, takes))) if line.startswith("teacher ")]
    assert line.startswith("teacher teacher_resnet20_cifar100: is not stored, ")
    both = profile(root, takes, job("trains", "01_teacher", parameters={"dataset": "cifar100"}))
    assert not [line for line in missing(load_profile(both)) if line.startswith("teacher ")]


def test_jobs_that_did_not_work_are_not_in_the_sum(tmp_path, monkeypatch):
    jobs = load_profile(profile(make_root(tmp_path, monkeypatch), job("works"), job("fails")))
    estimates = {"works": Estimate("done", None, 60, 1, 5, 10), "fails": Estimate("failed", "why", 900, 3, 50, 100)}
    whole = plan(jobs, estimates, workers=1)
    assert (whole.seconds, whole.trainings, whole.memory_mib, whole.bytes, whole.unknown) == (60, 1, 5, 10, 0)


def test_a_job_that_changed_since_its_rehearsal_is_said(tmp_path, monkeypatch):
    root = make_root(tmp_path, monkeypatch)
    jobs = load_profile(profile(root, job("same"), job("other")))
    hashes = fingerprints(jobs)
    estimates = {each.entry: Estimate("done", None, 60, 1, 0, 0, 0, hashes[each.name]) for each in jobs}
    assert changed_since(estimates, jobs, {"same", "other"}) == []
    now = load_profile(profile(root, job("same"), job("other", parameters={"seed": 5}), job("new")))
    [line] = changed_since(estimates, now, {"same", "other", "new"})
    assert line == (
        "1 of 2 jobs have other sources, parameters or seeds than when they were rehearsed; --rehearse measures them "
        "again"
    )


def test_the_folder_of_a_rehearsal_that_begins_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    begins, killed = tmp_path / f"{PREFIX}begins", tmp_path / f"{PREFIX}killed"
    begins.mkdir()
    with artifacts.lock(killed / LOCK):
        _remove_left_behind()
        assert killed.is_dir()
    _remove_left_behind()
    assert [path.name for path in tmp_path.iterdir()] == [begins.name]


@pytest.mark.parametrize("words", [["suite"], ["suite", "--rehearse"]])
def test_an_interrupted_suite_or_rehearsal_ends_with_130_and_says_how_to_continue(words, monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kdhelpers.suite.run_suite", interrupted)
    monkeypatch.setattr("kdhelpers.suite.rehearse_suite", interrupted)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 130
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.parametrize("other", [["--force"], ["--ray", "local"]])
def test_a_rehearsal_with_options_of_a_suite_is_refused(other):
    done = CliRunner().invoke(main, ["suite", "--rehearse", *other])
    assert done.exit_code == 2
    assert "--rehearse: runs on this machine and trains nothing; leave out --ray and --force" in done.output
