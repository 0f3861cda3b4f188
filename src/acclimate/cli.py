"""The command line. Parsing needs the standard library alone; a command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acclimate import __version__
from acclimate.errors import UserError
from acclimate.interrupts import Terminated, terminable
from acclimate.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

    from acclimate.check import Findings
    from acclimate.prediction import Model
    from acclimate.recipe import Recipe

LAYOUTS = ("folder", "gta5", "synthia", "cityscapes", "camvid")
_ROLES = {
    "source": "labelled images to learn from",
    "target": "unlabelled images to adapt to; labels of theirs are never opened",
    "val": "labelled target images, to measure with and for nothing else",
    "ceiling": "labelled target images for the reference model that target labels would give",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for wrong input, 130 after Ctrl-C, 143 after SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of few letters is no reason to end a run
    words = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS[_top_parser().parse_args(words[:1] or ["--help"]).command]
    args = command.parser().parse_intermixed_args(words[1:])
    try:
        with terminable(), _log_on_stderr(), _main_process_talks():
            command.run(args)
    except UserError as error:
        if not error.told:
            print(f"acclimate: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read along, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a folder that vanished or may not be written, a full disk
        if error.filename is None:
            raise
        print(f"acclimate: {printable(_of_system(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as request:
        ended = isinstance(request, Terminated)
        print(f"\nacclimate: {'terminated' if ended else 'interrupted'}; {command.after_interrupt}", file=sys.stderr)
        return 143 if ended else 130
    return 0


def _of_system(error: OSError) -> str:
    """The system's refusal as a message; a temporary file goes by the name of the file that it was to become."""
    path = Path(os.fsdecode(error.filename))
    name = re.sub(r"^\.(.+)\.\d+\.tmp$", r"\1", path.name)
    return f"{path.with_name(name) if name else path}: {error.strerror}; see to that, then call the command again"


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what modules report, such as which tensors of a file of weights matched."""
    log, handler = logging.getLogger("acclimate"), logging.StreamHandler()
    handler.setFormatter(_Plain())
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def _main_process_talks() -> Iterator[None]:
    """Of the processes that torchrun started, the first alone writes to standard output; all may report errors."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


