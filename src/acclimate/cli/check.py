"""``check``: what is wrong with data or recipe."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from acclimate.cli.arguments import RECIPE_USAGE, recipe_arguments, recipe_of
from acclimate.cli.command import Command
from acclimate.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

    from acclimate.check import Findings


def _check(args: Namespace) -> dict[str, Any]:
    recipe = recipe_of(args)
    from rich.console import Console

    from acclimate.check import check
    from acclimate.progress import console, print_table

    out = console()
    findings = check(recipe, log=lambda text: out.print(text, style="dim"))
    print_table(out, _sets_table(findings))
    print_table(out, _classes_table(findings))
    aside = Console(stderr=True, highlight=False, markup=False, emoji=False)
    for warning in findings.warnings:
        aside.print(f"warning: {printable(warning)}", style="yellow", soft_wrap=True)
    out.print("No problems found.")
    return _facts(findings)


def _facts(findings: Findings) -> dict[str, Any]:
    names = findings.space.classes
    sets = {}
    for found in findings.sets:
        facts = asdict(found)
        shares = facts.pop("frequency_K")
        sets[facts.pop("role")] = facts | {"frequency": shares and dict(zip(names, shares, strict=True))}
    return {"classes": names, "sets": sets, "warnings": findings.warnings, "unreadable": findings.unreadable}


def _sets_table(findings: Findings) -> Table:
    from rich.table import Table

    table = Table("set", "images", "read", "smallest (w x h)", "largest (w x h)", "ignored pixels")
    for found in findings.sets:
        smallest, largest = (f"{w} x {h}" for h, w in (found.smallest_hw, found.largest_hw))
        ignored = "" if found.ignored is None else f"{100 * found.ignored:.1f} %"
        table.add_row(found.role, str(found.images), str(found.decoded), smallest, largest, ignored)
    return table


def _classes_table(findings: Findings) -> Table:
    from rich.table import Table

    labelled = [found for found in findings.sets if found.frequency_K is not None]
    table = Table("share of the labelled pixels, %", *(found.role for found in labelled))
    for number, name in enumerate(findings.space.classes):
        table.add_row(name, *(f"{100 * found.frequency_K[number]:.2f}" for found in labelled if found.frequency_K))
    return table


COMMANDS = (
    Command(
        "check",
        "say what is wrong with data or recipe before hours are spent",
        recipe_arguments,
        _check,
        usage=RECIPE_USAGE,
        output=("quiet", "json"),
    ),
)
