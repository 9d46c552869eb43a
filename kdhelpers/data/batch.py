"""What a training step gets, and the specification of the batches of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kdhelpers.data.augmentation.recipe import Draws, Recipe


class Batch(NamedTuple):
    views: tuple[Tensor, ...]  # V times float [B, 3, H, W], normalised, channels_last
    labels: Tensor | None  # int64 [B]; None for unlabelled images
    index: Tensor  # int64 [B], the samples' positions in their split
    draws: Draws  # per augmentation step [V, B, ...], see `plan_epoch`; [V + 1, ...] with a weak view of its own crop
    weak_view: Tensor | None = None  # one more view, by crop and flip alone (FixMatch)
    view_ids: Tensor | None = None  # int64 [V, B], on the CPU: see `view_numbers`; of the views that a teacher receives
    unlabelled: Batch | None = None  # other images of the same step
    block: Batch | None = None  # the images of several steps; this batch is its slice `span`
    span: slice = slice(None)

    def first(self, views: int) -> Batch:
        """The batch with no more than its first `views` views."""
        if len(self.views) <= views:
            return self
        draws = {step: values[:views] for step, values in self.draws.items()}
        return self._replace(views=self.views[:views], draws=draws)

    def cut(self, span: slice) -> Batch:
        """The batch of one step of this block."""
        views, weak_view = tuple(view[span] for view in self.views), self.weak_view
        if weak_view is not None:
            weak_view = views[0] if weak_view is self.views[0] else weak_view[span]
        labels = None if self.labels is None else self.labels[span]
        draws = {step: values[:, span] for step, values in self.draws.items()}
        view_ids = None if self.view_ids is None else self.view_ids[:, span]
        return Batch(views, labels, self.index[span], draws, weak_view, view_ids, None, self, span)

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor that a method reads, each once."""
        distinct = {id(own): own for own in (*self.views, self.weak_view, self.labels, self.index) if own is not None}
        return [*distinct.values(), *(self.unlabelled.tensors if self.unlabelled else ())]

    def clone(self) -> Batch:
        """A copy of the tensors, for `fill`."""
        views, weak_view = tuple(view.clone() for view in self.views), self.weak_view
        if weak_view is not None:
            weak_view = views[0] if weak_view is self.views[0] else weak_view.clone()
        labels = None if self.labels is None else self.labels.clone()
        unlabelled = self.unlabelled and self.unlabelled.clone()
        return Batch(views, labels, self.index.clone(), {}, weak_view, unlabelled=unlabelled)

    def has_shapes_of(self, other: Batch) -> bool:
        return [own.shape for own in self.tensors] == [own.shape for own in other.tensors]

    def fill(self, other: Batch) -> None:
        """Copy the other batch's tensors into these."""
        for own, new in zip(self.tensors, other.tensors, strict=True):
            own.copy_(new)

    def standing_for(self, other: Batch) -> Batch:
        """This batch with the place of the other in its block."""
        unlabelled = self.unlabelled and self.unlabelled.standing_for(other.unlabelled)
        return self._replace(block=other.block, span=other.span, unlabelled=unlabelled)

    def in_block(self, view: Tensor) -> tuple[Tensor, Tensor | None, slice] | None:
        """(the block's view of which `view` is a slice, its view ids, the slice); None for other images."""
        block = self.block
        if block and view is self.weak_view:
            return block.weak_view, None if block.view_ids is None else block.view_ids[0], self.span
        for place, own in enumerate(self.views if block else ()):
            if view is own:
                numbered = block.view_ids is not None and block.weak_view is None
                return block.views[place], block.view_ids[place] if numbered else None, self.span
        return self.unlabelled.in_block(view) if self.unlabelled else None


@dataclass(frozen=True)
class BatchSpec:
    """Which batches are made of a data set. Raises ValueError for a batch that the processes cannot share equally.

    weak_view: "shared_crop" adds a view with the first view's crop and flip and no other step of the recipe;
    "own_crop" adds one with a crop and flip of its own; "" adds none. weak_crop: the number of its draws. In lockstep
    with methods of more views it is still that of the method alone; None means `views`, the next one.
    """

    recipe: Recipe
    batch_size: int  # over all processes
    views: int = 1
    seed: int = 0
    weak_view: Literal["", "shared_crop", "own_crop"] = ""
    weak_crop: int | None = None
    unlabelled_batch_size: int = 0  # unlabelled images per step, over all processes; 0: none
    rank: int = 0
    world: int = 1  # number of processes; each takes every world-th position of a batch

    def __post_init__(self):
        for field in ("batch_size", "unlabelled_batch_size"):
            if (size := getattr(self, field)) % self.world:
                raise ValueError(f"{field} = {size}: {self.world} processes cannot share it equally; take a multiple")

    @property
    def teacher_recipe(self) -> Recipe:
        """The recipe of the views that a teacher receives."""
        return self.recipe.weak if self.weak_view else self.recipe

    @property
    def crops(self) -> int:
        """How many independent draws an image has."""
        return max(self.views, self.own_crop + 1)

    @property
    def own_crop(self) -> int:
        """The number of the weak view's draws: 0, the first view's, unless it has a crop of its own."""
        if self.weak_view != "own_crop":
            return 0
        return self.views if self.weak_crop is None else self.weak_crop

    def share(self, count: int, batch_size: int) -> tuple[Tensor, list[slice]]:
        """This process's positions in the epoch's order, and the slice of them in each of its batches.

        Every process has an equal share of each batch, because contrastive methods gather equal parts from all of them.
        """
        rest = count % batch_size
        count -= rest if rest < min(2 * self.world, batch_size) else rest % self.world
        if count == 0:
            raise ValueError(f"batch_size = {batch_size}: {rest} images are too few to train on; add images")
        positions = torch.arange(count)
        positions = positions[positions % batch_size % self.world == self.rank]
        ends = torch.bincount(positions // batch_size).cumsum(0).tolist()
        return positions, [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
