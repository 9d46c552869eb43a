import json

import pytest
from pydantic import ValidationError

from kdhelpers import Run
from kdhelpers.training.run import distinctive


def test_strings_become_numbers_as_papermill_passes_them():
    run = Run(lr="1e-3", epochs="5", pretrained="false")
    assert (run.lr, run.epochs, run.pretrained) == (1e-3, 5, False)


def test_the_id_is_that_of_the_value():
    assert Run(lr=0.1).id == Run(lr="0.1", name="other").id
    assert Run(lr=0.1).id != Run(lr=0.2).id
    assert len(Run().id) == 64


def test_what_came_later_or_was_dropped_leaves_the_identity_of_a_run_at_its_default():
    run = Run(model="resnet18", method="crd", teacher="resnet20", hyperparameters={"crd_weight": 0.5}, lr=0.1)
    stored = run.model_dump()
    options = stored["hyperparameters"] | {"positive": "exact", "normalizer": "frozen"}
    earlier = stored | {"model_options": {"stem": "cifar"}, "hyperparameters": options}
    del earlier["unlabelled"], earlier["start_from"]
    assert distinctive(earlier) == distinctive(stored)
    assert distinctive(stored) == {
        "model": "resnet18",
        "method": "crd",
        "hyperparameters": {"crd_weight": 0.5},
        "lr": 0.1,
    }
    assert distinctive(earlier | {"hyperparameters": options | {"positive": "relax"}}) != distinctive(stored)
    assert Run(start_from="resnet8").id != Run().id


def test_a_first_stage_must_end_before_the_run():
    with pytest.raises(ValueError, match="epochs = 2: must be more than the 2 of hints's first stage"):
        Run(method="hints", teacher="resnet20", epochs=2)
    Run(method="hints", teacher="resnet20", epochs=2, hyperparameters={"mode": "joint"})


def test_a_network_starts_from_one_set_of_weights():
    with pytest.raises(ValueError, match="start_from = mine: excludes pretrained"):
        Run(model="resnet18", model_options={"stem": "imagenet"}, pretrained=True, start_from="mine")
    assert Run(start_from="").start_from is None  # papermill passes "" for none


def test_defaults_spelled_out_give_the_same_id():
    short = Run(method="lm", teacher="resnet20", optimizer_options={}, augmentation="flip crop")
    spelled = Run(
        method="lm",
        teacher="resnet20",
        hyperparameters={"temperature": 4, "kd_weight": "0.5"},
        optimizer_options={"momentum": 0.9},
        augmentation="crop=4 flip",
    )
    assert short == spelled
    assert short.id == spelled.id


def test_a_run_survives_json():
    run = Run(schedule="multistep", schedule_options={"milestones": [2, 4]}, seed=3)
    again = Run(**json.loads(json.dumps(run.model_dump())))
    assert again == run
    assert again.id == run.id


