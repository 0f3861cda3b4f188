"""From an image to label ids: the one path that evaluation, prediction and pseudo labels share.

An image is brought to the network's width, shown to it, and the answer is stretched over the original image by the
rule of the network's `Grid`. Where cells cover whole strides, the image is first padded, on the right and at the
bottom, to whole cells, so that they lie on the same pixels in the mirrored image. Where the outermost cells lie on the
outermost pixels, the image is shown as it is: its mirrored image's cells are the same anyway.

`prepare` can be done ahead of the network, by threads; all that follows is queued on a GPU, without waiting for it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from acclimate.data.geometry import Grid, Size, enlarge, scaled_size
from acclimate.devices import upload
from acclimate.errors import UserError
from acclimate.networks.segmenter import SMALLEST, resize

if TYPE_CHECKING:
    from acclimate.networks import Segmenter


@dataclass(frozen=True)
class Inference:
    """How often a network looks at an image: by default once, at the whole of it.

    The class probabilities of all looks are averaged, with equal weights; where windows overlap, per pixel. Raises
    `UserError` for values that are no scales or too small a window.
    """

    scales: tuple[float, ...] = (1.0,)
    """Factors on the network's width."""
    flip: bool = False
    """Look at the mirrored image as well."""
    window: Size | None = None
    """Height and width in pixels of the scaled image: look through windows of this size, which overlap by a third."""

    def __post_init__(self) -> None:
        if not self.scales or not all(math.isfinite(scale) and scale > 0 for scale in self.scales):
            raise UserError(f"scales: expected numbers above 0 such as 0.75, 1, 1.25, found {self.scales}")
        if self.window is not None and min(self.window) < SMALLEST:
            height, width = self.window
            raise UserError(
                f"window: expected at least {SMALLEST}x{SMALLEST} pixels (height x width), found {height}x{width}"
            )

    @property
    def single(self) -> bool:
        """Whether one look is all: then there is nothing to average."""
        return len(self.scales) == 1 and not self.flip and self.window is None


ONE_LOOK = Inference()


class Shown(NamedTuple):
    """An image as a network is shown it."""

    size_hw: Size
    """Of the image itself."""
    scaled: tuple[np.ndarray, ...]
    """Uint8 HWC, for each scale of an `Inference`."""


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one, else the CPU.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        accelerators = (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
        return torch.device(next((kind for kind, there in accelerators if there), "cpu"))
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"device {name!r} cannot be used ({reason}); `auto` takes what there is") from None
    return device


def prepare(grid: Grid, image_HWC: np.ndarray, width: float, how: Inference = ONE_LOOK) -> Shown:
    """An RGB uint8 image brought to each of the sizes at which a network of that grid looks at it.

    Raises:
        UserError: an image of so extreme a shape that it would not fit into memory.
    """
    size_hw = image_HWC.shape[:2]
    return Shown(size_hw, tuple(_scaled(image_HWC, _shown_size(grid, size_hw, width * scale)) for scale in how.scales))


@torch.no_grad()
def cells(network: Segmenter, shown: Shown, flip: bool = False) -> tuple[Tensor, Tensor]:
    """Class probabilities K×h×w and features D×h×w (float32, on the network's device) in the network's cells.

    With ``flip`` the probabilities are averaged with those of the mirrored image.
    """
    (scaled_HWC,) = shown.scaled
    image_BCHW = batch_of(network, [scaled_HWC])
    with _evaluating(network):
        logits_BKhw, feat_BDhw = network(image_BCHW)
        prob_BKhw = logits_BKhw.float().softmax(1)
        if flip:
            mirrored_BKhw = network(image_BCHW.flip(-1))[0].float().softmax(1)
            prob_BKhw = (prob_BKhw + mirrored_BKhw.flip(-1)) / 2
    h, w = network.grid.cells(scaled_HWC.shape[:2])
    return prob_BKhw[0, :, :h, :w], feat_BDhw[0, :, :h, :w].float()


def scores(network: Segmenter, images: Sequence[Shown], how: Inference = ONE_LOOK) -> Iterator[Tensor]:
    """Scores K×H×W (float32, on the network's device) of images that were prepared for ``how``, in order.

    Each is of its image's own size. They are logits where ``how`` is a single look, else probabilities.
    """
    if how.single:
        return _logits(network, images)
    return (_mean_probabilities(network, shown, how) for shown in images)


