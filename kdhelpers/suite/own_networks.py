"""Networks of the user's own that a profile names: they are imported only if the user gave them, not the profile."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdhelpers.python_paths import is_python_path, require_given
from kdhelpers.suite.profiles import Job

NAMING = ("model", "teacher", "teachers", "student")  # parameters that name networks
IN_TEXTS = re.compile(r"\b(?:model|teacher)\s*=\s*['\"]?([^\s'\";]+)")  # as `training` and `methods` hold them


def require_given_networks(path: Path, jobs: Sequence[Job]) -> None:
    """Raises ValueError for a Python path in the jobs' parameters that the user has not given with --network."""
    for job in jobs:
        for name in filter(is_python_path, _networks(job)):
            require_given(name, f"job {job.name} of {path}")


def _networks(job: Job) -> Iterator[str]:
    for parameter, value in job.parameters.items():
        yield from str(value).split() if parameter in NAMING else IN_TEXTS.findall(str(value))