class _Plain(logging.Formatter):
    """Names of files and tensors come from outside."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@dataclass(frozen=True)
class Command:
    """A verb of the command line: its arguments, and the function that does it."""

    name: str
    summary: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    after_interrupt: str = "nothing is lost, call it again"
    usage: str = ""
    """One line in place of all flags, where they are many."""

    def parser(self) -> ArgumentParser:
        """The parser of what follows the verb."""
        summary = f"{self.summary[0].upper()}{self.summary[1:]}."
        usage = f"acclimate {self.name} {self.usage}" if self.usage else None
        parser = ArgumentParser(f"acclimate {self.name}", usage, summary, allow_abbrev=False)
        self.arguments(parser)
        return parser


def _top_parser() -> ArgumentParser:
    listing = "\n".join(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    parser = ArgumentParser(
        "acclimate",
        usage="acclimate COMMAND ...",
        description="Unsupervised domain adaptation for semantic segmentation.",
        epilog=f"commands:\n{listing}\n\nacclimate COMMAND --help tells more about one of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"acclimate {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _recipe_arguments(parser: ArgumentParser) -> None:
    """Recipe, overrides, and flags that stand for overrides: a flag's ``dest`` is the recipe's key."""
    parser.add_argument(
        "words", nargs="*", metavar="RECIPE | key=value",
        help="built-in recipe or YAML file (default: laptop), and choices over it such as selflabel.iterations=500",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="start of all randomness")
    data = parser.add_argument_group("data")
    for role, meaning in _ROLES.items():
        data.add_argument(f"--{role}", dest=f"data.{role}.path", metavar="DIR", help=meaning)
    data.add_argument("--labels", metavar="MAP.yaml", help="own label map of the source; its names are the classes")
    data.add_argument("--classes", dest="data.classes", metavar="SPACE", help="built-in label space, or a label map")
    files = parser.add_argument_group(
        "how the files of a set lie",
        f"LAYOUT: {', '.join(LAYOUTS)}; default: a plain folder of images. SPLIT: train, val, … of a known layout. "
        "LABELS: folder of the label files, or a template such as gt/{name}_id.png. "
        "IDS: what raw label values mean: cityscapes, cityscapes-train, cityscapes-colours, gta5, synthia, camvid, "
        "camvid32, train, or a label map.",
    )
    for role in _ROLES:
        for field in ("layout", "split") if role == "target" else ("layout", "split", "labels", "ids"):
            allowed = LAYOUTS if field == "layout" else None
            files.add_argument(f"--{role}-{field}", dest=f"data.{role}.{field}", choices=allowed, metavar=field.upper())


def _recipe(args: Namespace) -> Recipe:
    """The recipe that the words and flags of a command line describe."""
    from acclimate import recipe

    overrides = [word for word in args.words if "=" in word]
    names = [word for word in args.words if "=" not in word]
    if len(names) > 1:
        raise UserError(f"one recipe at a time, found {', '.join(names)}; overrides are written key=value")
    flags = {key: value for key, value in vars(args).items() if key.startswith("data.") and value is not None}
    if args.labels is not None:
        flags |= {"data.classes": args.labels, "data.source.ids": args.labels}
    if args.seed is not None:
        flags["seed"] = args.seed
    from_flags = [recipe.as_override(key, value) for key, value in flags.items()]
    return recipe.load(names[0] if names else "laptop", from_flags + overrides)


def _adapt_arguments(parser: ArgumentParser) -> None:
    _run_arguments(parser)
    _recipe_arguments(parser)


def _run_arguments(parser: ArgumentParser, out: Path | None = None) -> None:
    usual = f" (default: {out})" if out else ""
    parser.add_argument(
        "--out",
        type=Path,
        default=out,
        required=out is None,
        metavar="RUN",
        help=f"run folder; the run in it goes on{usual}",
    )
    parser.add_argument("--reuse", type=Path, metavar="RUN", help="take over finished stages that have the same inputs")


def _adapt(args: Namespace) -> None:
    recipe = _recipe(args)
    from acclimate.pipeline import adapt

    adapt(recipe, args.out, args.reuse)


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="choices over recipe demo")
    _run_arguments(parser, Path("runs") / "demo")


def _demo(args: Namespace) -> None:
    from acclimate.demo import demo

    demo(args.out, args.overrides, args.reuse)


def _check(args: Namespace) -> None:
    recipe = _recipe(args)
    from rich.console import Console

    from acclimate.check import check

    console = Console(highlight=False, markup=False, emoji=False)  # names come from outside
    findings = check(recipe, log=lambda text: console.print(text, style="dim"))
    console.print(_sets_table(findings), _classes_table(findings))
    for warning in findings.warnings:
        console.print(f"warning: {printable(warning)}", style="yellow", soft_wrap=True)
    console.print("No problems found.")


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


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or official .pkl")
    parser.add_argument("--data", dest="path", required=True, metavar="DIR", help="folder of the labelled images")
    parser.add_argument("--labels", default="", metavar="DIR", help="folder or template of the labels")
    parser.add_argument("--ids", default="", metavar="S", help="scheme or label map: meaning of the raw label values")
    parser.add_argument("--layout", default="folder", choices=LAYOUTS)
    parser.add_argument("--split", default="", help="train, val, …")
    parser.add_argument("--json", action="store_true", help="print all scores as JSON")
    _look_arguments(parser)


def _evaluate(args: Namespace) -> None:
    from rich.console import Console

    from acclimate.distributed import processes
    from acclimate.evaluation import score_table
    from acclimate.recipe import Folder

    data = Folder(args.path, args.layout, args.split, args.labels, args.ids)
    with processes(args.device):
        scores = _model(args).evaluate(data)
    if args.json:
        print(json.dumps(scores.to_dict(), indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False, emoji=False)  # names come from outside
    console.print(score_table({printable(Path(args.model).name): scores}))
    console.print(f"{scores.images} images, {100 * scores.accuracy:.1f} % of the pixels are right")


def _predict_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or official .pkl")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="images, or folders of images")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the masks go")
    parser.add_argument("--overlay", action="store_true", help="write the tinted photos as well")
    parser.add_argument("--overwrite", action="store_true", help="replace masks that exist")
    parser.add_argument(
        "--cityscapes-server", action="store_true",
        help="write what the Cityscapes test server takes; IMAGES is the data set's root or the folder of a split",
    )  # fmt: skip
    _look_arguments(parser)


def _predict(args: Namespace) -> None:
    from acclimate.distributed import processes
    from acclimate.prediction import predict_files

    if args.cityscapes_server:
        _predict_for_server(args)
        return
    with processes(args.device):
        masks = predict_files(_model(args), args.images, args.out, args.overlay, args.overwrite)
    print(f"{len(masks)} mask{'s' * (len(masks) > 1)} in {printable(args.out)}")


def _predict_for_server(args: Namespace) -> None:
    from acclimate.distributed import processes
    from acclimate.server import TEST_IMAGES, write_server_files

    if len(args.images) > 1 or args.overlay:
        raise UserError("--cityscapes-server takes one folder and writes no overlays; leave out the rest")
    with processes(args.device):
        files = write_server_files(_model(args), args.images[0], args.out, args.overwrite)
    print(f"{len(files)} file{'s' * (len(files) > 1)} in {printable(args.out)}")
    if len(files) != TEST_IMAGES:
        print(f"note: the server wants all {TEST_IMAGES} test images", file=sys.stderr)


def _look_arguments(parser: ArgumentParser) -> None:
    """How a model looks at images; by default as in training, once."""
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda, cuda:1, mps")
    looks = parser.add_argument_group("how the model looks at images", "Probabilities of all looks are averaged.")
    looks.add_argument(
        "--width", type=int, metavar="N", help="pixels, to which images are scaled (default: the model's)"
    )
    looks.add_argument("--scales", type=_scales, default=(1.0,), metavar="S,S,…", help="factors on it: 0.75,1,1.25")
    looks.add_argument("--flip", action="store_true", help="at the mirrored image as well")
    looks.add_argument("--window", type=_window, metavar="HxW", help="through overlapping windows of so many pixels")


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(scale) for scale in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.75,1,1.25, found {text!r}") from None


def _window(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"expected HEIGHT x WIDTH such as 512x1024, found {text!r}")
    return int(sides[0]), int(sides[1])


def _model(args: Namespace) -> Model:
    from acclimate.inference import Inference
    from acclimate.prediction import load

    return load(args.model, args.device, args.width, Inference(args.scales, args.flip, args.window))


def _convert_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN", help="official checkpoint, or .safetensors file of a run")
    parser.add_argument("target", type=Path, metavar="OUT", help="*.safetensors, or *.pkl for the official layout")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def _convert(args: Namespace) -> None:
    from acclimate.networks.convert import convert

    report = convert(args.source, args.target, args.overwrite)
    print(printable(f"{args.source}: {report}\n{args.target} written"))


def _recipes_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this recipe")


def _recipes(args: Namespace) -> None:
    from acclimate import recipe

    if args.name:
        print(recipe.read(args.name)[0], end="")
        return
    widest = max(map(len, recipe.names()))
    for name in recipe.names():
        first = recipe.read(name)[0].partition("\n")[0]
        print(f"{name:<{widest}} {first.lstrip('# ')}")


_GO_ON = "the same command goes on from the last checkpoint"

_RECIPE_USAGE = "[RECIPE] [key=value ...] --source DIR --target DIR [option ...]"

COMMANDS = {
    command.name: command
    for command in (
        Command("adapt", "adapt a model to a domain without labels", _adapt_arguments, _adapt, _GO_ON,
                f"{_RECIPE_USAGE} --out RUN"),
        Command("demo", "run every stage on the built-in benchmark, in minutes", _demo_arguments, _demo, _GO_ON),
        Command("check", "say what is wrong with data or recipe before hours are spent", _recipe_arguments, _check,
                usage=_RECIPE_USAGE),
        Command("evaluate", "measure a model on labelled images", _evaluate_arguments, _evaluate),
        Command("predict", "write masks for images", _predict_arguments, _predict,
                "finished masks are in place, --overwrite does all anew"),
        Command("convert", "turn an official CPSL or ProDA checkpoint into a model file, or back", _convert_arguments,
                _convert),
        Command("recipes", "list the built-in recipes, or print one", _recipes_arguments, _recipes),
    )
}  # fmt: skip
