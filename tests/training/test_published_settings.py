"""Published hyperparameters: the file of settings, and runs that take them by `published` or by a pair of networks."""

import json

import pytest

from kdhelpers import METHODS, Run, artifacts
from kdhelpers.display import notebook
from kdhelpers.models import MODELS
from kdhelpers.training.command import run_from
from kdhelpers.training.named import run_of, settings
from kdhelpers.training.options import complete_options
from kdhelpers.training.published import is_published, published_hyperparameters, published_settings
from kdhelpers.training.sweep import sweep_runs
from kdhelpers.zoo.benchmark import published_pairs

PAIRS = [f"{teacher}>{student}" for teacher, student in published_pairs()]
PAIR = {"teacher": "resnet56", "model": "resnet20"}
DKD = {"alpha": 1.0, "beta": 2.0, "temperature": 4.0, "ce_weight": 1.0, "warmup_epochs": 20.0}


def column(label, *names):
    """The row's values of each pair of the benchmark; None for a pair without settings of its own."""
    row, values = published_settings()[label], []
    for pair in PAIRS:
        own = pair in row.known_pairs and row.source(pair) == pair
        values.append(tuple(row.values(pair)[name] for name in names) if own else None)
    return [value[0] if value and len(names) == 1 else value for value in values]


def test_the_settings_by_pair_are_those_of_the_released_code():
    no = None
    assert column("DKD", "beta") == [6, 6, 2, no, 2, 8, 6, 6, 8, no, 8, 8, 8]
    assert column("ReviewKD", "kd_weight") == [5, 5, 0.6, no, 1, 5, no, no, no, no, 5, 8, 5]
    assert column("LumiNet", "alpha", "temperature", "ce_weight") == [
        *(no, (75, 8, 1), no, no, no, (33, 4, 2), (70, 8, 1)),
        *((70, 8, 2), (70, 8, 2), no, no, no, (35, 4, 1)),
    ]
    assert column("CAT-KD", "kd_weight") == [12, 1.5, 0.7, no, 1.8, 15, 4.5, 15, 40, no, 600, 600, 80]
    same_style = [(2, False)] * 7
    assert column("CAT-KD", "resolution", "normalize") == [
        *same_style[:3],
        no,
        *same_style[4:],
        *((2, True), (2, True), no, (4, True), (4, True), (4, True)),
    ]
    assert column("SD-DKD", "beta", "warmup_epochs")[5:9] == [(8, 20), (6, 20), (6, 20), (8, 20)]
    assert column("SD-KD", "scales") == [[1, 2]] * 7 + [[1, 2, 4]] * 6


def test_the_settings_of_standardised_logits_are_those_of_the_released_logs():
    no = None
    assert column("KD+LS", "temperature", "kd_weight", "ce_weight") == [
        *(no, no, no, (4, 12, 0.1), no, (2, 9, 0.1), (3, 9, 0.1)),
        *((3, 9, 0.1), (3, 1, 0.1), no, no, no, no),
    ]
    assert column("DKD+LS", "temperature", "alpha", "beta") == [
        *((2, 12, 24), (2, 12, 24), (3, 18, 36), (2, 15, 30), (2, 15, 30), (2, 9, 72), (2, 15, 30)),
        *((3, 9, 18), (2, 15, 30), no, no, no, no),
    ]
    assert column("MLKD+LS", "kd_weight") == [9, 9, 9, 9, 9, 9, 6, 6, 9, no, no, 6, no]
    for label in ("KD+LS", "DKD+LS"):
        row = published_settings()[label]
        assert row.source("wrn_40_2>shufflenetv1") == "resnet32x4>resnet8x4"
        assert row.known_pairs == PAIRS


def test_the_settings_for_all_pairs():
    recipes = {label: row.recipe for label, row in published_settings().items() if not row.pairs}
    weights = {label: recipe.get("kd_weight") for label, recipe in recipes.items()}
    assert {name: weights[name] for name in ("AT", "SP", "VID", "PKT", "NST", "RKD", "WSLD", "CTKD", "NormKD")} == {
        **{"AT": 1000.0, "SP": 3000.0, "VID": 1.0, "PKT": 30_000.0, "NST": 50.0, "RKD": 1.0},
        **{"WSLD": 2.25, "CTKD": 0.9, "NormKD": 0.9},
    }
    assert (recipes["RKD"]["distance_weight"], recipes["RKD"]["angle_weight"]) == (25.0, 50.0)
    assert recipes["DIST"] == {"beta": 2.0, "gamma": 2.0, "temperature": 4.0, "ce_weight": 1.0}
    rld = {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, "ce_weight": 1.0, "warmup_epochs": 20.0}
    assert recipes["RLD"] == rld
    assert (recipes["ICKD"]["ickd_weight"], weights["ICKD+KD"]) == (2.5, 1.0)


