"""From an image to label ids: the one path that evaluation, prediction and pseudo labels share.

An image is brought to the network's width and padded, on the right and at the bottom, to whole cells of the
network's stride. So cell i covers the pixels [stride i, stride (i + 1)) of the scaled image, in the mirrored
image as well, and the logits are stretched over the original image by exactly that rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from acclimate.data.geometry import cells, scaled_size
from acclimate.errors import UserError
from acclimate.networks.segmenter import SMALLEST

if TYPE_CHECKING:
    from acclimate.networks import Segmenter


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


@torch.no_grad()
def forward_image(network: Segmenter, image_HWC: np.ndarray, width: int, flip: bool = False) -> tuple[Tensor, Tensor]:
    """Class probabilities K×h×w and features D×h×w (float32, on the network's device) of an RGB uint8 image.

    Both lie at the network's stride on the image scaled to ``width``. With ``flip`` the probabilities are
    averaged with those of the mirrored image.
    """
    height, width = scaled_size(image_HWC.shape[:2], width)
    image_BCHW = _batch([_padded(image_HWC, (height, width), network.stride)], network)
    with _evaluating(network):
        logits_BKhw, feat_BDhw = network(image_BCHW)
        prob_BKhw = logits_BKhw.float().softmax(1)
        if flip:
            mirrored_BKhw = network(image_BCHW.flip(-1))[0].float().softmax(1)
            prob_BKhw = (prob_BKhw + mirrored_BKhw.flip(-1)) / 2
    h, w = cells((height, width), network.stride)
    return prob_BKhw[0, :, :h, :w], feat_BDhw[0, :, :h, :w].float()


@torch.no_grad()
def forward_images(network: Segmenter, images: Sequence[np.ndarray], width: int) -> Iterator[Tensor]:
    """Logits K×H×W (float32, on the network's device) of RGB uint8 images HWC, each at its own size, in order.

    Neighbours of equal scaled size go through the network together.
    """
    for scaled_hw, alike in groupby(images, key=lambda image_HWC: scaled_size(image_HWC.shape[:2], width)):
        group = list(alike)
        with _evaluating(network):
            logits_BKhw = network(_batch([_padded(i, scaled_hw, network.stride) for i in group], network))[0]
        for image_HWC, logits_Khw in zip(group, logits_BKhw.float(), strict=True):
            yield stretch(logits_Khw, scaled_hw, network.stride, image_HWC.shape[:2])


def predict_labels(network: Segmenter, image_HWC: np.ndarray, width: int) -> np.ndarray:
    """Label ids (uint8 HW, 0 … K-1) of an RGB uint8 image, at the image's size."""
    (logits_KHW,) = forward_images(network, [image_HWC], width)
    return to_labels(logits_KHW)


def to_labels(scores_KHW: Tensor) -> np.ndarray:
    """Label ids (uint8 HW) of the highest scores."""
    return scores_KHW.max(0).indices.to(torch.uint8).cpu().numpy()  # on a CPU twice as fast as argmax


def stretch(maps_Khw: Tensor, scaled_hw: tuple[int, int], stride: int, size_hw: tuple[int, int]) -> Tensor:
    """Maps K×H×W of ``size_hw``, bilinear, from maps at ``stride`` on the same image scaled to ``scaled_hw``."""
    # The last cells may reach beyond the image: enlarge all of them by the exact factor, then cut. Rounding up a
    # hair keeps a factor that is whole in truth, such as 3 * (7 / 3), from losing its last pixel.
    factors = [stride * size / scaled * (1 + 1e-9) for size, scaled in zip(size_hw, scaled_hw, strict=True)]
    enlarged = F.interpolate(maps_Khw[None], scale_factor=factors, mode="bilinear", align_corners=False)[0]
    return enlarged[:, : size_hw[0], : size_hw[1]]


def _padded(image_HWC: np.ndarray, scaled_hw: tuple[int, int], stride: int) -> np.ndarray:
    """The scaled image, its last row and column repeated up to whole cells and the least size; uint8 HWC."""
    height, width = scaled_hw
    scaled = Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BILINEAR)  # averages when it shrinks
    bottom, right = (-max(side, SMALLEST) % stride + max(side, SMALLEST) - side for side in scaled_hw)
    return np.pad(np.asarray(scaled), ((0, bottom), (0, right), (0, 0)), mode="edge")


def _batch(images: list[np.ndarray], network: Segmenter) -> Tensor:
    """float32 BCHW in [0, 1], on the network's device, of uint8 HWC images of one size."""
    device = next(network.parameters()).device
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 255


@contextmanager
def _evaluating(network: Segmenter) -> Iterator[None]:
    """The network in eval mode, and afterwards in the mode it was in."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
