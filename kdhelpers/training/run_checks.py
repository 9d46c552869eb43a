"""What the fields of a `Run` must have in common: checks that need more than one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdhelpers.data import parse_recipe
from kdhelpers.training.optim import check_optimizer_options, learning_rate

if TYPE_CHECKING:
    from kdhelpers.methods import Method
    from kdhelpers.training.run import Run


def check_parts(run: Run) -> None:
    """Raises ValueError for fields that exclude or need each other, with the remedy."""
    method = run.build_method()  # checks the ranges of its hyperparameters
    check_optimizer_options(run.optimizer_options)
    learning_rate(run.schedule, run.schedule_options, run.lr, 0, run.epochs or 1)
    _check_weights(run, method)
    _check_images(run, method)
    _check_epochs(run, method)


def _check_weights(run: Run, method: Method) -> None:
    if method.needs_teacher and not run.teacher:
        raise ValueError(
            f"teacher: method {run.method} needs one; give the architecture of a trained one, "
            "e.g. resnet20 (notebook 01_teacher trains it), or the name of its weights"
        )
    if run.teacher and not method.needs_teacher:
        raise ValueError(f"teacher = {run.teacher}: method {run.method} uses none; leave it out")
    if run.placebo and not method.needs_teacher:
        raise ValueError(f"placebo = {run.placebo}: method {run.method} has no teacher; leave it out")
    if run.start_from and run.pretrained:
        raise ValueError(f"start_from = {run.start_from}: excludes pretrained = True; keep one of the two")


def _check_images(run: Run, method: Method) -> None:
    if method.uses_unlabelled and not run.unlabelled:
        raise ValueError(
            f"unlabelled: method {run.method} trains on images without labels; give test, train:16000, or a path"
        )
    if run.unlabelled_batch_size and not run.unlabelled:
        raise ValueError(
            f"unlabelled_batch_size = {run.unlabelled_batch_size}: has no effect without `unlabelled`; set "
            "`unlabelled`, or remove it"
        )
    if method.views > 1 and run.augmentation in ("none", "flip"):
        raise ValueError(
            f"augmentation = {run.augmentation}: gives {run.method} equal views of an image; it compares "
            f'{method.views} different ones; name steps such as "crop flip"'
        )
    if method.needs_strong_view and (recipe := parse_recipe(run.augmentation)) == recipe.weak:
        raise ValueError(
            f"augmentation = {run.augmentation}: gives {run.method} two weak views; one must be strong; add "
            'steps, as in "crop flip randaugment=2/10 cutout=8"'
        )


def _check_epochs(run: Run, method: Method) -> None:
    if run.selection == "best_val" and run.val_fraction == 0:
        raise ValueError("val_fraction = 0: selection best_val needs held-out images; raise it or take selection last")
    if not method.trains_classifier and run.selection == "best_val":
        raise ValueError(
            f"selection = best_val: {run.method} trains no classifier, so epochs have no accuracy; take selection last"
        )
    if run.epochs == 0:
        _check_untrained(run)
    elif method.stage_epochs >= run.epochs:
        raise ValueError(
            f"epochs = {run.epochs}: must be more than the {method.stage_epochs} of {run.method}'s first stage"
        )
    elif run.warmup_epochs >= run.epochs:
        raise ValueError(f"warmup_epochs = {run.warmup_epochs}: must be less than epochs = {run.epochs}")


def _check_untrained(run: Run) -> None:
    """Raises ValueError unless 0 epochs store the random weights that a teacher's training begins with."""
    others = {"role": "teacher", "method": "si", "pretrained": False, "start_from": None}
    for field, wanted in others.items():
        if (value := getattr(run, field)) != wanted:
            raise ValueError(
                f"epochs = 0: stores a teacher of random weights, which excludes {field} = {value}; train for an "
                f"epoch or more, or take {field} = {wanted}"
            )
