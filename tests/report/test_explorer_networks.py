"""Which stored networks the explorer shows, by name or by default."""

import json
import re

import pytest
from training_fixtures import QUICK

from kdhelpers import Run, artifacts, fit, infer, load_data, load_model
from kdhelpers.evaluation.metrics import top_k_pct
from kdhelpers.report import explorer
from kdhelpers.report.explorer import write_explorer

ONCE = QUICK | {"epochs": 1}
LM = {"method": "lm", "teacher": "teacher_resnet8_digits"}


@pytest.fixture
def train(root, data):
    """Trains students one after the other, once a teacher stands."""
    fit(Run(**ONCE, role="teacher"), data)
    return lambda *specials: [fit(Run(**ONCE | special), data).name for special in specials]


def networks(path) -> list[str]:
    return json.loads(re.search(r'id="content" type="application/json">(.*?)</script>', path.read_text())[1])[
        "networks"
    ]


def set_finished(name: str, day: int) -> None:
    record = artifacts.load_record(name)
    record["environment"]["finished"] = f"2026-01-0{day}T00:00:00+00:00"
    artifacts.save_json(artifacts.record_path(name), record)


def test_by_default_the_newest_student_with_its_budget_and_seed(train, root):
    names = train({}, {"epochs": 2}, LM, LM | {"seed": 1}, LM | {"epochs": 2})
    for day, name in enumerate(names, 1):
        set_finished(name, day)
    path = write_explorer(images=5)
    assert path == root / "plots" / "explore_resnet8_digits.html"
    page = path.read_text()
    assert "<title>kdhelpers: Explorer of predictions · resnet8 on digits</title>" in page
    assert networks(path) == ["teacher", "CE (no teacher)", "KD"]
    assert all(f">{name}<" in page for name in ("teacher_resnet8_digits", names[1], names[4]))
    data = load_data("digits")
    assert f"<td>{top_k_pct(infer(load_model(names[4]), data)):.2f}</td>" in page
    assert "5 of the 360 test images of digits" in page
    artifacts.weights_path(names[4]).unlink()
    assert f">{names[3]}<" in write_explorer().read_text()  # the newest whose weights are here


def test_named_networks(train):
    names = train({}, LM, LM | {"seed": 1})
    assert networks(write_explorer([names[1]], page="one")) == ["teacher", "KD"]  # its own teacher
    assert networks(write_explorer(["teacher_resnet8_digits", names[0]])) == ["teacher", "CE (no teacher)"]
    path = write_explorer(names[1:], page="own")
    assert path.name == "own.html"
    assert networks(path) == ["teacher", "KD, seed 0", "KD, seed 1"]


def test_of_many_students_the_first_are_shown_and_a_message_says_so(train, monkeypatch, capsys):
    names = train({}, LM)
    monkeypatch.setattr(explorer, "MOST", 1)
    assert networks(write_explorer(names)) == ["teacher", "CE (no teacher)"]
    assert "2 students: the page has the first 1; name the students that you want" in capsys.readouterr().err


def test_errors(train, root):
    (plain,) = train({})
    for names, error, message in [
        ([], FileNotFoundError, "no student of a teacher is stored with its weights"),
        (["student_si_resnet8_digit"], FileNotFoundError, f"digit: not stored; did you mean {plain}"),
        ([plain], ValueError, f"explore = {plain}: was trained without a teacher; name a teacher, too"),
        (["teacher_resnet8_digits"], ValueError, "name one student or more, and one teacher"),
    ]:
        with pytest.raises(error, match=message):
            write_explorer(names)
    with pytest.raises(ValueError, match="dataset = cifar10: .*trained on digits; leave it out"):
        write_explorer([plain], "cifar10")
    other = artifacts.load_record(plain)
    other["run"]["dataset"], other["name"] = "cifar10", "other"
    artifacts.save_json(artifacts.record_path("other"), other)
    with pytest.raises(ValueError, match=f"explore = {plain}, other: digits at 16 pixels and cifar10 at 16 pixels"):
        write_explorer([plain, "other"])
