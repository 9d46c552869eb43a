"""Does a file compute what the network computes? The check of an export, and the cost of int8."""

from typing import Any

import numpy as np
import torch

from kdhelpers.deploy.formats import reason
from kdhelpers.deploy.runtime import Runner, batched
from kdhelpers.evaluation.metrics import compare
from kdhelpers.evaluation.predictions import Predictions

TOLERANCE = 1e-3  # largest difference of two logits, as a share of the largest logit, and at least of 1


def check(run: Runner, images: np.ndarray, reference: Predictions, form: str) -> dict[str, Any]:
    """The differences from the logits of PyTorch on test images, also of one image alone.

    Raises ValueError if a logit is not finite or differs by more than TOLERANCE.
    """
    expected = reference.logits.numpy()
    try:
        logits, alone = batched(run, images), run(images[:1])
    except Exception as error:  # the runtimes have errors of their own
        raise ValueError(
            f"format = {form}: the file does not run on batches of other sizes ({reason(error)}); nothing was written; "
            "write the network so that it takes a batch of any size"
        ) from error
    difference = float(max(np.abs(logits - expected).max(), np.abs(alone - expected[:1]).max()))
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:  # also if it is NaN
        raise ValueError(
            f"format = {form}: the logits differ from PyTorch's by up to {difference:.3g} on {len(images)} test images "
            f"(allowed: {allowed:.3g}); nothing was written; try another format, or safetensors if the network draws "
            "random numbers or mixes the images of a batch"
        )
    classes = logits.argmax(1)
    shares = {"same_class_pct": expected.argmax(1), "top1_pct": reference.labels.numpy()}
    shares = {name: 100 * float((classes == wanted).mean()) for name, wanted in shares.items()}
    return {"images": len(images), "largest_difference": difference, "allowed": allowed, **shares}


def cost(run: Runner, images: np.ndarray, reference: Predictions) -> dict[str, Any]:
    """Accuracy of a file and of PyTorch's network on the same test images, with the interval of the difference.

    Raises ValueError if a logit is not finite.
    """
    logits = torch.from_numpy(batched(run, images))
    if not logits.isfinite().all():
        raise ValueError("int8 = True: the logits are not finite; nothing was written; export without int8")
    paired = compare(Predictions(logits, logits, reference.labels, reference.index), reference)
    names = {"top1_pct": "first_pct", "float_top1_pct": "second_pct", "images": "n"}
    names |= {key: key for key in ("difference_pct", "low_pct", "high_pct", "agreement_pct")}
    return {name: paired[key] for name, key in names.items()}
