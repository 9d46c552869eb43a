"""Train the Run of a JSON file: `torchrun --nproc_per_node=N -m kdhelpers.training RUN.json`, or without torchrun."""

import os
import sys

import torch
import torch.distributed as dist

from kdhelpers import artifacts
from kdhelpers.display.progress import Progress
from kdhelpers.training.fit import fit
from kdhelpers.training.run import Run


def main(path: str) -> None:
    """Train the Run in a JSON file under torchrun: every process takes its share of each batch."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    speaks = not dist.is_initialized() or dist.get_rank() == 0
    trained = fit(Run(**artifacts.load_json(path)), progress=None if speaks else Progress())
    if speaks:
        print(f"{trained.name}: test top-1 {trained.metrics['test_top1_pct']:.2f} %")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
