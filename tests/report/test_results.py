"""The tables over stored runs, against numbers worked out by hand."""

import math

import pandas
import pytest
import record_fixtures as fixtures

from kdhelpers import artifacts
from kdhelpers.display.text import caption, evidence_note, magnitude_text, spread_text
from kdhelpers.report.labels import method_label
from kdhelpers.report.results import histories, results, row_names, summarize


@pytest.fixture
def study(root):
    fixtures.store(*fixtures.study())
    return summarize(results())


def row(summary, label, **columns):
    """The one row of that label, as a dict."""
    found = summary[summary["label"] == label]
    for column, value in columns.items():
        found = found[found[column] == value]
    assert len(found) == 1, summary[["label", *columns]]
    return found.iloc[0].to_dict()


def test_results_has_a_row_per_finished_record(root):
    fixtures.store(*fixtures.study(), fixtures.record(95.0, dataset="digits"))
    frame = results()
    assert len(frame) == 9
    assert set(results("digits")["dataset"]) == {"digits"}
    assert results("imagenette").empty
    first = frame[frame["name"] == "student_lm_resnet8_cifar100_seed1"].iloc[0]
    assert first["model"] == "resnet8"  # not the record's own "model", the counts
    assert (first["parameters"], first["seed"], first["test_top1_pct"]) == (78042, 1, 52.5)
    assert (first["precision"], first["device"], first["teacher_top1_pct"]) == ("fp32", "CPU", 60.0)


def test_no_record_gives_empty_tables(root):
    assert results().empty
    assert summarize(results()).empty
    assert "no finished run" in caption(summarize(results()))


def test_a_record_with_keys_missing_is_shown_as_far_as_it_goes(root):
    whole, bare = fixtures.record(50.0), fixtures.record(51.0, seed=1)
    for part in ("model", "environment", "data", "history", "selection"):
        del bare[part]
    bare["metrics"] = {"test_top1_pct": 51.0}
    untested = fixtures.record(seed=2) | {"metrics": {}}
    fixtures.store(whole, bare, untested, {"schema": 1, "name": "odd", "status": "finished"})
    frame = results()
    assert len(frame) == 3
    assert math.isnan(frame.set_index("seed").loc[1, "parameters"])
    assert frame.set_index("seed").loc[1, "device"] == "unknown device"
    assert sum(summarize(frame)["n"]) == 2  # nothing to average in the third


def test_mean_and_sample_deviation_over_seeds(study):
    alone = row(study, "CE (no teacher)")
    assert (alone["n"], alone["test_top1_pct"]) == (3, 50.0)
    assert alone["test_top1_std_pct"] == pytest.approx(1.0)  # of 50, 51, 49, over n - 1
    assert math.isnan(alone["gain_points"])  # it is the baseline
    single = row(study, "KD (T=2.0)")
    assert single["n"] == 1
    assert math.isnan(single["test_top1_std_pct"])


def test_gain_over_the_independent_student(study):
    taught = row(study, "KD")
    assert taught["gain_points"] == pytest.approx(2.0)
    assert taught["gain_n"] == 3  # 52 - 50, 52.5 - 51, 51.5 - 49
    assert taught["gap_closed_pct"] == pytest.approx(100 * 2 / 10)
    assert taught["gain_std_points"] == pytest.approx(0.5)


def test_pairs_are_of_one_seed_and_means_of_all(study):
    single = row(study, "KD (T=2.0)")  # seed 0 alone: 53; the independent student's seed 0 is 50, its mean too
    assert (single["gain_n"], single["gain_points"]) == (1, 3.0)
    assert math.isnan(single["gain_std_points"])


def test_unshared_seeds_have_no_gain(root):
    fixtures.store(fixtures.record(50.0, seed=0), fixtures.record(53.0, seed=7, **fixtures.LM))
    taught = row(summarize(results()), "KD")
    assert math.isnan(taught["gain_n"])
    assert math.isnan(taught["gain_points"])
    assert math.isnan(taught["gap_closed_pct"])


def test_gain_and_share_of_the_gap_count_the_shared_seeds_alone(root):
    alone = [fixtures.record(accuracy, seed=seed) for seed, accuracy in enumerate((50.0, 40.0))]
    fixtures.store(*alone, fixtures.record(52.0, seed=0, **fixtures.LM))
    taught = row(summarize(results()), "KD")
    assert (taught["gain_points"], taught["gain_n"]) == (2.0, 1)  # 52 - 45, the mean of all, would be 7
    assert taught["gap_closed_pct"] == pytest.approx(100 * 2 / (60 - 50))


