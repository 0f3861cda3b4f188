"""``adapt`` and ``demo``: runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acclimate.cli.arguments import RECIPE_USAGE, recipe_arguments, recipe_of, run_arguments
from acclimate.cli.command import Command

if TYPE_CHECKING:
    from acclimate.run import Run

_GO_ON = "the same command goes on from the last checkpoint"


def _adapt_arguments(parser: ArgumentParser) -> None:
    run_arguments(parser)
    recipe_arguments(parser)


def _adapt(args: Namespace) -> dict[str, Any] | None:
    recipe = recipe_of(args)
    from acclimate.pipeline import adapt

    run = adapt(recipe, args.out, args.reuse)
    return _outcome(run) if args.json else None


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="choices over recipe demo")
    run_arguments(parser, Path("runs") / "demo")


def _demo(args: Namespace) -> dict[str, Any] | None:
    from acclimate.demo import demo

    run = demo(args.out, args.overrides, args.reuse)
    return _outcome(run) if args.json else None


def _outcome(run: Run) -> dict[str, Any]:
    return {"run": str(run.folder), "model": str(run.best), "stages": run.results}


_OUTPUT = ("quiet", "json")

COMMANDS = (
    Command(
        "adapt", "adapt a model to a domain without labels", _adapt_arguments, _adapt, _GO_ON,
        f"{RECIPE_USAGE} --out RUN", _OUTPUT,
    ),
    Command(
        "demo", "run every stage on the built-in benchmark, in minutes", _demo_arguments, _demo, _GO_ON, output=_OUTPUT
    ),
)  # fmt: skip
