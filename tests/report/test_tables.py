"""The tables' text: what stands in which cell, what is bold, what the caption says."""

import html
import re
from types import SimpleNamespace

import pandas
import pytest
import record_fixtures as fixtures
from pydantic import BaseModel, Field

from kdhelpers import METHODS, artifacts
from kdhelpers.report import styling, tables
from kdhelpers.report.tables.settings import CORE


class Settings(BaseModel):
    """A stand-in for Run."""

    model: str = "resnet8"
    epochs: int = Field(8, description="passes over the training split")
    teacher: str | None = None
    options: dict = {}


def plain_text(markup):
    return html.unescape(markup.replace("<wbr>", "")).replace("\N{NO-BREAK SPACE}", " ")


def text(table):
    """The main table as rows of its cells' text, and the rows with a bold first cell."""
    page = table.main.to_html()
    body = re.findall(r"<tr>(.*?)</tr>", page.split("<tbody>")[1], re.DOTALL)
    rows = [[plain_text(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in body]
    bold = set()
    for selectors, css in re.findall(r"((?:#\w+(?:,\s*)?)+) \{([^}]*)\}", page):
        if "font-weight: bold" in css:
            bold |= {int(number) for number in re.findall(r"row(\d+)_col0", selectors)}
    return rows, bold


def caption_of(table):
    return plain_text(re.search(r"<caption>(.*?)</caption>", table.to_html()).group(1))


def heads(table):
    return list(table.main.data)


def test_over_seeds_gives_mean_and_spread_and_leaves_out_what_holds_for_one_seed():
    rows = [
        ("SI", 0, 0.5, 0.4, 0.6, 41.0),
        ("SI", 1, 0.52, 0.3, 0.7, 43.0),
        ("LM", 0, 0.3, 0.2, 0.4, 45.0),
        ("teacher", None, 1, 1, 1, 50.0),
    ]
    frame = pandas.DataFrame(rows, columns=["student", "seed", "kl_nats", "kl_low_nats", "kl_high_nats", "top1_pct"])
    table = tables.over_seeds(frame, ["student"], "digits")
    assert text(table)[0] == [
        ["SI", "2", "0.510 ± 0.014", "42.00 ± 1.41"],
        ["LM", "1", "0.300", "45.00"],
        ["teacher", "–", "1.000", "50.00"],
    ]
    assert heads(table) == ["student", "seeds", "KL (nats)", "top-1 (%)"]
    assert caption_of(table) == "digits · mean ± sample standard deviation over seeds"
    alone = tables.over_seeds(frame[frame["seed"] == 0], ["student"])
    assert heads(alone) == ["student", "seeds", "KL (nats)", "KL 95 % interval", "top-1 (%)"]
    assert text(alone)[0][0] == ["SI", "1", "0.500", "0.400 to 0.600", "41.00"]
    assert "single run" in caption_of(alone)


def test_over_seeds_tells_of_seeds_that_lack_a_number():
    frame = pandas.DataFrame(
        {"student": ["SI"] * 3, "seed": [0, 1, 2], "correlation": [0.5, None, 0.7], "none": [None] * 3}
    )
    rows, _ = text(tables.over_seeds(frame.astype({"none": float}), ["student"]))
    assert rows == [["SI", "3", "0.600 ± 0.141 (2 of 3)", "–"]]


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
    description = Run.model_fields["hyperparameters"].description
    assert ["hyperparameters", "temperature=2.0, ce_weight=0.5, kd_weight=0.5", description] in rows
    assert [row[0] for row in text(tables.run_table(Run()))[0]] == [name for name in Run.model_fields if name in CORE]
    assert set(tables.run_table(Run()).more.data["setting"]) == set(Run.model_fields) - set(CORE)


def test_run_table_takes_anything_with_model_dump():
    rows, _ = text(tables.run_table(SimpleNamespace(model_dump=lambda: {"lr": 0.1})))
    assert rows == [["lr", "0.1", ""]]


def test_results_table_of_a_study(root):
    fixtures.store(*fixtures.study())
    table = tables.results_table("cifar100", highlight="student_lm_resnet8_cifar100_seed1")
    rows, bold = text(table)
    assert [row[:5] for row in rows] == [
        ["teacher", "resnet20", "–", "60.00 (single run)", "1"],
        ["KD (T=2.0)", "resnet8", "teacher_resnet20_cifar100", "53.00 (single run)", "1"],
        ["KD", "resnet8", "teacher_resnet20_cifar100", "52.00 ± 0.50", "3"],
        ["CE (no teacher)", "resnet8", "–", "50.00 ± 1.00", "3"],
    ]
    assert [row[5:] for row in rows] == [["–"], ["+3.00 (1 seed)"], ["+2.00 ± 0.50 (3 seeds)"], ["–"]]
    folded = table.more.data
    assert list(folded) == "method|model|gap closed (%)|parameters|MACs|s/epoch".split("|")
    assert folded.loc[2, "gap closed (%)"] == "20"
    assert bold == {1}  # not the teacher
    assert re.search(r"row2_col0[^{]*\{\s*background-color", table.to_html())  # all three seeds are its setting
    for part in (
        "cifar100 · test top-1",
        "n = 1 to 3 seeds",
        "bold: best",
        "shaded: student_lm_resnet8_cifar100_seed1",
    ):
        assert part in caption_of(table)
    for part in ("selection: best_val", "budget: 8 epochs, batch 64", "device: CPU fp32"):
        assert part in table.conditions


def test_results_table_shows_columns_for_what_varies(root):
    fixtures.store(fixtures.record(50.0), fixtures.record(90.0, dataset="digits", epochs=2, device="cuda"))
    table = tables.results_table()
    rows, bold = text(table)
    assert rows[1][0] == "digits"
    assert rows[1][-1] == "2 epochs, batch 64"
    assert table.more.data["device"][1] == "NVIDIA H200 bf16"
    assert not bold  # neither has a rival
    assert caption_of(table).startswith("digits: this shows that the code works, it is not evidence for a method")


def test_results_table_without_runs_says_what_to_do(root):
    table = tables.results_table("cifar100")
    assert text(table) == ([], set())
    assert "run notebooks 01_teacher" in caption_of(table)


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
    table = tables.saved(trained)
    rows, _ = text(table)
    assert [row[0] for row in rows] == ["weights", "result record"]  # no sidecar, no executed copy
    assert rows[0][1:] == [f"pth_models/{name}.pth", "3.0 MiB"]
    assert rows[1][1] == f"json_results/{name}.json"
    assert rows[1][2].endswith(" KiB")
    assert "trained before" in caption_of(table)


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


def test_metrics_have_a_row_per_network():
    evaluated = {"top1_pct": 61.23456, "nll": 0.5, "n": 10000}
    table = tables.metrics(student=evaluated, teacher={"top1_pct": 70.0, "ece_pct": 1.0}, student_3={"some_thing": 2.0})
    assert heads(table) == ["network", "top-1 (%)", "NLL (nats)", "test images", "ECE (%)", "some thing"]
    assert text(table)[0] == [
        ["student", "61.23", "0.5", "10,000", "–", "–"],
        ["teacher", "70.00", "–", "–", "1.00", "–"],
        ["student_3", "–", "–", "–", "–", "2"],
    ]


COMPARISON = {"first_pct": 93.61, "second_pct": 87.78, "difference_pct": 5.83, "low_pct": 1.94, "high_pct": 9.72}
COMPARISON |= {"agreement_pct": 90.0, "n": 360}


def test_metrics_of_pairs_have_a_row_per_pair():
    table = tables.metrics(student_against_teacher=COMPARISON, **{"KD - CE (no teacher)": COMPARISON})
    rows, _ = text(table)
    assert rows[0] == ["student - teacher", "93.61 and 87.78", "+5.83", "1.94 to 9.72", "90.00", "360"]
    assert rows[1][0] == "KD - CE (no teacher)"
    assert not any("_" in head for head in heads(table))


def test_options_that_a_run_could_not_do_without_count_as_chosen(root):
    from kdhelpers import Run

    run = Run(model="resnet18", pretrained=True, model_options={"stem": "imagenet"}, method="ls")
    rows, bold = text(tables.run_table(run))
    chosen = {row[0] for number, row in enumerate(rows) if number in bold}
    assert chosen == {"model", "pretrained", "model_options", "method"}  # smoothing is the method's default


def test_only_the_settings_of_some_runs(root):
    fixtures.store(*fixtures.study())
    result = SimpleNamespace(name="student_lm_resnet8_cifar100")
    table = tables.results_table("cifar100", only=[result, "teacher_resnet20_cifar100"])
    rows, bold = text(table)
    assert [(row[0], row[4], row[5]) for row in rows] == [
        ("teacher", "1", "–"),
        ("KD", "3", "+2.00 ± 0.50 (3 seeds)"),  # over the student alone, which is not in the table
    ]
    assert not bold
    assert caption_of(table).endswith("2 of 4 stored settings")
    with pytest.raises(
        ValueError, match="only = student_lm_resnet9_cifar100: .*did you mean student_lm_resnet8_cifar100"
    ):
        tables.results_table("cifar100", only=["student_lm_resnet9_cifar100"])


def test_columns_that_do_not_fit_are_folded():
    wide = {f"measure_{place}_with_a_{'long' * 6}_name": "0.512 ± 0.003" for place in range(9)}
    table = styling.table_of([{"student": "KD"} | wide], "a caption", conditions="on <one> device")
    shown, folded = list(table.main.data), list(table.more.data)
    assert [shown[0], folded[0]] == ["student", "student"]
    assert [*shown[1:], *folded[1:]] == list(wide)
    assert 2 < len(shown) < 9
    page = table.to_html()
    assert "<summary>more columns and conditions</summary>" in page
    assert "on &lt;one&gt; device" in page
    assert "<script" not in page
    assert str(table).startswith("a caption\n")


def test_long_names_wrap_and_spreads_do_not():
    table = styling.table_of([{"a_b": "teacher_resnet20", "top-1": "52.00 ± 0.50 (3 seeds)"}], "in /work_dir")
    assert "(3\N{NO-BREAK SPACE}seeds)" in table.to_html()
    assert "teacher_<wbr>resnet20" in table.to_html()
    assert "52.00\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.50" in table.to_html()


def test_columns_under_one_head_stay_together():
    heads = [("", "method")] + [(f"pair {place}", source) for place in range(12) for source in ("ours", "published")]
    frame = pandas.DataFrame([["KD"] + ["70.66"] * 24], columns=pandas.MultiIndex.from_tuples(heads))
    table = styling.table_of(frame, "")
    shown = list(table.main.data)
    assert shown[-1][1] == "published"
    assert list(table.more.data) == [heads[0], *heads[len(shown) :]]


def test_a_gain_by_another_optimiser_names_it_in_a_column_of_its_own(root):
    fixtures.store(*fixtures.study())
    assert "gain over" not in tables.results_table("cifar100").data
    lion = {"method": "conkd", "teacher": "teacher_resnet20_cifar100", "optimizer": "lion", "hyperparameters": {}}
    fixtures.store(fixtures.record(55.0, name="lion", **lion))
    data = tables.results_table("cifar100").data.set_index("method")["gain over"]
    assert data[["ConKD by Lion", "KD", "CE (no teacher)"]].tolist() == ["CE (no teacher) by SGD", "", ""]
    chosen = tables.results_table("cifar100", only=["lion"])
    assert chosen.data["paired gain (points)"].tolist() == ["+5.00 (1 seed)"]
    assert "n = 1 seed" in chosen.caption  # of the row that is shown