@pytest.mark.parametrize("alone", [60.0, 61.0])
def test_no_share_of_a_gap_that_is_none(root, alone):
    fixtures.store(fixtures.record(alone), fixtures.record(62.0, **fixtures.LM))
    taught = row(summarize(results()), "KD")
    assert taught["gain_points"] == 62.0 - alone
    assert math.isnan(taught["gap_closed_pct"])


@pytest.mark.parametrize(
    "other",
    [
        {"lr": 0.1},
        {"epochs": 16},
        {"augmentation": "crop=4"},
        {"precision": "bf16"},
        {"selection": "last"},
        {"model": "resnet14"},
        {"dataset": "cifar10"},
        {"split_seed": 1},
        {"optimizer_options": {"momentum": 0.8}},
    ],
)
def test_the_baseline_has_the_same_settings(root, other):
    fixtures.store(fixtures.record(50.0, name="alone", **other), fixtures.record(53.0, **fixtures.LM))
    assert math.isnan(row(summarize(results()), "KD")["gain_points"])


def test_settings_that_differ_are_rows_of_their_own_and_say_how(root):
    fixtures.store(
        fixtures.record(50.0),
        fixtures.record(51.0, lr=0.1, name="b"),
        fixtures.record(52.0, lr=0.1, seed=1, name="b"),
        fixtures.record(53.0, epochs=16, name="c"),
    )
    summary = summarize(results())
    assert sorted(summary["label"]) == [
        "CE (no teacher)",
        "CE (no teacher) [lr 0.05]",
        "CE (no teacher) [lr 0.1]",
    ]  # the epochs have a column
    assert row(summary, "CE (no teacher) [lr 0.1]")["n"] == 2
    assert row(summary, "CE (no teacher)")["budget"] == "16 epochs, batch 64"


def test_networks_of_other_options_are_told_apart_by_those_that_differ(root):
    for channels, extra in ((8, {}), (16, {}), (16, {"depth": 20})):
        options = {"stem": "cifar", "base_channels": channels, **extra}
        fixtures.store(fixtures.record(50.0, model_options=options, name=f"m{channels}{len(extra)}"))
    labels = [
        "CE (no teacher) [base_channels 16, depth 20]",
        "CE (no teacher) [base_channels 16]",
        "CE (no teacher) [base_channels 8]",
    ]
    assert sorted(summarize(results())["label"]) == labels


def test_a_teacher_of_other_weights_is_another_setting(root):
    retrained = fixtures.record(54.0, seed=1, **fixtures.LM)
    retrained["teacher"]["sha256"] = "c" * 64
    fixtures.store(fixtures.record(53.0, **fixtures.LM), retrained)
    assert sorted(summarize(results())["label"]) == [f"KD [teacher_sha256 {letter * 8}]" for letter in "ac"]


def test_a_seed_stored_under_two_names_counts_once(root):
    again = fixtures.record(55.0, name="another_name")
    again["environment"]["finished"] = "2026-11-22T00:00:00+00:00"
    fixtures.store(fixtures.record(50.0), fixtures.record(52.0, seed=1), again)
    summary = summarize(results())
    assert (row(summary, "CE (no teacher)")["n"], row(summary, "CE (no teacher)")["test_top1_pct"]) == (
        2,
        53.5,
    )  # the newest of seed 0


def test_order_teachers_first_then_best_first(study):
    assert list(study["label"]) == ["teacher", "KD (T=2.0)", "KD", "CE (no teacher)"]


def test_devices_that_were_mixed_are_both_named(root):
    fixtures.store(fixtures.record(50.0), fixtures.record(51.0, seed=1, device="cuda", precision="fp32"))
    assert list(summarize(results())["device"]) == ["CPU fp32, NVIDIA H200 fp32"]


def test_gains_are_within_the_precision_that_auto_took(root):
    fixtures.store(
        *(fixtures.record(50.0 + 10 * (device == "cuda"), device=device, name=device) for device in ("cpu", "cuda")),
        fixtures.record(63.0, device="cuda", **fixtures.LM),
    )
    summary = summarize(results())
    assert row(summary, "KD")["gain_points"] == 3.0
    assert {"CE (no teacher) [precision bf16]", "CE (no teacher) [precision fp32]"} < set(summary["label"])


