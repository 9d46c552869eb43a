"""Which batches a run trains on."""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from kdhelpers.data import Batches, BatchSpec, Data, parse_recipe
from kdhelpers.methods import Method
from kdhelpers.training.run import Run


def training_batches(run: Run, data: Data, methods: Sequence[Method], device: torch.device) -> Batches:
    """The batches of a run, with all that the methods ask for: this process's share of them."""
    uses_unlabelled = any(method.uses_unlabelled for method in methods)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    spec = BatchSpec(
        parse_recipe(run.augmentation),
        run.batch_size,
        views=max(method.views for method in methods),
        seed=run.seed,
        weak_view=max(method.weak_view for method in methods),  # there is but one kind in a sweep
        unlabelled_batch_size=(run.unlabelled_batch_size or run.batch_size) if uses_unlabelled else 0,
        rank=rank,
        world=world,
    )
    return Batches(data, spec, device)
