"""The processes of a distributed training, as torchrun starts them: one writes, all see the same files."""

import contextlib
from collections.abc import Iterator

import torch.distributed as dist

LOST = "another process of this training has ended; give the same command again: it continues from its last checkpoint"


def is_writer() -> bool:
    """Whether this process writes files: the only one, or rank 0 of a group."""
    return not (dist.is_initialized() and dist.get_rank() > 0)


@contextlib.contextmanager
def lost_process_named() -> Iterator[None]:
    """Raise ConnectionError with the remedy if an exchange fails because another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):  # gloo raises plain RuntimeErrors
            raise ConnectionError(LOST) from error
        raise


def require_same_files(found: object) -> None:
    """Raise ValueError unless every process has `found` the same in the artifacts' root."""
    if not dist.is_initialized():
        return
    everywhere = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, found)
    if any(other != everywhere[0] for other in everywhere):
        raise ValueError("KD_ROOT: the processes see different files; name a folder that all machines share")
