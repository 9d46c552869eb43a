"""What a method is built from: the outputs of both networks for two images, checked, and their classifiers."""

import copy

import torch

from kdhelpers.device import autocast
from kdhelpers.methods import Context, Method
from kdhelpers.methods.base import Classifier
from kdhelpers.models import FeatureExtractor, Outputs, is_external
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.teacher import Teacher

LACKS = {  # part of the outputs -> what a network that is not of the registry must have for it
    "final_map": "a feature map whose average over pixels is the embedding",
    "pre_activations": "feature maps that end with an nn.ReLU, or without an activation",
}
FIELDS = {  # part of the outputs -> the field of Architecture that names it, with an example
    "final_map": 'pooling="avgpool"',
    "pre_activations": 'pre_activations={"layer2": "layer2.relu"}',
}


@torch.no_grad()
def context_of(inputs: Inputs, method: Method, student: FeatureExtractor, teacher: Teacher | None) -> Context:
    """The context of a run whose loop calls these networks.

    Raises ValueError for a network of the user's own that lacks what the method reads, or outputs other logits.
    """
    network, run, data = student.model, inputs.run, inputs.data
    images = torch.zeros(2, 3, data.image_size, data.image_size, device=inputs.device)
    network.eval()
    with autocast(inputs.device, inputs.precision):
        outputs = student(images), teacher(images) if teacher else None
    network.train()
    _check_logits(outputs[0], run.model, data.num_classes)
    owner = f"model = {run.model}"
    for part in [part for part in FIELDS if teacher and part in method.reads]:
        of_teacher = is_external(inputs.teacher.description.get("model"))
        _check_part(outputs[1], part, f"teacher = {run.teacher}", run.method, of_teacher)
        if part == "final_map":
            _check_part(outputs[0], part, owner, run.method, is_external(run.model))
    return Context(
        *outputs,
        copy_student=lambda: FeatureExtractor(copy.deepcopy(network)).requires_grad_(False),
        labels=data.train.labels,
        num_classes=data.num_classes,
        student_parameters=list(network.parameters()),
        student_classifier=Classifier(network.get_submodule(student.classifier), owner),
        teacher_classifier=Classifier(inputs.teacher.classifier, f"teacher = {run.teacher}") if teacher else None,
    )


def _check_logits(outputs: Outputs, model: str, classes: int) -> None:
    if outputs.logits.shape != (2, classes):
        raise ValueError(
            f"model = {model}: outputs logits {tuple(outputs.logits.shape)} for two images; must be {(2, classes)}, "
            "one per class: pass num_classes on to the classifier"
        )


def _check_part(outputs: Outputs, part: str, owner: str, method: str, external: bool) -> None:
    if getattr(outputs, part) is None:
        if external:
            remedy = "take another network, or a method that reads logits or embeddings, such as lm, dkd or crd"
            raise ValueError(f"{owner}: method {method} reads {part}, which needs {LACKS[part]}; {remedy}")
        name, _, example = FIELDS[part].partition("=")
        raise ValueError(
            f"{owner}: its Architecture does not give {name}, and method {method} reads {part}; write, for example, "
            f"Architecture(..., {name}={example})"
        )
