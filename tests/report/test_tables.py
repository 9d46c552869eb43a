"""The tables' text: what stands in which cell, what is bold, what the caption says."""

import html
import re
from types import SimpleNamespace

import pandas
import pytest
import record_fixtures as fixtures
from pydantic import BaseModel, Field

from kdhelpers import METHODS, artifacts
from kdhelpers.report import tables


class Settings(BaseModel):
    """A stand-in for Run."""

    model: str = "resnet8"
    epochs: int = Field(8, description="passes over the training split")
    teacher: str | None = None
    options: dict = {}


def text(styler):
    """A table as rows of its cells' text, and whether each row's first cell is bold."""
    page = styler.to_html()
    body = re.findall(r"<tr>(.*?)</tr>", page.split("<tbody>")[1], re.DOTALL)
    rows = [[html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in body]
    bold = set()
    for selectors, css in re.findall(r"((?:#\w+(?:,\s*)?)+) \{([^}]*)\}", page):
        if "font-weight: bold" in css:
            bold |= {int(number) for number in re.findall(r"row(\d+)_col0", selectors)}
    return rows, bold


def caption_of(styler):
    return html.unescape(re.search(r"<caption>(.*?)</caption>", styler.to_html()).group(1))


def test_over_seeds_gives_mean_and_spread_and_leaves_out_what_holds_for_one_seed():
    rows = [
        ("SI", 0, 0.5, 0.4, 41.0),
        ("SI", 1, 0.52, 0.3, 43.0),
        ("LM", 0, 0.3, 0.2, 45.0),
        ("teacher", None, 1, 1, 50.0),
    ]
    frame = pandas.DataFrame(rows, columns=["student", "seed", "kl_nats", "kl_low_nats", "top1_pct"])
    styler = tables.over_seeds(frame, ["student"], "digits")
    assert text(styler)[0] == [
        ["SI", "0.510 ± 0.014", "42.00 ± 1.41", "2"],
        ["LM", "0.300", "45.00", "1"],
        ["teacher", "1.000", "50.00", "–"],
    ]
    assert caption_of(styler) == "digits · mean ± sample standard deviation over seeds"
    alone = tables.over_seeds(frame[frame["seed"] == 0], ["student"])
    assert text(alone)[0] == [["SI", "0.500", "0.400", "41.00", "1"], ["LM", "0.300", "0.200", "45.00", "1"]]
    assert "single run" in caption_of(alone)


def test_over_seeds_tells_of_seeds_that_lack_a_number():
    frame = pandas.DataFrame(
        {"student": ["SI"] * 3, "seed": [0, 1, 2], "correlation": [0.5, None, 0.7], "none": [None] * 3}
    )
    rows, _ = text(tables.over_seeds(frame.astype({"none": float}), ["student"]))
    assert rows == [["SI", "0.600 ± 0.141 (2 of 3)", "–", "3"]]


def test_run_table_has_non_defaults_first_and_bold():
    rows, bold = text(tables.run_table(Settings(epochs=3, options={"stem": "cifar"})))
    assert rows == [
        ["epochs", "3", "passes over the training split"],
        ["options", "stem=cifar", ""],
        ["model", "resnet8", ""],
        ["teacher", "–", ""],
    ]
    assert bold == {0, 1}


def test_run_table_of_a_run_knows_completed_options(root):
    from kdhelpers import Run

    run = Run(method="lm", teacher="teacher_resnet20_digits", hyperparameters={"temperature": 2.0})
    rows, bold = text(tables.run_table(run))
    assert {rows[number][0] for number in bold} == {"method", "teacher", "hyperparameters"}
    assert ["hyperparameters", "temperature=2.0, ce_weight=0.5, kd_weight=0.5", "the method's own parameters"] in rows
    assert [row[0] for row in text(tables.run_table(Run()))[0]] == list(Run.model_fields)


def test_run_table_takes_anything_with_model_dump():
    rows, _ = text(tables.run_table(SimpleNamespace(model_dump=lambda: {"lr": 0.1})))
    assert rows == [["lr", "0.1", ""]]


def test_results_table_of_a_study(root):
    fixtures.store(*fixtures.study())
    styler = tables.results_table("cifar100", highlight="student_lm_resnet8_cifar100_seed1")
    rows, bold = text(styler)
    assert [row[:5] for row in rows] == [
        ["teacher", "resnet20", "", "60.00 (single run)", "1"],
        ["KD (T=2.0)", "resnet8", "teacher_resnet20_cifar100", "53.00 (single run)", "1"],
        ["KD", "resnet8", "teacher_resnet20_cifar100", "52.00 ± 0.50", "3"],
        ["CE (no teacher)", "resnet8", "", "50.00 ± 1.00", "3"],
    ]
    assert rows[2][5:8] == ["+2.00", "+2.00 ± 0.50 (3 seeds)", "20"]
    assert rows[1][6] == "+3.00 (1 seed)"
    assert rows[3][5:8] == ["–", "–", "–"]
    assert bold == {1}  # not the teacher
    assert re.search(r"row2_col0[^{]*\{\s*background-color", styler.to_html())  # all three seeds are its setting
    for part in (
        "cifar100 · test top-1",
        "n = 1 to 3 seeds",
        "selection: best_val",
        "budget: 8 epochs, batch 64",
        "device: CPU fp32",
        "bold: best",
        "shaded: student_lm_resnet8_cifar100_seed1",
    ):
        assert part in caption_of(styler)


def test_results_table_shows_columns_for_what_varies(root):
    fixtures.store(fixtures.record(50.0), fixtures.record(90.0, dataset="digits", epochs=2, device="cuda"))
    styler = tables.results_table()
    rows, bold = text(styler)
    assert rows[1][0] == "digits"
    assert rows[1][-2:] == ["2 epochs, batch 64", "NVIDIA H200 bf16"]
    assert not bold  # neither has a rival
    assert caption_of(styler).startswith("digits: machinery check, not evidence")


def test_results_table_without_runs_says_what_to_do(root):
    styler = tables.results_table("cifar100")
    assert text(styler) == ([], set())
    assert "run notebooks 01_teacher" in caption_of(styler)


def test_results_table_refuses_to_highlight_a_run_that_is_not_there(root):
    fixtures.store(fixtures.record(50.0), fixtures.record(status="failed", **fixtures.LM))
    with pytest.raises(ValueError, match="highlight = student_lm_.*: not a finished run .*known: student_si_"):
        tables.results_table("cifar100", highlight="student_lm_resnet8_cifar100")


def test_texts_of_users_are_escaped(root):
    fixtures.store(fixtures.record(50.0, dataset="<b>mine</b>"), fixtures.record(50.0, model="<i>"))
    assert "<b>mine" not in tables.results_table().to_html()
    assert "<i>" not in tables.results_table().to_html()


def test_saved_lists_files_that_exist(root):
    fixtures.store(fixtures.record(50.0))
    name = "student_si_resnet8_cifar100"
    artifacts.write_atomic(artifacts.weights_path(name), bytes(3 * 2**20))
    trained = SimpleNamespace(
        weights_path=artifacts.weights_path(name),
        record_path=artifacts.record_path(name),
        record=artifacts.load_record(name) | {"notebook": "executed/none.ipynb"},
        cached=True,
    )
    styler = tables.saved(trained)
    rows, _ = text(styler)
    assert [row[0] for row in rows] == ["weights", "result record"]  # no sidecar, no executed copy
    assert rows[0][1:] == [f"pth_models/{name}.pth", "3.0 MiB"]
    assert rows[1][1] == f"json_results/{name}.json"
    assert rows[1][2].endswith(" KiB")
    assert "trained before" in caption_of(styler)


def test_networks_lists_teacher_and_student(root):
    from kdhelpers import Run, fit, load_data

    data = load_data("digits")
    fit(Run(role="teacher", model="resnet8", epochs=1, batch_size=256, precision="fp32"), data)
    rows, _ = text(tables.networks(Run(method="lm", teacher="resnet8", model="resnet14"), data))
    assert [row[:3] for row in rows] == [["teacher", "resnet8", "78 k"], ["student", "resnet14", "175 k"]]
    assert float(rows[0][4]) > 0
    assert rows[1][4] == "to be trained"
    with pytest.raises(FileNotFoundError, match="role=teacher"):
        tables.networks(Run(method="lm", teacher="resnet20"), data)


def test_missing_names_methods_without_a_run_and_unfinished_runs(root):
    lacking = [row[0] for row in text(tables.missing())[0]]
    assert lacking == [f"any data set: {what}" for what in ("teacher", *METHODS)]
    fixtures.store(fixtures.record(50.0), fixtures.record(status="failed", **fixtures.LM))
    rows, _ = text(tables.missing("cifar100"))
    assert [row[0] for row in rows][1:] == [f"cifar100: {what}" for what in ("teacher", *METHODS) if what != "si"]


def test_missing_has_the_true_state_of_a_run(root):
    killed = fixtures.record(status="running", **fixtures.LM) | {"resumed": ["2026-11-21T02:30:00+00:00"]}
    fixtures.store(killed, fixtures.record(status="failed"))
    reasons = {row[0]: row[1] for row in text(tables.missing("cifar100"))[0]}
    assert reasons[killed["name"]].startswith("interrupted; the same run continues")
    assert reasons[killed["name"]].endswith("resumed 1 time")
    assert reasons["student_si_resnet8_cifar100"].startswith("failed: FloatingPointError: kd is not finite")


def test_metrics_align_what_two_networks_have(root):
    rows, _ = text(tables.metrics(student={"top1_pct": 61.23456, "n": 10000}, teacher={"top1_pct": 70.0, "nll": 0.5}))
    assert rows == [["top1_pct", "61.23", "70"], ["n", "10000", "–"], ["nll", "–", "0.5"]]


def test_metrics_of_many_networks_are_rows(root):
    named = {f"student_{place}": {"top1_pct": 60.0 + place, "n": 10} for place in range(4)}
    rows, _ = text(tables.metrics(**named))
    assert rows == [[f"student_{place}", str(60 + place), "10"] for place in range(4)]


def test_options_that_a_run_could_not_do_without_count_as_chosen(root):
    from kdhelpers import Run

    run = Run(model="resnet18", pretrained=True, model_options={"stem": "imagenet"}, method="ls")
    rows, bold = text(tables.run_table(run))
    chosen = {row[0] for number, row in enumerate(rows) if number in bold}
    assert chosen == {"model", "pretrained", "model_options", "method"}  # smoothing is the method's default
