"""Train the Run of a JSON file: `torchrun --nproc_per_node=N -m kdhelpers.training RUN.json`, or without torchrun."""

import sys

from kdhelpers.training.command import ending, run_from, train

if __name__ == "__main__":
    if trained := train(run_from(sys.argv[1:])):
        print(ending(trained))