def test_every_setting_is_one_that_its_method_takes_and_every_pair_can_be_built():
    for label, row in published_settings().items():
        for pair in row.known_pairs:
            values = complete_options(METHODS[row.method], row.values(pair), label)
            METHODS[row.method](**values)
            assert row.fits(values), (label, pair)
            assert set(pair.split(">")) <= set(MODELS), pair
        assert set(row.pairs) <= {*PAIRS, "resnet34>resnet18"}, label
    assert published_settings()["KD"].known_pairs == PAIRS


def test_a_run_holds_the_mapping_and_has_the_id_of_the_explicit_run(root, capsys):
    run = Run(method="dkd", hyperparameters="published", **PAIR)
    assert run.hyperparameters == DKD
    assert run.id == Run(method="dkd", hyperparameters=DKD, **PAIR).id
    assert json.loads(run.model_dump_json())["hyperparameters"] == DKD
    said = capsys.readouterr().err
    assert said == (
        "hyperparameters = published: DKD for resnet56>resnet20, Zhao et al., CVPR 2022: alpha=1.0 temperature=4.0 "
        "ce_weight=1.0 warmup_epochs=20.0 beta=2.0\n"
    )
    again = Run(**run.model_dump())
    assert (again, capsys.readouterr().err) == (run, "")  # a mapping is not looked up


def test_a_pair_may_be_named_and_values_replaced(root):
    run = Run(method="dkd", teacher="resnet20", hyperparameters="vgg13>vgg8 warmup_epochs=2")
    assert run.hyperparameters == DKD | {"beta": 6.0, "warmup_epochs": 2.0}


def test_what_is_not_published_for_a_pair_is_told(root, capsys):
    run = Run(method="dkd", hyperparameters="published", teacher="resnet110", model="resnet20")
    assert run.hyperparameters["beta"] == 2.0
    said = capsys.readouterr().err
    assert said.endswith("(not published for resnet110>resnet20; the values of resnet110>resnet32 are taken)\n")


@pytest.mark.parametrize(
    ("method", "text", "values"),
    [
        ("crd", "published", {"kd_weight": 0.0, "negatives": 16384}),
        ("crd", "published kd_weight=1", {"kd_weight": 1.0, "kd_temperature": 4.0}),
        ("crd", "published kd_weight=0", {"kd_weight": 0.0}),
        ("cocord", "published kd_weight:2", {"kd_weight": 2.0, "queue_size": 2048}),
        ("hints", "published", {"mode": "joint", "hint_weight": 100.0}),
        ("lm_standardized", "vgg13>mobilenetv2", {"temperature": 3.0, "kd_weight": 9.0, "ce_weight": 0.1}),
    ],
)
def test_of_several_rows_of_a_method_the_given_values_choose(root, method, text, values):
    run = Run(method=method, hyperparameters=text, **PAIR)
    assert {name: run.hyperparameters[name] for name in values} == values


