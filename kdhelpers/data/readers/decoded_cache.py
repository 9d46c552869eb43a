"""Decoded images, kept in the data root's `.cache`: `cached`.

The key is a hash of the files' names, labels and contents: a replaced image is decoded again, a copied folder is not.
The contents are read only if a name, size or time of a file has changed, since a mounted drive takes minutes for that.
"""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from kdhelpers import artifacts
from kdhelpers.data.dataset import Split
from kdhelpers.data.findings import Finding, Findings, shown
from kdhelpers.data.readers.arrays import load_arrays
from kdhelpers.data.readers.decoding import SLOW_FILES, hint_if_slow
from kdhelpers.data.readers.image import DECODING, Ranges
from kdhelpers.display.progress import progress_bar

KEY = re.compile("[0-9a-f]{16}")  # part of a file's name
HERE = "<folder>"  # replaces the folder in stored findings, since it may move


@dataclass
class Built:
    """The decoded splits, the ranges of deep values, and sha256 of the files that were read on the way."""

    splits: dict[str, Split]
    ranges: Ranges = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)


def cached(
    cache: Path,
    folder: Path,
    paths: list[Path],
    image_size: int | None,
    found: Findings,
    build: Callable[..., Built],
    classes: int,
    labels: str = "",
) -> Built:
    """The result of `build(findings)`, from the cache if the same files were decoded to the same size before.

    labels: what gives the files their labels, if that is neither their names nor their content.
    """
    setting = repr((DECODING, image_size, labels)).encode()
    prefix, states = f"{shown(folder.name)}-", cache / f"{shown(folder.name)}-{image_size}.json"
    state, stored = _state(folder, paths, setting), cache.is_dir() and any(cache.glob(f"{prefix}*.npz"))
    key = _known(states).get(state, "")
    if not key and stored:
        key = _key(folder, paths, setting, {}, found)
    if key and (kept := _load(cache / f"{prefix}{key}.npz", folder, found, classes)):
        _save_state(states, state, key)
        return kept
    own = Findings(found.name, found.complete)
    try:
        built = build(own)
    finally:
        for finding in own:
            found.take(finding)
    if not own.serious:
        key = _key(folder, paths, setting, built.digests, found)
        _save(cache / f"{prefix}{key}.npz", built, own, folder)
        _save_state(states, state, key)
    return built


def _state(folder: Path, paths: list[Path], setting: bytes) -> str:
    """sha256 over the files' names, sizes and times, and the setting."""
    digest = hashlib.sha256(setting)
    for path in paths:
        facts = path.stat()
        digest.update(_name(folder, path) + repr((facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)).encode())
    return digest.hexdigest()


def _name(folder: Path, path: Path) -> bytes:
    return path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape")


def _key(folder: Path, paths: list[Path], setting: bytes, digests: dict[Path, str], found: Findings) -> str:
    """sha256 over the files' names and contents, and the setting; 16 hex digits."""
    digest, unread = hashlib.sha256(setting), [path for path in paths if path not in digests]
    digests = digests | dict(zip(unread, _hashes(folder, unread, found), strict=True))
    for path in paths:
        digest.update(_name(folder, path) + f"|{digests[path]}\n".encode())
    return digest.hexdigest()[:16]


def _hashes(folder: Path, paths: list[Path], found: Findings) -> list[str]:
    if not paths:
        return []
    hashes, start, threads = [], perf_counter(), os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:  # reading waits for the disk, hashing lets other threads run
        done = pool.map(artifacts.sha256, paths)
        bar = progress_bar(done, total=len(paths), desc=f"reading {shown(folder.name)}", unit="file")
        for count, sha256 in enumerate(bar, 1):
            hashes.append(sha256)
            if count == SLOW_FILES:
                hint_if_slow(shown(folder), threads * (perf_counter() - start), count, found)
    return hashes


def _known(states: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        known = artifacts.load_json(states)
        if isinstance(known, dict) and all(isinstance(key, str) and KEY.fullmatch(key) for key in known.values()):
            return known
    return {}


def _save_state(states: Path, state: str, key: str) -> None:
    if _known(states) != {state: key}:
        with contextlib.suppress(OSError):  # reading again is only slow
            artifacts.save_json(states, {state: key})


def _load(file: Path, folder: Path, found: Findings, classes: int) -> Built | None:
    if not file.is_file():
        return None
    try:
        kept = load_arrays(file)
        facts = json.loads(kept["facts"].tobytes())
        splits = {
            name: _split(kept[f"{name}/images"], kept[f"{name}/labels"], classes)
            for name in ("train", "val", "test")
            if name == "train" or f"{name}/images" in kept  # without it the file is not a cache of these splits
        }
        ranges = {kind: (float(low), float(high)) for kind, (low, high) in facts["ranges"].items()}
        findings = [Finding(*map(str, entry)) for entry in facts["findings"]]
    except Exception:  # damaged in any way: decode again and overwrite
        return None
    for finding in findings:
        found.take(finding._replace(where=finding.where.replace(HERE, shown(folder))))
    return Built(splits, ranges)


def _split(images: np.ndarray, labels: np.ndarray, classes: int) -> Split:
    """Raises ValueError for arrays that `_save` does not write."""
    count, colours, height, width = images.shape
    kinds = (images.dtype, labels.dtype, labels.shape) == (np.uint8, np.int64, (count,))
    if not kinds or not count or not 0 <= labels.min() <= labels.max() < classes or colours != 3 or height != width:
        raise ValueError("arrays of another form")
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _save(file: Path, built: Built, findings: Findings, folder: Path) -> None:
    arrays = {f"{name}/images": split.images.numpy() for name, split in built.splits.items()}
    arrays |= {f"{name}/labels": split.labels.numpy() for name, split in built.splits.items()}
    moved = [finding._replace(where=finding.where.replace(shown(folder), HERE)) for finding in findings]
    facts = json.dumps({"ranges": built.ranges, "findings": moved}).encode()
    arrays["facts"] = np.frombuffer(facts, np.uint8)
    try:
        artifacts.write_atomic(file, lambda stream: np.savez(stream, **arrays))
    except OSError as error:
        warnings.warn(f"decoded images could not be cached: {error}", stacklevel=2)
