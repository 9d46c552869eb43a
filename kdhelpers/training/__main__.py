"""Train the Run of a JSON file: `torchrun --nproc_per_node=N -m kdhelpers.training RUN.json`, or without torchrun.

Words such as `epochs=20` replace values of the file, or stand for all of it, as in `python -m kdhelpers train`.
"""

import sys

from kdhelpers.training.command import ending, run_from, train

if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.exit(print(__doc__))
    try:
        run = run_from(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if trained := train(run):
        print(ending(trained))
