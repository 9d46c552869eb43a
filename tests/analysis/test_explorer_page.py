"""The explorer's page: which images and numbers it holds, its size, and what it refuses."""

import base64
import dataclasses
import io
import json
import re

import numpy
import pytest
import torch
from PIL import Image

from kdhelpers.analysis import divergence
from kdhelpers.analysis.explorer_page import explorer_page
from kdhelpers.data import Data, Split
from kdhelpers.evaluation.predictions import Predictions


def made_up(count: int, classes: int, side: int = 8) -> tuple[Data, list[Predictions]]:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randint(0, 256, (count, 3, 1, 1), generator=generator, dtype=torch.uint8)  # each of one colour
    labels = torch.arange(count) % classes
    split = Split(flat.expand(-1, -1, side, side).contiguous(), labels)
    data = Data("own", split, split, split, [f"c{c}" for c in range(classes)], None, None, (0.5,) * 3, (0.5,) * 3)
    logits = [3 * torch.randn(count, classes, generator=generator) for _ in range(3)]
    return data, [Predictions(one, one, labels, torch.arange(count)) for one in logits]


def content(page: str) -> dict:
    return json.loads(re.search(r'<script id="content" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_a_seeded_sample_with_its_logits_and_images():
    data, (teacher, a, b) = made_up(60, 4)
    page = explorer_page(data, teacher, {"A": a, "B": b}, count=40, seed=3)
    held = content(page)
    index = held["index"]
    assert index == sorted(set(index))
    assert len(index) == 40
    assert held["labels"] == teacher.labels[index].tolist()
    logits = numpy.frombuffer(base64.b64decode(held["logits"]), "<f4").reshape(3, 40, 4)
    for ours, network in zip(logits, (teacher, a, b), strict=True):
        assert ours.tolist() == network.logits[index].tolist()
    sprite = base64.b64decode(re.search(r"data:image/webp;base64,([^)]*)\)", page)[1])
    pixels = numpy.asarray(Image.open(io.BytesIO(sprite)).convert("RGB")).astype(int)
    assert pixels.shape == (16, 25 * 8, 3)
    for place, image in enumerate(index):
        row, column = divmod(place, 25)
        centre = pixels[8 * row + 4, 8 * column + 4]
        assert abs(centre - data.test.images[image, :, 4, 4].numpy().astype(int)).max() < 60  # the colour is compressed
    assert "40 of the 60 test images of own, drawn at random with seed 3" in page
    assert content(explorer_page(data, teacher, {"A": a, "B": b}, count=40, seed=3)) == held
    assert content(explorer_page(data, teacher, {"A": a, "B": b}, count=40, seed=4))["index"] != index
    assert "has all test images of own. A" in explorer_page(data, teacher, {"A": a})


def test_the_table_is_over_all_test_images():
    data, (teacher, a, _) = made_up(60, 4)
    page = explorer_page(data, teacher, {"A": a}, count=5, stored_as={"A": "student_<a>"})
    assert f"<td>{100 * a.correct.double().mean().item():.2f}</td>" in page
    assert f"<td>{divergence(teacher, a).mean().item():.4f}</td>" in page
    assert "student_&lt;a&gt;" in page


def test_a_page_of_cifar100_stays_small():
    data, (teacher, a, b) = made_up(600, 100, side=32)
    noise = torch.randint(0, 256, (600, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    rough = torch.nn.functional.interpolate(noise.float(), size=32, mode="bilinear").to(
        torch.uint8
    )  # like a photograph
    data = dataclasses.replace(data, test=Split(rough, data.test.labels))
    page = explorer_page(data, teacher, {"A": a, "B": b, "C": a, "D": b})
    assert len(page.encode()) < 2_000_000


def test_large_images_are_scaled_down():
    data, (teacher, a, _) = made_up(3, 3, side=96)
    sprite = re.search(r"data:image/webp;base64,([^)]*)\)", explorer_page(data, teacher, {"A": a}))[1]
    assert Image.open(io.BytesIO(base64.b64decode(sprite))).size == (3 * 64, 64)


def test_what_the_page_refuses():
    data, (teacher, a, _) = made_up(60, 4)
    with pytest.raises(ValueError, match="students = : must be one student or more"):
        explorer_page(data, teacher, {})
    with pytest.raises(ValueError, match="count = 0: must be 1 or more"):
        explorer_page(data, teacher, {"A": a}, count=0)
    with pytest.raises(ValueError, match="of different images"):
        explorer_page(data, teacher, {"A": dataclasses.replace(a, index=a.index.flip(0))})
    other, _ = made_up(60, 5)
    with pytest.raises(ValueError, match="not of the test images of own"):
        explorer_page(other, teacher, {"A": a})


def test_networks_of_other_classes_and_diverged_ones_are_refused():
    data, (teacher, a, _) = made_up(6, 4)
    _, (_, other, _) = made_up(6, 5)
    other = dataclasses.replace(other, labels=teacher.labels)
    with pytest.raises(ValueError, match="B: has 5 classes; own has 4"):
        explorer_page(data, teacher, {"A": a, "B": other})
    for value in (float("nan"), float("inf")):
        logits = a.logits.clone()
        logits[1, 2] = value
        with pytest.raises(ValueError, match="A: has logits that are not finite.*leave it out"):
            explorer_page(data, teacher, {"A": dataclasses.replace(a, logits=logits)})
