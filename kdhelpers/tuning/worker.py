"""A worker's own process: `python -m kdhelpers.tuning.worker` trains the open trials of a study.

The order is one line of JSON on stdin, which stays open while the worker is wanted, as for a notebook of the suite.
"""

import json
import os
import sys
import threading

from kdhelpers.python_paths import use_network
from kdhelpers.suite.replay import INTERRUPTED, stop_with_the_suite
from kdhelpers.tuning.study import make_study
from kdhelpers.tuning.trials import inputs_of, train_open_trials


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=stop_with_the_suite, daemon=True).start()
    os.environ["KD_COMMAND"] = order["command"]  # the records quote it
    for path in order["networks"]:
        use_network(path)
    study = make_study(**order["study"])
    try:
        train_open_trials(study, inputs_of(study), order["device"])
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