def test_method_label_names_only_what_is_not_default():
    lm = fixtures.RUN | fixtures.LM
    assert method_label(lm) == "KD"
    assert method_label(lm | {"hyperparameters": {"temperature": 2.0, "ce_weight": 0.1, "kd_weight": 0.5}}) == (
        "KD (T=2.0, ce_weight=0.1)"
    )
    assert method_label(fixtures.RUN) == "CE (no teacher)"
    assert method_label(lm | {"role": "teacher"}) == "teacher"
    assert method_label({"method": "forgotten", "hyperparameters": {"alpha": 1}}) == "FORGOTTEN (α=1)"
    assert method_label({}) == "?"


def test_caption_states_what_the_figures_rest_on(study):
    text = caption(study)
    for part in (
        "n = 1 to 3 seeds",
        "sample standard deviation",
        "selection: best_val",
        "budget: 8 epochs, batch 64",
        "device: CPU fp32",
    ):
        assert part in text
    assert "machinery" not in text
    mixed = pandas.concat([study, study.assign(dataset="digits", budget="2 epochs, batch 64")])
    assert caption(mixed).startswith("digits: this shows that the code works, it is not evidence for a method")
    assert "budget" not in caption(mixed).replace("model and budget", "")  # it has a column
    assert evidence_note(["cifar10"]) == ""


def test_texts():
    assert spread_text(61.204, 0.4, 3) == "61.20 ± 0.40"
    assert spread_text(61.204, math.nan, 1) == "61.20 (single run)"
    assert spread_text(math.nan, math.nan, 0) == "–"
    counts = (12, 78042, 12.5e6, 4.1e9, math.nan)
    assert [magnitude_text(count) for count in counts] == ["12", "78 k", "12.5 M", "4.1 G", "–"]


def test_damaged_records_are_passed_over(root):
    fixtures.store(fixtures.record(50.0))
    artifacts.record_path("broken").write_text('{"schema": 1, "na')
    assert list(results()["name"]) == ["student_si_resnet8_cifar100"]


def test_histories_are_means_over_seeds_and_no_setting_hides_another(root):
    short = fixtures.record(60.0, epochs=3) | {"name": "short"}
    fixtures.store(fixtures.record(50.0), fixtures.record(52.0, seed=1), short)
    found = histories("cifar100")["cifar100"]
    assert sorted(map(len, found.values())) == [3, 8]
    stored = {record["name"]: record["history"] for record in artifacts.records()}
    mean = next(rows for name, rows in found.items() if "n = 2" in name)
    pair = [rows[0]["val_top1_pct"] for rows in stored.values() if len(rows) == 8]
    assert mean[0]["val_top1_pct"] == pytest.approx(sum(pair) / 2)
    assert mean[0]["epoch"] == 1


def test_more_lines_than_a_picture_tells_apart_are_split_by_network(root):
    elsewhere = fixtures.record(70.0, role="teacher", model="resnet56") | {"history": []}
    fixtures.store(elsewhere, *(fixtures.record(50.0, lr=0.01 * n, name=f"s{n}") for n in range(1, 21)))
    assert {name: len(runs) for name, runs in histories().items()} == {"cifar100": 20}
    fixtures.store(*(fixtures.record(50.0, lr=0.01 * n, name=f"l{n}", model="vgg8") for n in range(1, 3)))
    assert {name: len(runs) for name, runs in histories().items()} == {"cifar100_resnet8": 20, "cifar100_vgg8": 2}


def test_rows_that_differ_in_their_teacher_alone_are_told_apart(root):
    for name in ("teacher_resnet20_cifar100", "teacher_resnet32_cifar100"):
        record = fixtures.record(50.0, **fixtures.LM | {"teacher": name})
        record["teacher"] = {"name": name, "sha256": name, "model": name.split("_")[1], "test_top1_pct": 60.0}
        record["name"] = f"from_{name}"
        fixtures.store(record)
    names = row_names(summarize(results()))
    assert sorted(names) == [f"KD from teacher_resnet{depth}_cifar100 (single run)" for depth in (20, 32)]
    assert len(histories()["cifar100"]) == 2


