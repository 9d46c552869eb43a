"""`python -m benchmarks gpu check|real`: the arguments, the sections of each command, the table at the end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import gpu
from benchmarks.gpu.correct import correct
from benchmarks.gpu.epochs import epochs
from benchmarks.gpu.machine import machine
from benchmarks.gpu.nosync import nosync
from benchmarks.gpu.overhead import overhead
from benchmarks.gpu.real import Real
from benchmarks.gpu.report import report, text
from benchmarks.gpu.robust import fp16, resume
from benchmarks.gpu.session import Section, Session, keep_artifacts_in
from benchmarks.gpu.toggles import toggles
from kdhelpers.device import pick_device

CHECK = (
    Section("machine", 8, machine),
    Section("correct", 25, correct),
    Section("nosync", 15, nosync),
    Section("fp16", 10, fp16),
    Section("resume", 10, resume),
    Section("epochs", 55, epochs),
    Section("overhead", 15, overhead),
    Section("toggles", 10, toggles),
    Section("report", 5, report, repeated=True),
)


def main(argv: Sequence[str]) -> int:
    """1 if a section failed or a goal is missed."""
    parser, arguments = parse(argv)
    try:
        device = pick_device(arguments.device)
    except (ValueError, RuntimeError) as error:
        parser.error(f"--device = {arguments.device}: {str(error).splitlines()[0]}")
    torch.set_num_threads(arguments.threads)
    session = Session(arguments.command, device, arguments.seconds, arguments.out, arguments.state)
    keep_artifacts_in(session.work / "artifacts")
    sections = CHECK if arguments.command == "check" else Real(session, arguments).sections()
    _check_names(parser, sections, [*arguments.only, *arguments.skip])
    session.run(sections, arguments.only, arguments.skip)
    print(text(session))
    return int(bool(session.failed) or any(line["met"] is False for line in session.rows()))


def _check_names(parser: argparse.ArgumentParser, sections: Sequence[Section], names: Sequence[str]) -> None:
    known = [section.name for section in sections]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"section = {unknown[0]}: unknown; known: {', '.join(known)}")


def parse(argv: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu", description=gpu.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="what is right and what is fast on the device")
    real = commands.add_parser("real", help="train published runs until a deadline")
    for command, seconds in ((check, 150), (real, 545)):
        command.add_argument("--out", type=Path, default=Path("gpu_out"), help="folder of results (default gpu_out)")
        command.add_argument("--state", type=Path, help="folder of artifacts and of what finished (default: OUT)")
        command.add_argument("--seconds", type=float, default=seconds, help=f"time of all sections (default {seconds})")
        command.add_argument("--device", help="cuda, mps or cpu (default: the GPU if there is one)")
        command.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
        command.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these sections alone")
        command.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="all sections except these")
    real.add_argument("--dataset", default="cifar100", help="data set (default cifar100)")
    real.add_argument("--epochs", type=int, default=240, help="of every run (default 240)")
    real.add_argument("--unpack", metavar="COMMAND", help="shell command that makes the data, run in the background")
    return parser, parser.parse_args(argv)
