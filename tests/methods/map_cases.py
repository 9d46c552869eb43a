"""A method on maps with two real networks, for its tests."""

import torch
from training_fixtures import QUICK

from kdhelpers import Run, fit
from kdhelpers.methods import METHODS, Context
from kdhelpers.methods.base import Classifier
from kdhelpers.models import FeatureExtractor, build_model
from kdhelpers.training.teacher import Teacher


class OneView:
    """A batch as the loop makes it."""

    def __init__(self, view, labels):
        self.views, self.labels = (view,), labels


class Case:
    """The method `name`, built for two networks of random weights; `terms(epoch)` of a batch of four images."""

    def __init__(self, name, student="resnet8", teacher="resnet14", **hyperparameters):
        torch.manual_seed(0)
        self.network = build_model(student, 10).eval()
        self.student, self.teacher = (
            FeatureExtractor(self.network),
            Teacher(build_model(teacher, 10), pre_activations=True),
        )
        self.batch = OneView(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
        self.method = METHODS[name](**hyperparameters)
        with torch.no_grad():
            self.student_out, self.teacher_out = self.student(self.batch.views[0]), self.teacher(self.batch.views[0])
        self.classifiers = (
            Classifier(self.network.get_submodule(self.student.classifier)),
            Classifier(self.teacher.classifier),
        )
        self.method.build(Context(self.student_out, self.teacher_out, None, None, 10, [], *self.classifiers))
        self.method.eval()

    def terms(self, epoch=1):
        return self.method(self.student, self.teacher, self.batch, epoch)

    def trained(self, epoch=1):
        """Names of the student's, of the method's parameters that get a gradient."""
        sum(self.terms(epoch).values()).backward()
        modules = self.network, self.method
        return [{name for name, p in module.named_parameters() if p.grad is not None} for module in modules]


def digits_run(method, precision="fp32", epochs=2, **hyperparameters):
    """A short run of resnet8 with the teacher of `stored_teacher`."""
    settings = QUICK | {"epochs": epochs, "precision": precision}
    return Run(**settings, method=method, teacher="resnet8", hyperparameters=hyperparameters)


def stored_teacher(data):
    return fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)
