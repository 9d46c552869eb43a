"""The two losses of CoCoRD as plain loops over rows, and vectors to feed them with."""

import math

import torch
import torch.nn.functional as F


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape, seed=0):
    return F.normalize(draw(*shape, seed=seed), dim=-1)


def dot(first, second):
    return sum(map(float.__mul__, first, second))


def naive_contrast(student, teacher, queue, temperature):
    total = 0.0
    for q, key in zip(student.tolist(), teacher.tolist(), strict=True):
        positive = math.exp(dot(q, key) / temperature)
        negatives = sum(math.exp(dot(q, row) / temperature) for row in queue.tolist())
        total -= math.log(positive / (positive + negatives))
    return total / len(student)


def naive_prediction(prediction, slow):
    def distance(first, second):
        return 2 - 2 * dot(first, second) / math.sqrt(dot(first, first) * dot(second, second))

    pairs = zip(prediction.tolist(), slow.tolist(), strict=True)
    return sum(distance(h[0], s[1]) + distance(h[1], s[0]) for h, s in pairs) / len(prediction)
