"""Pictures of curves: names that users of a published experiment know, and no collisions with other runs."""

from kdhelpers import Run
from kdhelpers.training import names


def curves_name(by=None, named=False, taken="", **fields):
    run = Run(**{"dataset": "imagenette", "model": "resnet18"} | fields)
    return names.curves_name(run, taken or run.artifact_name, by, named)


def test_curves_of_the_published_experiment_have_the_names_that_its_users_know(root):
    teacher, student = (
        {"model": "resnet101", "role": "teacher"},
        {"method": "conkd", "optimizer": "lion", "teacher": "t"},
    )
    assert curves_name(**teacher) == "resnet101-teacher_output"
    assert curves_name(**student, by="resnet101", seed=1) == "resnet101-18-teacher-student_output_seed1"
    assert curves_name(**student, by="vgg16") == "vgg16-resnet18-teacher-student_output"
    assert curves_name(**teacher, dataset="cifar100") == "teacher_resnet101_cifar100_curves"
    assert curves_name(**teacher, named=True, name="mine") == "mine_curves"
    assert curves_name(**teacher, taken="teacher_resnet101_imagenette-0123abcd") == (
        "teacher_resnet101_imagenette-0123abcd_curves"
    )


def test_other_methods_optimisers_and_starts_do_not_overwrite_those_curves(root):
    student = {"method": "conkd", "optimizer": "lion", "teacher": "t"}
    for other in ({"optimizer": "adamw"}, {"method": "lm_standardized"}):
        assert curves_name(**student | other, by="resnet101", name="other", seed=1) == "other_seed1_curves"
    assert curves_name(**student, by=None, name="unknown_teacher") == "unknown_teacher_curves"  # a file by its path
    assert curves_name(name="alone") == "alone_curves"
    assert curves_name(role="teacher", start_from="first") == "teacher_resnet18_imagenette_from_first_curves"