def forward_image(network: Segmenter, image_HWC: np.ndarray, width: int, flip: bool = False) -> tuple[Tensor, Tensor]:
    """The `cells` of an RGB uint8 image scaled to ``width``."""
    return cells(network, prepare(network.grid, image_HWC, width), flip)


def forward_images(
    network: Segmenter, images: Sequence[np.ndarray], width: int, how: Inference = ONE_LOOK
) -> Iterator[Tensor]:
    """The `scores` of RGB uint8 images HWC."""
    return scores(network, [prepare(network.grid, image_HWC, width, how) for image_HWC in images], how)


def predict_labels(network: Segmenter, image_HWC: np.ndarray, width: int, how: Inference = ONE_LOOK) -> np.ndarray:
    """Label ids (uint8 HW, 0 … K-1) of an RGB uint8 image, at the image's size."""
    (scores_KHW,) = forward_images(network, [image_HWC], width, how)
    return likeliest(scores_KHW).cpu().numpy()


def likeliest(scores_KHW: Tensor) -> Tensor:
    """Label ids (uint8 HW) of the highest scores, on their device: read them where waiting for it does no harm."""
    return scores_KHW.max(0).indices.to(torch.uint8)  # on a CPU twice as fast as argmax


def stretch(maps_Khw: Tensor, scaled_hw: Size, grid: Grid, size_hw: Size) -> Tensor:
    """Maps K×H×W of ``size_hw``, bilinear, from maps on ``grid`` over the same image scaled to ``scaled_hw``.

    Between corners this is ``F.interpolate(…, align_corners=True)`` if both sizes are the same, as in the official
    evaluation; else a pixel takes the value at its centre's place in the scaled image.
    """
    maps_Khw = maps_Khw.contiguous()  # networks give channels last, which takes a CPU four times as long
    if grid.corners:
        return _stretch_between_corners(maps_Khw, scaled_hw, grid, size_hw)
    # The last cells may reach beyond the image: enlarge all of them by the exact factor, then cut. Rounding up a
    # hair keeps a factor that is whole in truth, such as 3 * (7 / 3), from losing its last pixel.
    factors = [grid.stride * size / scaled * (1 + 1e-9) for size, scaled in zip(size_hw, scaled_hw, strict=True)]
    enlarged = F.interpolate(maps_Khw[None], scale_factor=factors, mode="bilinear", align_corners=False)[0]
    return enlarged[:, : size_hw[0], : size_hw[1]]


def _stretch_between_corners(maps_Khw: Tensor, scaled_hw: Size, grid: Grid, size_hw: Size) -> Tensor:
    if scaled_hw == size_hw:
        return enlarge(maps_Khw[None], grid, size_hw)[0]
    places = []  # of the new pixels' centres among the cells: -1 the first, 1 the last
    for size, scaled, count in zip(size_hw, scaled_hw, maps_Khw.shape[1:], strict=True):
        centres = (torch.arange(size, device=maps_Khw.device) + 0.5) * (scaled / size)
        places.append(grid.index(centres, scaled) / max(count - 1, 1) * 2 - 1)
    points_HW2 = torch.stack(torch.meshgrid(places[1], places[0], indexing="xy"), dim=-1)
    return F.grid_sample(maps_Khw[None], points_HW2[None], "bilinear", padding_mode="border", align_corners=True)[0]


@torch.no_grad()
def _logits(network: Segmenter, images: Sequence[Shown]) -> Iterator[Tensor]:
    """Logits K×H×W of images; neighbours of equal scaled size go through the network together."""
    for scaled_hw, alike in groupby(images, key=lambda shown: shown.scaled[0].shape[:2]):
        group = list(alike)
        logits_BKhw = _look(network, [shown.scaled[0] for shown in group])
        for shown, logits_Khw in zip(group, logits_BKhw, strict=True):
            yield stretch(logits_Khw, scaled_hw, network.grid, shown.size_hw)


