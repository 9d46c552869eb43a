"""What the tests of trainings share: quick settings, a progress that counts and stops, comparisons."""

import torch

from kdhelpers import artifacts
from kdhelpers.display.progress import Progress
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.loop import batches_of, train_epoch
from kdhelpers.training.student import Training

QUICK = {"model": "resnet8", "epochs": 2, "batch_size": 32, "precision": "fp32", "lr": 0.02}


class Recorder(Progress):
    """Counts the calls, and can stop the training after an epoch."""

    def __init__(self, stop_after=None):
        self.steps, self.rows, self.done, self.stop_after = 0, 0, None, stop_after

    def begin(self, name, epochs, steps, done):
        self.done = done

    def step(self, step):
        self.steps += 1

    def epoch(self, history):
        self.rows += 1
        if self.rows == self.stop_after:
            raise KeyboardInterrupt


def training_of(run, data, teacher=None):
    """A training in progress, as `fit` makes it."""
    inputs = Inputs(run, data, torch.device("cpu"), run.precision, teacher)
    return Training(inputs, batches_of([inputs]))


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def weights(trained):
    return artifacts.load_tensors(trained.weights_path)


def train_one_epoch(training):
    training.end_epoch(train_epoch([training], Progress()))


def parameters_of(*modules):
    return [parameter.clone() for module in modules for parameter in module.parameters()]
