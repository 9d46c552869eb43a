"""Train the Run of a JSON file: `torchrun --nproc_per_node=N -m kdhelpers.training RUN.json`, or without torchrun.

Words such as `epochs=20` replace values of the file, or stand for all of it, as in `python -m kdhelpers train`.
"""

import sys

from kdhelpers.training.command import main

if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.exit(print(__doc__))
    main(sys.argv[1:])
