"""Write requirements.lock: the packages of this environment that the requirements need, with the hashes of their files.

`make lock` calls it after the tests have passed. pip itself looks the files up; nothing is installed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
HEAD = """\
# The tested set: the tests passed with these files, on CPython {python} of {system} {machine}.
# It is for that platform alone; others take the ranges of requirements*.txt.
# Install:  python -m pip install --require-hashes --no-deps -r requirements.lock
# Written by `make lock`.
"""


def installed() -> str:
    """The versions of this environment, as constraints."""
    packages = json.loads(subprocess.check_output([*PIP, "list", "--format=json", "--exclude-editable"]))
    return "".join(f"{package['name']}=={package['version']}\n" for package in packages if package["name"] != "pip")


def report() -> dict:
    """What pip would install into an empty environment, held to the installed versions."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, path = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        constraints.write_text(installed())
        files = [word for file in sorted(ROOT.glob("requirements*.txt")) for word in ("-r", str(file))]
        dry = ["install", "--dry-run", "--ignore-installed", "--report", str(path), "-c", str(constraints)]
        subprocess.run([*PIP, *dry, *files], check=True)
        return json.loads(path.read_text())


def lock_text(report: dict) -> str:
    """A line per package: its version and the SHA-256 of its file."""
    here = report["environment"]
    head = HEAD.format(python=here["python_version"], system=here["platform_system"], machine=here["platform_machine"])
    lines = []
    for package in report["install"]:
        name, version = package["metadata"]["name"].lower().replace("_", "-"), package["metadata"]["version"]
        lines.append(
            f"{name}=={version} --hash=sha256:{package['download_info']['archive_info']['hashes']['sha256']}\n"
        )
    return head + "".join(sorted(lines))


if __name__ == "__main__":
    LOCK.write_text(lock_text(report()))
    print(f"{LOCK.name}: {LOCK.read_text().count('--hash')} packages")
