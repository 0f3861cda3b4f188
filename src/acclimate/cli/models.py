"""``evaluate``, ``predict``, ``export`` and ``convert``: models in use."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from acclimate.cli.arguments import LAYOUTS, look_arguments, model_of
from acclimate.cli.command import Command
from acclimate.errors import UserError
from acclimate.printable import printable


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or official .pkl")
    parser.add_argument("--data", dest="path", required=True, metavar="DIR", help="folder of the labelled images")
    parser.add_argument("--labels", default="", metavar="DIR", help="folder or template of the labels")
    parser.add_argument("--ids", default="", metavar="S", help="scheme or label map: meaning of the raw label values")
    parser.add_argument("--layout", default="folder", choices=LAYOUTS)
    parser.add_argument("--split", default="", help="train, val, …")
    look_arguments(parser)


def _evaluate(args: Namespace) -> dict[str, Any]:
    from acclimate.distributed import processes
    from acclimate.evaluation import score_table
    from acclimate.progress import console, print_table
    from acclimate.recipe import Folder

    data = Folder(args.path, args.layout, args.split, args.labels, args.ids)
    with processes(args.device):
        scores = model_of(args).evaluate(data)
    out = console()
    print_table(out, score_table({printable(Path(args.model).name): scores}))
    out.print(f"{scores.images} images, {100 * scores.accuracy:.1f} % of the pixels are right")
    return scores.to_dict()


def _predict_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or official .pkl")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="images, folders, or patterns such as 'photos/**/*.jpg'"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where the masks go")
    parser.add_argument("--overlay", action="store_true", help="write the tinted photos as well")
    parser.add_argument("--probabilities", action="store_true", help="write those of all classes as well, as .npz")
    parser.add_argument("--overwrite", action="store_true", help="make masks anew that are there already")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images of one size at once (default: 1)")
    parser.add_argument(
        "--cityscapes-server", action="store_true",
        help="write what the Cityscapes test server takes; IMAGES is the data set's root or the folder of a split",
    )  # fmt: skip
    look_arguments(parser)


def _predict(args: Namespace) -> dict[str, Any]:
    from acclimate.distributed import processes
    from acclimate.prediction import predict_files

    if args.cityscapes_server:
        return _predict_for_server(args)
    with processes(args.device):
        masks = predict_files(
            model_of(args), args.images, args.out, args.overlay, args.overwrite, args.probabilities, args.batch
        )
    print(f"{len(masks)} mask{'s' * (len(masks) > 1)} in {printable(args.out)}")
    return {"out": args.out, "masks": [str(mask) for mask in masks]}


def _predict_for_server(args: Namespace) -> dict[str, Any]:
    from acclimate.distributed import processes
    from acclimate.server import TEST_IMAGES, write_server_files

    if len(args.images) > 1 or args.overlay or args.probabilities:
        raise UserError("--cityscapes-server takes one folder and writes label ids alone; leave out the rest")
    with processes(args.device):
        files = write_server_files(model_of(args), args.images[0], args.out, args.overwrite, args.batch)
    print(f"{len(files)} file{'s' * (len(files) > 1)} in {printable(args.out)}")
    if len(files) != TEST_IMAGES:
        print(f"note: the server wants all {TEST_IMAGES} test images", file=sys.stderr)
    return {"out": args.out, "masks": [str(file) for file in files]}


def _export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder, .safetensors file or official .pkl")
    parser.add_argument("out", type=Path, metavar="OUT", help="*.onnx, or *.pt2 for torch.export")
    parser.add_argument(
        "--images", type=Path, metavar="DIR",
        help="photos on which OUT must agree with the model (default: the run's target images)",
    )  # fmt: skip
    parser.add_argument(
        "--width", type=int, metavar="N", help="pixels, to which images will be scaled for it (default: the model's)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def _export(args: Namespace) -> dict[str, Any]:
    from acclimate.exporting import export

    parity = export(args.model, args.out, args.images, args.width, args.overwrite)
    print(printable(f"checked on {parity.images} images: {parity}\n{args.out} written"))
    return {"out": str(args.out), **parity._asdict()}


def _convert_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN", help="official checkpoint, or .safetensors file of a run")
    parser.add_argument("target", type=Path, metavar="OUT", help="*.safetensors, or *.pkl for the official layout")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def _convert(args: Namespace) -> None:
    from acclimate.networks.convert import convert

    report = convert(args.source, args.target, args.overwrite)
    print(printable(f"{args.source}: {report}\n{args.target} written"))


_OUTPUT = ("quiet", "json")

COMMANDS = (
    Command("evaluate", "measure a model on labelled images", _evaluate_arguments, _evaluate, output=_OUTPUT),
    Command(
        "predict",
        "write masks for images",
        _predict_arguments,
        _predict,
        "finished masks are in place, the same command goes on with the others",
        output=_OUTPUT,
    ),
    Command(
        "export",
        "write a model as ONNX or torch.export program, for use without Acclimate",
        _export_arguments,
        _export,
        output=_OUTPUT,
    ),
    Command(
        "convert",
        "turn an official CPSL or ProDA checkpoint into a model file, or back",
        _convert_arguments,
        _convert,
    ),
)
