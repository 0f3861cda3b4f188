"""A model for use without Acclimate: an ONNX graph, or a program of ``torch.export``.

Both take RGB bytes of any size and do all that lies between these and labels. What they leave to the caller is to
bring an image to the width of the training; how wide that is stands in the file, with the classes and their colours.
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm.layers.padding
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate import __version__, recipe
from acclimate.data.datasets import open_images, read_image
from acclimate.data.geometry import enlarge
from acclimate.errors import UserError
from acclimate.files import atomic, expanded
from acclimate.inference import Shown, prepare, scores
from acclimate.networks import Segmenter
from acclimate.networks.segmenter import SMALLEST
from acclimate.prediction import Model, load

MOST_IMAGES = 20
"""On which the file is compared with the model; evenly spaced among those that there are."""
LEAST_AGREEMENT = 0.999
"""Share of their pixels with the same label; ties and rounding cost a few in a million."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
METADATA = "acclimate.json"
"""Extra file of a ``.pt2``."""

Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From uint8 B×H×W×3 to labels (uint8 B×H×W) and logits (float32 B×K×H×W)."""


class Parity(NamedTuple):
    """How well an exported file agrees with its model."""

    images: int
    difference: float
    """The greatest between two logits."""
    largest: float
    """The greatest magnitude of a logit, to compare the difference with."""
    agreement: float
    """Share of the pixels with the same label, 0 … 1."""

    def __str__(self) -> str:
        return (
            f"logits differ by at most {self.difference:.1e} (the largest is {self.largest:.3g}), "
            f"{100 * self.agreement:.4f} % of the labels are the same"
        )


class Deployed(nn.Module):
    """What is exported: all that `acclimate.inference` does around a network with an image of the network's width.

    Sides may be of any length from ``smallest`` on. They are filled up by looking rows and columns up, since lengths
    that are visibly whole multiples are what the exporter can follow through all levels of a network.
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval().lay_out(torch.contiguous_format)
        # From two cells of the coarsest level on: the exporter takes a side of one cell for a constant.
        self.smallest = max(SMALLEST, network.multiple + 1)

    def forward(self, image_BHW3: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (uint8 B×H×W) and logits (float32 B×K×H×W) of RGB images (uint8 B×H×W×3)."""
        network, (height, width) = self.network, image_BHW3.shape[1:3]
        rows, columns = (torch.arange(self._filled(side)) for side in (height, width))
        x = image_BHW3[:, rows.clamp(max=height - 1)][:, :, columns.clamp(max=width - 1)]
        x = (x.permute(0, 3, 1, 2).float() / 255 - network.mean) / network.std
        # Up to whole cells the last row and column are repeated; beyond them is the mean colour, which is zero.
        inside_HW = (rows < network.grid.reach(height))[:, None] & (columns < network.grid.reach(width))
        h, w = network.grid.cells((height, width))
        feat_BDhw = network.features(x * inside_HW)[..., :h, :w]
        logits_BKHW = self._enlarged(network.classify(network.drop(feat_BDhw)), height, width)
        return logits_BKHW.argmax(1).to(torch.uint8), logits_BKHW

    def _filled(self, side: int) -> int:
        multiple = self.network.multiple
        return (side + multiple - 1) // multiple * multiple

    def _enlarged(self, logits_BKhw: Tensor, height: int, width: int) -> Tensor:
        grid = self.network.grid
        if grid.corners:
            return enlarge(logits_BKhw, grid, (height, width))
        # `enlarge` would ask whether there is anything to cut, and the answer be taken for that to all sizes.
        enlarged = F.interpolate(logits_BKhw, scale_factor=float(grid.stride), mode="bilinear", align_corners=False)
        return enlarged[..., :height, :width]


def export(
    model: Model | str | Path,
    out: str | Path,
    images: str | Path | None = None,
    width: int | None = None,
    overwrite: bool = False,
) -> Parity:
    """Write a model as ``.onnx`` or ``.pt2``, after the file has shown that it does as the model does.

    Args:
        model: from `load`, or what `load` takes.
        out: the file.
        images: folder of photos to compare on; by default the target images of the run that ``model`` is.
        width: pixels, to which users of the file are told to scale images; by default the model's.
        overwrite: replace a file that exists.

    Raises:
        UserError: no such model or images, another suffix, a file that exists, packages that are not installed, a
            network that cannot be exported, or labels of which more than one in a thousand differs.
    """
    out = expanded(out)
    make = {".onnx": _onnx, ".pt2": _pt2}.get(out.suffix)
    if make is None:
        raise UserError(f"{out}: expected a name that ends in .onnx or .pt2")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists; choose another name or allow --overwrite")
    missing = [name for name in ONNX_PACKAGES if out.suffix == ".onnx" and find_spec(name) is None]
    if missing:
        raise UserError(f"{out}: needs {', '.join(missing)}; pip install 'acclimate[onnx]', or export to .pt2")
    files = _photos(model, images)
    loaded = model if isinstance(model, Model) else load(model, "cpu", width)
    deployed = Deployed(loaded.network)
    content, run = make(_program(deployed), description(loaded, width or loaded.width, deployed.smallest))
    parity = compare(loaded, deployed.network, run, files, width or loaded.width, deployed.smallest)
    if parity.agreement < LEAST_AGREEMENT:
        raise UserError(
            f"{out}: not written, because it would not do as the model does on {parity.images} images: {parity}; "
            "this is a defect, of Acclimate or of the exporter: please report it with the recipe's section `network`"
        )
    with atomic(out) as temporary:
        temporary.write_bytes(content)
    return parity


def description(model: Model, width: int, smallest: int) -> dict[str, Any]:
    """What the file says of itself."""
    network = model.network
    return {
        "classes": list(model.space.classes),
        "colours": [list(colour) for colour in model.space.colours],
        "width": width,
        "smallest": smallest,
        "input": "image: uint8 (batch, height, width, 3), RGB, scaled to `width` pixels with its height in proportion",
        "output": "labels: uint8 (batch, height, width), places in `classes`; "
        "logits: float32 (batch, class, height, width), before softmax",
        "inside": {
            "scale": 1 / 255,
            "mean": network.mean.flatten().tolist(),
            "std": network.std.flatten().tolist(),
            "pad_to": network.multiple,
        },
        "producer": f"acclimate {__version__}",
    }


@torch.no_grad()
def compare(
    model: Model, network: Segmenter, run: Runner, files: list[Path], width: int, smallest: int = SMALLEST
) -> Parity:
    """Run the exported file and the model on the same photos, each scaled to ``width``.

    Raises:
        UserError: a photo that cannot be read, or none that is large enough.
    """
    count, difference, largest, same, pixels = 0, 0.0, 0.0, 0, 0
    for file in files:
        (scaled_HWC,) = prepare(network.grid, read_image(file), width).scaled
        if min(scaled_HWC.shape[:2]) < smallest:
            continue
        (expected_KHW,) = (
            found.cpu().numpy() for found in scores(network, [Shown(scaled_HWC.shape[:2], (scaled_HWC,))])
        )
        labels_BHW, logits_BKHW = run(scaled_HWC[None])
        difference = max(difference, float(np.abs(logits_BKHW[0] - expected_KHW).max()))
        largest = max(largest, float(np.abs(expected_KHW).max()))
        same += int((labels_BHW[0] == expected_KHW.argmax(0)).sum())
        pixels += labels_BHW[0].size
        count += 1
    if not count:
        raise UserError(f"{files[0].parent}: no image has sides of {smallest} pixels at width {width}; give others")
    return Parity(count, difference, largest, same / pixels)


def _photos(model: Model | str | Path, images: str | Path | None) -> list[Path]:
    """The photos to compare on: those given, else those that the run adapted to."""
    if images is not None:
        found = open_images(recipe.Folder(str(images)), "target")
    else:
        known = None if isinstance(model, Model) else Path(model) / "recipe.yaml"
        if known is None or not known.is_file():
            raise UserError(
                f"{'the model' if known is None else model}: no run folder, so the images to check the exported file "
                "with are not known; give --images with a folder of photos"
            )
        try:
            found = open_images(recipe.load(known).data.target, "target")
        except UserError as error:
            raise UserError(
                f"the run's target images, to check the exported file with: {error}; or give --images with photos"
            ) from None
    count = min(MOST_IMAGES, len(found))
    return [found.samples[i * len(found) // count].image for i in range(count)]


def _program(deployed: Deployed) -> Any:
    """The network as a `torch.export.ExportedProgram` for all sizes of images and batches."""
    any_size = {0: torch.export.Dim("batch"), **{
        axis: torch.export.Dim(name, min=deployed.smallest) for axis, name in ((1, "height"), (2, "width"))
    }}  # fmt: skip
    multiple = max(deployed.network.multiple, SMALLEST)
    example = torch.zeros(2, 5 * multiple - multiple // 2 - 1, 7 * multiple - multiple // 3 - 3, 3, dtype=torch.uint8)
    with _export_errors(), _whole_cells():
        program = torch.export.export(
            deployed, (example,), dynamic_shapes=(any_size,), prefer_deferred_runtime_asserts_over_guards=True
        )
    return _without_asserts(program)


def _without_asserts(program: Any) -> Any:
    """Without what the exporter noted of the example's sizes, such as that a cut took something away.

    That decided how tensors lay in memory while it traced, and nothing that is computed: `compare` sees to it.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _onnx(program: Any, metadata: dict[str, Any]) -> tuple[bytes, Runner]:
    """The file's bytes, and what runs them."""
    import onnx
    import onnxruntime

    with _export_errors():
        exported = torch.onnx.export(
            program, (), input_names=["image"], output_names=["labels", "logits"], dynamo=True, verbose=False
        )
    assert exported is not None
    proto = exported.model_proto
    del proto.graph.value_info[:]  # sizes between, under names that nobody knows
    names: dict[str, str] = {}
    for value, axes in ((proto.graph.input[0], "batch height width"), (proto.graph.output[0], "batch height width"),
                        (proto.graph.output[1], "batch classes height width")):  # fmt: skip
        for size, axis in zip(value.type.tensor_type.shape.dim, axes.split(), strict=False):
            if size.dim_param:
                size.dim_param = names.setdefault(size.dim_param, axis)
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(proto, text)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(image_BHW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels_BHW, logits_BKHW = session.run(["labels", "logits"], {"image": image_BHW3})
        return np.asarray(labels_BHW), np.asarray(logits_BKHW)

    return content, run


def _pt2(program: Any, metadata: dict[str, Any]) -> tuple[bytes, Runner]:
    """The same for ``torch.export.load``."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
    content = file.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()

    def run(image_BHW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels_BHW, logits_BKHW = loaded(torch.tensor(image_BHW3))
        return labels_BHW.numpy(), logits_BKHW.numpy()

    return content, run


@contextmanager
def _whole_cells() -> Generator[None]:
    """Have timm's layers that pad "same" know that sides are whole multiples of their strides, as they are here.

    The padding is constant then; else it is an expression of the size that grows with each layer.
    """
    original = timm.layers.padding.get_same_padding
    timm.layers.padding.get_same_padding = lambda x, kernel_size, stride, dilation: max(
        (kernel_size - 1) * dilation + 1 - stride, 0
    )
    try:
        yield
    finally:
        timm.layers.padding.get_same_padding = original


@contextmanager
def _export_errors() -> Generator[None]:
    """Whatever the exporter cannot follow, in one line; and none of its own warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # there is no common class, and asserts are among them
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"PyTorch cannot export this network ({reason}); those of the recipes laptop and gta5-cityscapes it can"
        ) from error
