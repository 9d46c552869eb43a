"""What is installed: requirements.lock fits the requirements. What connects: nothing, in the main commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[1]
LOCKED = dict(
    re.findall(r"^([a-z0-9.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", (CHECKOUT / "requirements.lock").read_text(), re.M)
)
DIRECT = [
    (path.name, Requirement(line.strip()))
    for path in sorted(CHECKOUT.glob("requirements*.txt"))
    for line in path.read_text().splitlines()
    if line.strip() and not line.startswith(("#", "-r"))
]


def test_each_line_of_the_lock_has_a_version_and_a_hash():
    lines = [line for line in (CHECKOUT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(LOCKED) > 100
    assert "CPython 3.11 of Linux x86_64" in (CHECKOUT / "requirements.lock").read_text().splitlines()[0]
    assert [name for name in LOCKED if name != canonicalize_name(name)] == []
    assert {"pip", "kdhelpers"} & LOCKED.keys() == set()


@pytest.mark.parametrize(("file", "needed"), DIRECT, ids=lambda part: str(part))
def test_the_lock_satisfies_each_range(file: str, needed: Requirement):
    version = LOCKED.get(canonicalize_name(needed.name))
    assert version, f"{file} needs {needed}, which requirements.lock lacks: run `make lock`"
    assert needed.specifier.contains(version, prereleases=True), f"{needed}: locked is {version}; run `make lock`"


def test_the_lock_has_what_its_packages_need():
    """pip installs it with --no-deps. Packages of another version than the locked one are left out here."""
    extras = {canonicalize_name(needed.name): needed.extras for _, needed in DIRECT}
    lacking = []
    for name, version in LOCKED.items():
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        if installed.version != version:
            continue
        for needed in map(Requirement, installed.requires or ()):
            chosen = ["", *extras.get(name, ())]
            if not needed.marker or any(needed.marker.evaluate({"extra": extra}) for extra in chosen):
                locked = LOCKED.get(canonicalize_name(needed.name))
                if not (locked and needed.specifier.contains(locked, prereleases=True)):
                    lacking.append(f"{name} needs {needed}")
    assert lacking == []


# --- no network unless asked ------------------------------------------------------------------------------------------

GUARD = """
import os, socket

def refuse(address):
    with open(os.environ["CONNECTIONS"], "a") as file:
        file.write(f"{address}\\n")
    raise OSError(f"this test has no network: {address}")

def guarded(original):
    def connect(self, address):
        local = not isinstance(address, tuple) or address[0].startswith("127.") or address[0] in ("::1", "localhost")
        return original(self, address) if local else refuse(address)
    return connect

def getaddrinfo(host, *rest, original=socket.getaddrinfo, **options):
    local = host in (None, "", "localhost", "::1", socket.gethostname()) or str(host).startswith(("127.", "0.0.0.0"))
    return original(host, *rest, **options) if local else refuse(host)

socket.socket.connect = guarded(socket.socket.connect)
socket.socket.connect_ex = guarded(socket.socket.connect_ex)
socket.getaddrinfo = getaddrinfo
"""
COMMANDS = """
import os, sys
from kdhelpers.cli.commands import main

def run(*arguments):
    print("#", *arguments, flush=True)
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)

if __name__ == "__main__":
    run("--help")
    run("suite", "--help")
    run("list")
    run("list", "runs")
    run("train", "dataset=digits", "model=resnet8", "role=teacher", "epochs=1", "augmentation=crop=2")
    run("export", "teacher_resnet8_digits")
    run("report")
    run("suite", "--profile", sys.argv[1], "--workers", "1")
"""


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python processes connect to this machine only, and write down each other attempt."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    path = os.pathsep.join([str(tmp_path / "guard"), str(CHECKOUT)])
    own = {"PYTHONPATH": path, "KD_ROOT": str(tmp_path / "root"), "CONNECTIONS": str(tmp_path / "connections")}
    return {name: text for name, text in os.environ.items() if name != "KD_DATA"} | own


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=850, check=False)


def test_the_guard_sees_a_connection(guarded: dict[str, str]):
    code = "import urllib.request; urllib.request.urlopen('http://example.com')"
    ended = python(guarded, "-c", code)
    assert "this test has no network: example.com" in ended.stderr
    assert Path(guarded["CONNECTIONS"]).read_text() == "example.com\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_main_commands_connect_to_nothing(guarded: dict[str, str], tmp_path: Path):
    parameters = "{dataset: digits, student: resnet8, epochs: 1, augmentation: crop=2}"
    (tmp_path / "one.yaml").write_text(f"- {{name: one, notebook: 02_independent_student, parameters: {parameters}}}\n")
    (tmp_path / "commands.py").write_text(COMMANDS)
    ended = python(guarded, str(tmp_path / "commands.py"), str(tmp_path / "one.yaml"))
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert "one: done" in ended.stdout
    root = tmp_path / "root"
    for made in ("plots/index.html", "plots/notebooks/one.html", "pth_models/teacher_resnet8_digits.pth"):
        assert (root / made).is_file()
    assert list((root / "pth_models" / "exports").iterdir())
    assert not Path(guarded["CONNECTIONS"]).exists()