def test_the_architecture_of_named_weights_is_that_of_their_description(root):
    path = artifacts.weights_path("my_teacher")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    artifacts.save_json(path.with_suffix(".json"), {"model": "vgg13", "sha256": artifacts.sha256(path)})
    run = Run(method="dkd", teacher="my_teacher", model="vgg8", hyperparameters="published")
    assert run.hyperparameters["beta"] == 6.0
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="the architecture of teacher my_teacher is not known, .*name a pair"):
        Run(method="dkd", teacher="my_teacher", model="vgg8", hyperparameters="published")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hyperparameters": "resnet57>resnet20"}, "no published settings for resnet57>resnet20; did you mean"),
        ({"model": "resnet8"}, "no published settings for resnet56>resnet8; .*one of its pairs: wrn_40_2>"),
        ({"teacher": "nothing"}, "architecture of teacher nothing is not known, .*as in hyperparameters="),
        ({"teacher": "resnet65"}, "architecture of teacher resnet65 is not known, .*did you mean resnet56"),
        ({"teacher": 5}, "architecture of teacher 5 is not known"),
        ({"teacher": None}, "the run has no teacher; give one, or name a pair"),
        ({"method": "si", "teacher": None}, "method si has no published settings; .*cocord, crd"),
        ({"method": "hints", "hyperparameters": "published mode=two_stage"}, "published: FitNet: mode=joint"),
        ({"hyperparameters": "published temp=2"}, "unknown temp; did you mean temperature"),
        ({"hyperparameters": "published beta"}, "'beta' in 'beta' is not name=value; write for instance"),
        ({"hyperparameters": "publish"}, "hyperparameters = publish: is not a mapping, .*write .* a pair such as"),
        ({"hyperparameters": "resnet56 > resnet20"}, "is not a mapping, `published` or a pair; write .*without blanks"),
        ({"method": "dkk"}, "method = dkk: unknown; did you mean dkd"),
    ],
)
def test_bad_input_is_one_line_with_the_names_at_hand(root, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        Run(**{"method": "dkd", "hyperparameters": "published"} | PAIR | fields)
    assert "\n" not in str(caught.value)


def test_flat_names_and_the_command_line_take_it_too(root, capsys):
    flat = {"method": "dkd", "hyperparameters": "published", "warmup_epochs": "1", **PAIR}
    run = run_of(flat)
    assert (run.hyperparameters, run.warmup_epochs) == (DKD | {"warmup_epochs": 1.0}, 0)
    assert len(capsys.readouterr().err.splitlines()) == 1
    words = ["method=dkd", "teacher=resnet56", "model=resnet20"]
    assert run_from([*words, "hyperparameters=published"]) == Run(method="dkd", hyperparameters=DKD, **PAIR)
    assert run_from([*words, "hyperparameters=vgg13>vgg8", "temperature=2"]).hyperparameters == (
        DKD | {"beta": 6.0, "temperature": 2.0}
    )
    crd = run_of({"method": "crd", "hyperparameters": "published", "kd_weight": "1", **PAIR})
    assert crd.hyperparameters["kd_weight"] == 1.0


def test_in_a_notebook_it_replaces_the_values_of_the_parameter_cell_that_papermill_did_not_pass(root, monkeypatch):
    cell = {"method": "dkd", "alpha": 3.0, "temperature": 2.0, **PAIR}
    assert run_of(settings("hyperparameters=published", **cell)[0]).hyperparameters == DKD
    monkeypatch.setattr(notebook, "passed_parameters", lambda: {"temperature": 2.0})
    monkeypatch.setattr(notebook, "added_parameters", dict)
    text = "hyperparameters='resnet56>resnet20 warmup_epochs=1'"
    assert run_of(settings(text, **cell)[0]).hyperparameters == DKD | {"temperature": 2.0, "warmup_epochs": 1.0}
    assert settings("lr=0.1", **cell)[0] == cell | {"lr": "0.1"}


def test_a_sweep_may_hold_it(root):
    run = Run(method="dkd", hyperparameters={"alpha": 5.0}, **PAIR)
    first, second, third = sweep_runs(run, "published; vgg13>vgg8 temperature=2; beta=1")
    assert [each.hyperparameters for each in (first, second)] == [DKD, DKD | {"beta": 6.0, "temperature": 2.0}]
    assert third.hyperparameters["alpha"] == 5.0
    assert [each.artifact_name for each in (first, second)] == [
        "student_dkd_published_resnet20_digits",
        "student_dkd_vgg13-vgg8_tau_2.0_resnet20_digits",
    ]


def test_texts_that_name_published_settings():
    assert all(map(is_published, ("published", " resnet56>resnet20 ", "wrn_40_2>wrn_16_2 alpha=1", "published a=1")))
    assert not any(map(is_published, ("publish", "published_twice", "temperature=2", "", None, {}, "a > b")))


def test_a_missing_teacher_does_not_matter_if_the_pair_is_named(root):
    values = published_hyperparameters("resnet56>resnet20", {"method": "dkd", "model": "resnet8", "dataset": "digits"})
    assert values == DKD
