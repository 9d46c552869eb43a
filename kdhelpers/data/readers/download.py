"""Downloads over an unreliable network: resumed, verified, unpacked safely, with a progress bar."""

import hashlib
import http.client
import lzma
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath

from kdhelpers import artifacts
from kdhelpers.display.progress import progress_bar
from kdhelpers.messages import short

BLOCK = 1 << 16  # bytes read at a time
TIMEOUT = 30.0  # seconds without a byte
LONGEST = 255  # bytes of a file's name
ATTEMPTS = 5  # in succession without a new byte


def download(url: str, path: Path, md5: str | None = None) -> Path:
    """Download `url` to `path`, resuming an earlier partial download.

    The server's size and the `md5`, if given, are verified before the file gets its name. Raises ConnectionError if the
    server fails (the partial file is kept), ValueError for another md5.
    """
    with artifacts.lock(path.with_name(path.name + ".lock")):
        if path.is_file():  # another process downloaded it during the wait for the lock
            return path
        partial = path.with_name(path.name + ".part")
        _fetch_with_retries(url, partial)
        if md5 and (actual := _md5(partial)) != md5:
            partial.unlink()
            raise ValueError(f"{url}: md5 of the download is {actual}, not {md5}; try again later")
        artifacts.rename(partial, path, "KD_DATA")
    return path


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fetch_with_retries(url: str, partial: Path) -> None:
    """Fetch until complete; an attempt resumes at the last byte of the one before."""
    failures = 0
    while failures < ATTEMPTS:
        before = _size(partial)
        try:
            return _fetch(url, partial)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise ConnectionError(f"{url}: the server answers {error.code} {error.reason}") from error
            partial.unlink(missing_ok=True)  # 416: the partial file is longer than the server's; start again
        except urllib.error.URLError as error:
            raise ConnectionError(f"{url}: {error.reason}") from error
        except (ConnectionError, TimeoutError, http.client.HTTPException):
            pass  # the connection failed during the transfer
        except OSError as error:
            raise artifacts.cannot_write(partial, error, "KD_DATA") from error
        failures = 0 if _size(partial) > before else failures + 1
    raise ConnectionError(f"{url}: failed {ATTEMPTS} times without a new byte")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch(url: str, partial: Path) -> None:
    have = _size(partial)
    request = urllib.request.Request(url, headers={"User-Agent": "kdhelpers"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        resumed = response.status == 206
        have = have if resumed else 0  # a server that ignores the range sends the whole file
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            open(partial, "ab" if resumed else "wb") as file,
            progress_bar(total=total, initial=have, unit="B", unit_scale=True, desc=partial.stem) as bar,
        ):
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())  # before it is renamed: a power cut must not leave an empty file under its name
        if total is not None and _size(partial) < total:
            raise ConnectionError("the connection ended early")


def unpack(archive: Path, root: Path) -> None:
    """Unpack a tar archive's top-level folders into `root`, each atomically; one process at a time does so.

    Raises ValueError for a damaged archive or a member outside it, FileExistsError for a folder that exists, and
    OSError with the remedy.
    """
    artifacts.check_file(archive)
    temporary = root / f".unpack-{archive.name}"
    shutil.rmtree(temporary, ignore_errors=True)  # a kill may have left it
    try:
        _extract_all(archive, temporary)
        for entry in temporary.iterdir():
            if (root / entry.name).exists():
                raise FileExistsError(f"{root / entry.name} exists, but {archive.name} contains it; move it away")
            os.replace(entry, root / entry.name)
    except (tarfile.TarError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError) as error:
        reason = short(error, 200)
        raise ValueError(f"{archive}: was not unpacked ({reason}); delete it and download it again") from error
    except OSError as error:
        if error.errno is None:  # it has a text for the user already
            raise
        raise artifacts.cannot_write(root, error, "KD_DATA") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract_all(archive: Path, folder: Path) -> None:
    folder.mkdir()
    try:
        with tarfile.open(archive) as file:
            for member in file:
                _extract(file, member, folder)
    except OSError as error:
        if error.errno is None:  # of a damaged compression
            raise tarfile.ReadError(str(error)) from error
        raise


def _extract(file: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    """Write one member below `root`. Raises ValueError for links, devices, names that lead outside, and sparse files,
    of which an archive of a kilobyte may declare terabytes.

    tarfile's filter="data" needs Python 3.11.4.
    """
    parts = PurePosixPath(member.name).parts
    if member.isdir():
        return
    leads_out = member.name.startswith(("/", "\\")) or ".." in parts or ":" in member.name
    too_long = max(map(len, map(os.fsencode, parts)), default=0) > LONGEST
    if not member.isfile() or member.issparse() or leads_out or too_long:
        raise ValueError(f"its member {short(member.name)} is not a plain file inside it")
    path = root.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with file.extractfile(member) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)
