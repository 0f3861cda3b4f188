"""``report``: a page that shows what a run did."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from acclimate.cli.command import Command
from acclimate.printable import printable


def _report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folder; several are compared on one page"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the first run folder")
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda, cuda:1, mps")


def _report(args: Namespace) -> dict[str, Any]:
    from acclimate.report import write_report

    path = write_report(args.runs, args.out, args.device)
    print(f"{printable(str(path))} written, {path.stat().st_size / 1e6:.1f} MB")
    return {"report": str(path)}


COMMANDS = (
    Command("report", "write a page that shows what a run did, or compares several", _report_arguments, _report,
            output=("quiet", "json")),
)  # fmt: skip