@torch.no_grad()
def _mean_probabilities(network: Segmenter, shown: Shown, how: Inference) -> Tensor:
    """Probabilities K×H×W, averaged over all looks; only their sum is kept."""
    sum_KHW = torch.zeros(network.num_classes, *shown.size_hw, device=_device(network))
    for scaled_HWC in shown.scaled:
        if how.window is None:
            sum_KHW += _probabilities(network, scaled_HWC, shown.size_hw, how.flip)
        else:
            sum_KHW += resize(_through_windows(network, scaled_HWC, how.window, how.flip)[None], shown.size_hw)[0]
    return sum_KHW.div_(len(how.scales))


def _through_windows(network: Segmenter, scaled_HWC: np.ndarray, window_hw: Size, flip: bool) -> Tensor:
    """Probabilities K×H×W of a scaled image, averaged where windows overlap."""
    height, width = scaled_HWC.shape[:2]
    sum_KHW = torch.zeros(network.num_classes, height, width, device=_device(network))
    count_HW = torch.zeros(height, width, device=_device(network))
    for top in window_starts(height, window_hw[0]):
        for left in window_starts(width, window_hw[1]):
            part = slice(top, top + window_hw[0]), slice(left, left + window_hw[1])
            piece_HWC = scaled_HWC[part]
            sum_KHW[:, *part] += _probabilities(network, piece_HWC, piece_HWC.shape[:2], flip)
            count_HW[part] += 1
    return sum_KHW.div_(count_HW)


def window_starts(length: int, window: int) -> list[int]:
    """Where windows begin along a side: each overlaps the next by a third or more, the last ends at the border."""
    last = max(length - window, 0)
    return [*range(0, last, math.ceil(window * 2 / 3)), last]


def _probabilities(network: Segmenter, scaled_HWC: np.ndarray, size_hw: Size, flip: bool) -> Tensor:
    """Probabilities K×H×W of ``size_hw`` from one scaled image and, with ``flip``, its mirrored image."""
    scaled_hw = scaled_HWC.shape[:2]
    prob_KHW = stretch(_look(network, [scaled_HWC])[0], scaled_hw, network.grid, size_hw).softmax(0)
    if flip:
        mirrored_Khw = _look(network, [scaled_HWC], mirrored=True)[0]
        prob_KHW.add_(stretch(mirrored_Khw, scaled_hw, network.grid, size_hw).softmax(0)).div_(2)
    return prob_KHW


def _look(network: Segmenter, scaled: Sequence[np.ndarray], mirrored: bool = False) -> Tensor:
    """Logits B×K×h×w (float32) of scaled images; with ``mirrored``, of their mirrored images and turned back."""
    image_BCHW = batch_of(network, scaled)
    with _evaluating(network):
        logits_BKhw = network(image_BCHW.flip(-1) if mirrored else image_BCHW)[0].float()
    return logits_BKhw.flip(-1) if mirrored else logits_BKhw


def _shown_size(grid: Grid, image_hw: Size, width: float) -> Size:
    """Size at which the network sees an image."""
    height, width = scaled_size(image_hw, width)
    # What padding adds to tiny images can be cut off again, unless cells hang on the corners.
    return (max(height, SMALLEST), max(width, SMALLEST)) if grid.corners else (height, width)


def _scaled(image_HWC: np.ndarray, scaled_hw: Size) -> np.ndarray:
    """The image at another size, uint8 HWC."""
    size = scaled_hw[1], scaled_hw[0]
    return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.BILINEAR))  # averages when it shrinks


def batch_of(network: Segmenter, scaled: Sequence[np.ndarray]) -> Tensor:
    """float32 BCHW in [0, 1], on the network's device, of uint8 HWC images of one size."""
    image_BHWC = np.stack(scaled)
    if not network.grid.corners:  # the last row and column repeated up to whole cells and the least size
        bottom, right = (-max(side, SMALLEST) % network.stride + max(side, SMALLEST) - side
                         for side in image_BHWC.shape[1:3])  # fmt: skip
        image_BHWC = np.pad(image_BHWC, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="edge")
    image, device = torch.from_numpy(image_BHWC), _device(network)
    # A GPU would else wait for all work before it and then for the copy.
    image = upload(image.pin_memory() if device.type == "cuda" else image, device)
    return image.permute(0, 3, 1, 2).float() / 255


def _device(network: Segmenter) -> torch.device:
    return next(network.parameters()).device


@contextmanager
def _evaluating(network: Segmenter) -> Generator[None]:
    """The network in eval mode, and afterwards in the mode it was in."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
