"""Embeddings of made-up networks, for the tests of measures, maps and spheres."""

import math

import torch

from kdhelpers.evaluation.predictions import Predictions


def predictions(embeddings, labels, classes=None):
    labels = torch.as_tensor(labels)
    logits = torch.zeros(len(labels), classes or int(labels.max()) + 1)
    return Predictions(logits, embeddings, labels, torch.arange(len(labels)))


def network(seed, count=80, classes=4, width=6, spread=0.5):
    """Classes around centres of their own, some images of the same direction but of other length."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=generator)
    embeddings = centres[labels] + spread * torch.randn(count, width, generator=generator)
    return predictions(embeddings * torch.linspace(0.1, 9, count)[:, None], labels)


def two_networks(**options):
    return {"teacher": network(0, **options), "student": network(1, **options)}


def units(embeddings):
    return [[x / math.hypot(*row) for x in row] for row in embeddings.double().tolist()]
