"""How files from elsewhere are read: a fault is one line that names the file and ends with the remedy."""

import contextlib
import stat
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdhelpers.messages import short

if TYPE_CHECKING:
    import yaml

MOST_BYTES = 2**28  # of a text; a record has some 100 kB
MOST_YAML, MOST_DEPTH = 2**20, 100  # bytes of YAML, of which a second reads some 100 kB; brackets within brackets
MOST_NODES = 100_000  # of a YAML file, its aliases written out


@contextlib.contextmanager
def reading(path: Path | str, remedy: str, what: str = "damaged") -> Iterator[None]:
    """Any error of the block becomes a ValueError `path: what (reason); remedy`.

    OSError passes. A ValueError keeps its own remedy and, if it begins with the path, all of its text.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # content of any kind fails in any way: KeyError, RecursionError, OverflowError, ...
        text, own = str(error), isinstance(error, ValueError) and "; " in str(error)
        if own and text.startswith(f"{path}: ") and "\n" not in text:
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        fault = short(text, 400) if own else f"{what} ({kind}{short(text, 200)}); {remedy}"
        raise ValueError(f"{path}: {fault}") from error


def check_file(path: Path) -> int:
    """The size of a file. Raises OSError; ValueError for a device, which has no end, or a pipe, which is waited for."""
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ValueError(f"{path}: is a device or a pipe; put a file there")
    return status.st_size


def read_file(path: Path | str) -> bytes:
    """The content of a text. Raises as `check_file`, and ValueError for more than MOST_BYTES."""
    path = Path(path)
    if (size := check_file(path)) > MOST_BYTES:
        raise ValueError(f"{path}: has {size:,} bytes, more than any such file ({MOST_BYTES:,}); remove it")
    return path.read_bytes()


def load_json(path: Path | str, remedy: str = "delete it and run again", finite: bool = True) -> Any:
    """Read JSON. Raises FileNotFoundError, or ValueError that names a damaged file and ends with the remedy.

    finite: refuse NaN and infinity.
    """
    from pydantic_core import from_json  # not json: it refuses half of a surrogate pair, and endless nesting

    content = read_file(path)
    try:
        return from_json(content, allow_inf_nan=not finite)
    except ValueError as error:
        raise ValueError(f"{path}: damaged JSON ({short(error, 200)}); {remedy}") from error


def load_yaml(path: Path | str, remedy: str = "correct it") -> Any:
    """Read YAML of plain values. Raises FileNotFoundError, or ValueError that names a faulty file and the remedy.

    A key that is given twice, an alias within itself, and aliases that stand for many values are refused.
    """
    import yaml

    content = read_file(path)
    if len(content) > MOST_YAML:
        raise ValueError(f"{path}: has {len(content):,} bytes, more than the {MOST_YAML:,} of any such file; {remedy}")
    try:
        loader = _yaml_loader()(content.decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError(f"{path}: not YAML: nested too deeply; {remedy}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # of dates and numbers that do not exist
        raise ValueError(f"{path}: not YAML: {short(error, 300)}; {remedy}") from error


@cache
def _yaml_loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        def fetch_flow_collection_start(self, token: type) -> None:
            if self.flow_level >= MOST_DEPTH:  # its time grows with the square of the depth
                raise ValueError("nested too deeply")
            super().fetch_flow_collection_start(token)

    return Loader


def _count(node: "yaml.Node", known: dict[int, int]) -> int:
    """The number of values below a node, aliases written out."""
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("an alias stands within itself")
        return known[id(node)]
    known[id(node)] = 0
    parts = [] if isinstance(node.value, str) else node.value
    keys = [key.value for part in parts if isinstance(part, tuple) for key in part[:1] if isinstance(key.value, str)]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise ValueError(f"the key {short(twice[0])} is given twice")
    inner = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
    known[id(node)] = count = 1 + sum(_count(each, known) for each in inner)
    if count > MOST_NODES:
        raise ValueError(f"its aliases stand for more than {MOST_NODES:,} values")
    return count