def test_a_run_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Run().lr = 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"dataset": "cifar1000"},
            r"dataset = 'cifar1000': unknown; did you mean cifar100\? known: digits, .* or the name of a folder under",
        ),
        ({"model": "resnet21"}, "resnet21.*resnet20"),
        ({"method": "kd"}, "method = kd: unknown; did you mean lm"),
        ({"optimizer": "adam"}, "optimizer = adam: unknown; did you mean adamw"),
        ({"schedule": "linear"}, "schedule = linear: unknown; .*cosine"),
        ({"learning_rate": 1}, "learning_rate = 1: unknown field; did you mean lr\\? "),
        ({"lr": "fast"}, "lr = 'fast': .*number"),
        ({"lr": 0}, "lr = 0: .*greater than 0"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"epochs": 0}, "epochs = 0: stores a teacher of random weights, .* train for an epoch or more"),
        ({"epochs": 2.5}, "epochs = 2.5: .*integer"),
        ({"batch_size": 1}, "batch_size = 1: .*greater than or equal to 2"),
        ({"val_fraction": 0.9}, "val_fraction = 0.9"),
        ({"val_fraction": 0}, "val_fraction = 0: selection best_val needs held-out images"),
        ({"precision": "int8"}, "precision = 'int8': .*'bf16'"),
        ({"augmentation": "crop mixup"}, "mixup"),
        ({"warmup_epochs": 8}, "warmup_epochs = 8.0: must be less than epochs = 8"),
        ({"name": "../evil"}, "name = '../evil': is not a file name"),
        ({"method": "lm"}, "teacher: method lm needs one"),
        ({"teacher": "resnet20"}, "method si uses none"),
        ({"method": "lm", "teacher": "t", "hyperparameters": {"T": 4}}, "unknown T; known: temperature, ce_weight"),
        ({"method": "lm", "teacher": "t", "hyperparameters": {"temperature": "hot"}}, "temperature = 'hot'"),
        (
            {"method": "lm", "teacher": "t", "hyperparameters": {"temperature": 0}},
            r"temperature = 0.0: must lie in \[0.01",
        ),
        ({"optimizer_options": {"beta1": 0.9}}, "optimizer_options of sgd: unknown beta1; known: momentum, nesterov"),
        ({"model_options": {"stem": "cifar"}}, "stem"),
        ({"model": "resnet18", "model_options": {"stem": "huge"}}, "stem.*huge"),
        ({"model": "resnet20", "pretrained": True}, "resnet20 has no ImageNet weights"),
        ({"model": "resnet20", "pretrained": "yes"}, "resnet20 has no ImageNet weights"),
        ({"method": ["si"]}, r"method = \['si'\]: .*string"),
        ({"model": {}}, r"model = \{\}: .*string"),
        ({"teacher": ["x"]}, r"teacher = \['x'\]: .*string"),
        ({"model_options": [1]}, r"model_options = \[1\]: .*dictionary"),
        ({"hyperparameters": "abc"}, "hyperparameters = abc: is not a mapping"),
        ({"optimizer_options": {"momentum": 5}}, "momentum = 5.0: must lie in"),
        ({"optimizer_options": {"momentum": 0, "nesterov": True}}, "nesterov = True: needs a momentum above 0"),
        ({"optimizer": "adamw", "optimizer_options": {"beta1": 2}}, "beta1 = 2.0: must lie in"),
        ({"schedule_options": {"final": float("nan")}}, "final = nan: must lie in"),
        ({"schedule": "multistep", "schedule_options": {"milestones": [4, 2]}}, "rising order"),
        ({"method": "lm", "teacher": "t", "hyperparameters": {"kd_weight": float("inf")}}, "kd_weight = inf"),
        ({"dataset": ".."}, "dataset = '..': unknown; known: digits"),
        ({"dataset": "/tmp"}, "dataset = '/tmp': is a path; copy or link the folder into"),
        ({"name": "x.pth"}, "name = 'x.pth': is not a file name without extension"),
    ],
)
def test_bad_input_is_one_line_that_names_field_value_and_remedy(root, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        Run(**fields)
    assert "\n" not in str(caught.value)


def test_artifact_names():
    assert Run(role="teacher", model="resnet20").artifact_name == "teacher_resnet20_digits"
    assert Run(method="lm", teacher="resnet20", seed=2).artifact_name == "student_lm_resnet8_digits_seed2"
    assert Run(name="best_student_si", seed=1).artifact_name == "best_student_si_seed1"


def test_a_folder_under_the_data_root_is_a_data_set(root):
    (root / "data" / "birds").mkdir(parents=True)
    assert Run(dataset="birds").dataset == "birds"


@pytest.mark.parametrize("augmentation", ["none", "flip"])
def test_views_that_would_be_equal_are_refused(root, augmentation):
    with pytest.raises(ValueError, match=f"augmentation = {augmentation}: gives supcon equal views of an image"):
        Run(method="supcon", selection="last", augmentation=augmentation)
    assert Run(method="supcon", selection="last", augmentation="crop flip")


def test_the_name_of_a_fine_tuned_run_keeps_the_dots_of_its_start(root):
    run = Run(start_from="pth_models/student_tau_0.05_resnet8_digits.pth")
    assert run.artifact_name == "student_si_resnet8_digits_from_student_tau_0.05_resnet8_digits"


def test_model_options_may_be_a_text():
    run = Run(model="resnet18", model_options="stem=imagenet base_channels=32")
    assert run.model_options == {"stem": "imagenet", "base_channels": 32}
    assert run.id == Run(model="resnet18", model_options={"base_channels": 32, "stem": "imagenet"}).id
    assert run.id == Run(model="resnet18", model_options="stem:imagenet base_channels:32").id
    assert Run(model="resnet18", model_options="").id == Run(model="resnet18").id
    for text, says in {
        "stem": "model_options: 'stem' in 'stem' is not name=value; write for instance",
        "stem=cifar stem=cifar": "model_options: 'stem=cifar stem=cifar' gives a value twice",
        "base_channels=none": "base_channels='none' of resnet18 must be a whole number from 2 to 256",
    }.items():
        with pytest.raises(ValueError, match=says):
            Run(model="resnet18", model_options=text)


def test_a_text_without_end_is_named_in_one_short_line():
    for fields, name in (
        ({"teacher": "x" * 5000}, "teacher"),
        ({"y" * 5000: "x"}, "yyy"),
        ({"lr": ["z" * 5000]}, "lr"),
    ):
        with pytest.raises(ValueError, match=f"Run: {name}.{{0,90}} = .{{0,90}}: ") as error:
            Run(**fields)
        assert len(str(error.value)) < 500
    many = {f"field{number}": 1 for number in range(50)}
    with pytest.raises(ValueError, match="45 more$"):
        Run(**many)