CONKD = {"method": "conkd", "hyperparameters": {}, "teacher": "teacher_resnet20_cifar100"}
LION = {"optimizer": "lion", "optimizer_options": {}, "lr": 6e-4, "weight_decay": 0.1}
ADAMW = {"optimizer": "adamw", "optimizer_options": {}, "lr": 3e-3, "weight_decay": 0.02}


def test_a_gain_is_over_the_student_alone_of_the_own_optimiser_or_names_the_other(root):
    fixtures.store(
        *(fixtures.record(top1, seed=seed) for seed, top1 in enumerate((50.0, 52.0))),
        *(fixtures.record(top1, seed=seed, name="lion", **CONKD | LION) for seed, top1 in enumerate((56.0, 57.0))),
        fixtures.record(55.0, name="adamw", **CONKD | ADAMW),
    )
    taught = row(summarize(results()), "ConKD by Lion")
    assert (taught["gain_points"], taught["gain_n"], taught["baseline"]) == (5.5, 2, "CE (no teacher) by SGD")
    fixtures.store(fixtures.record(51.0, name="alone_lion", **LION))
    summary = summarize(results())
    own = row(summary, "ConKD by Lion")
    assert (own["gain_points"], own["gain_n"], own["baseline"]) == (5.0, 1, "")
    alone = row(summary, "CE (no teacher) by Lion")
    assert math.isnan(alone["gain_points"])
    assert alone["baseline"] == ""
    other = row(summary, "ConKD by AdamW")  # 50 by SGD, 51 by Lion: the stricter one counts
    assert (other["gain_points"], other["baseline"]) == (4.0, "CE (no teacher) by Lion")


def test_the_baseline_by_another_optimiser_has_most_shared_seeds_then_the_best_accuracy(root):
    fixtures.store(
        *(fixtures.record(56.0, seed=seed, name="conkd", **CONKD | LION) for seed in (0, 1)),
        *(fixtures.record(50.0, seed=seed, name="sgd") for seed in (0, 1)),
        fixtures.record(54.0, name="adamw", **ADAMW),
    )
    assert row(summarize(results()), "ConKD by Lion")["baseline"] == "CE (no teacher) by SGD"
    fixtures.store(fixtures.record(54.0, seed=1, name="adamw", **ADAMW))
    taught = row(summarize(results()), "ConKD by Lion")
    assert (taught["baseline"], taught["gain_points"]) == ("CE (no teacher) by AdamW", 2.0)


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 16},
        {"batch_size": 128},
        {"augmentation": "crop=4"},
        {"selection": "last"},
        {"model": "resnet14"},
        {"val_fraction": 0.2},
        {"dataset": "cifar10"},
        {"method": "supcon"},
        {"seed": 1},
        {"optimizer": "lion"},  # at another rate
    ],
)
def test_a_baseline_by_another_optimiser_differs_in_nothing_else(root, other):
    fixtures.store(fixtures.record(50.0, name="alone", **other), fixtures.record(53.0, name="conkd", **CONKD | LION))
    taught = row(summarize(results()), "ConKD by Lion")
    assert math.isnan(taught["gain_points"])
    assert taught["baseline"] == ""


def test_another_schedule_of_the_other_optimiser_is_named(root):
    step = {"schedule": "multistep", "schedule_options": {"milestones": [4]}}
    fixtures.store(fixtures.record(50.0, name="alone", **step), fixtures.record(53.0, name="conkd", **CONKD | LION))
    assert row(summarize(results()), "ConKD by Lion")["baseline"] == "CE (no teacher) by SGD, multistep"


def test_histories_have_a_line_per_optimiser_over_the_seeds_that_it_counts(root):
    again = fixtures.record(90.0, name="again")
    again["environment"]["finished"] = "2026-11-22T00:00:00+00:00"
    fixtures.store(fixtures.record(50.0), again, fixtures.record(40.0, name="l", **LION))
    found = histories("cifar100")["cifar100"]
    assert set(found) == {"CE (no teacher) (single run)", "CE (no teacher) by Lion (single run)"}
    assert found["CE (no teacher) (single run)"] == [
        {key: value for key, value in line.items() if value is not None} for line in again["history"]
    ]  # the newest of a seed that is stored twice
