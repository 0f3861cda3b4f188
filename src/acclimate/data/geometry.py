"""Where each pixel of a view comes from: one record for image, labels, soft maps and stride-k features.

Coordinates are continuous: pixel i covers [i, i + 1) and its centre is i + 0.5. Matrices are 3x3,
act on columns (x, y, 1) and lead from the new picture back to the old one, which is the direction in
which pixels are looked up. A map "at stride k" has cells of k x k pixels; its cell i covers
[k i, k (i + 1)) of the pixels, and the last cell may reach beyond the picture's edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from acclimate.labels import IGNORE

FILL = 127
"""Grey level of pixels that a view shows but the image does not have."""

Size = tuple[int, int]
"""(height, width)"""


def scaled_size(image_hw: Size, width: float) -> Size:
    """Size of an image brought to ``width`` pixels, its height in proportion."""
    height = image_hw[0] * width / image_hw[1]
    return max(1, round(height)), max(1, round(width))


def cells(hw: Size, stride: int) -> Size:
    """Size in cells, at ``stride``, of a picture of ``hw`` pixels: rounded up."""
    return math.ceil(hw[0] / stride), math.ceil(hw[1] / stride)


def affine(operation: str, value: float, hw: Size) -> np.ndarray:
    """3x3 matrix of one operation on a picture of ``hw`` pixels, in the conventions of Pillow's RandAugment.

    ``shear_x``, ``shear_y``: pixels per pixel, about the top left corner. ``translate_x``,
    ``translate_y``: pixels that the content moves left or up. ``rotate``: degrees counter-clockwise
    about the centre. ``flip``: mirrors left and right (``value`` is not used).
    """
    height, width = hw
    cos, sin = math.cos(math.radians(value)), math.sin(math.radians(value))
    x, y = width / 2, height / 2
    rows = {
        "shear_x": ((1, value, 0), (0, 1, 0)),
        "shear_y": ((1, 0, 0), (value, 1, 0)),
        "translate_x": ((1, 0, value), (0, 1, 0)),
        "translate_y": ((1, 0, 0), (0, 1, value)),
        "rotate": ((cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)),
        "flip": ((-1, 0, width), (0, 1, 0)),
    }[operation]
    return np.array([*rows, (0, 0, 1)], dtype=np.float64)


@dataclass(frozen=True)
class Geometry:
    """A view of an image file: a scaled, flipped crop of it, or such a view transformed further."""

    view_hw: Size
    image_hw: Size
    """Size of the image file."""
    matrix: tuple[float, ...]
    """View pixels → pixels of the image file: 3x3, row by row."""
    cutout: tuple[int, int, int, int] | None = None
    """y0, x0, y1, x1 in pixels of the view: a rectangle that is removed."""
    parent: Geometry | None = None
    """The view that this one was made from by `then`: what lies outside the parent is not seen here."""

    def __post_init__(self) -> None:
        if self.parent is None and (self.matrix[1] or self.matrix[3] or self.cutout):
            raise ValueError("a view that turns, shears or cuts out is made from another one, by `then`")

    @classmethod
    def crop(cls, image_hw: Size, scaled_hw: Size, top_left_yx: tuple[int, int], crop_hw: Size, flip: bool) -> Geometry:
        """Scale the image to ``scaled_hw``, cut ``crop_hw`` out at ``top_left_yx`` (may be outside), then mirror."""
        to_file = np.diag([image_hw[1] / scaled_hw[1], image_hw[0] / scaled_hw[0], 1])
        shift = affine("translate_x", top_left_yx[1], crop_hw) @ affine("translate_y", top_left_yx[0], crop_hw)
        mirror = affine("flip", 0, crop_hw) if flip else np.eye(3)
        return cls(crop_hw, image_hw, _flat(to_file @ shift @ mirror))

    @classmethod
    def whole(cls, image_hw: Size, scaled_hw: Size) -> Geometry:
        """The whole image, scaled."""
        return cls.crop(image_hw, scaled_hw, (0, 0), scaled_hw, flip=False)

    def then(self, transform: np.ndarray, cutout: tuple[int, int, int, int] | None = None) -> Geometry:
        """This view transformed once more: ``transform`` (3x3) leads from pixels of the new view to this one's."""
        return Geometry(self.view_hw, self.image_hw, _flat(self.array @ transform), cutout, parent=self)

    @property
    def array(self) -> np.ndarray:
        """`matrix` as a 3x3 float64 array."""
        return np.array(self.matrix).reshape(3, 3)

    def relative_to(self, other: Geometry) -> np.ndarray:
        """3x3 matrix from this view's pixels to those of another view of the same image."""
        # Rounding noise of the inverse would make pictures that only move by whole pixels off by one grey level.
        return (np.linalg.inv(other.array) @ self.array).round(10)

    def image(self, image_HWC: np.ndarray) -> np.ndarray:
        """The view's picture, uint8 HWC, out of the image file's; antialiased, `FILL` where nothing is seen."""
        if self.parent is not None:
            return self.image_from_parent(self.parent.image(image_HWC))
        return _resized(image_HWC, self.array, self.view_hw)

    def image_from_parent(self, parent_HWC: np.ndarray) -> np.ndarray:
        """The view's picture, uint8 HWC, out of its parent's picture."""
        assert self.parent is not None
        view_HWC = _warped(parent_HWC, self.relative_to(self.parent), self.view_hw, Image.Resampling.BILINEAR, FILL)
        if self.cutout is not None:
            y0, x0, y1, x1 = self.cutout
            view_HWC[y0:y1, x0:x1] = FILL
        return view_HWC

    def label(self, label_HW: np.ndarray, fill: int = IGNORE) -> np.ndarray:
        """The view's labels, uint8 HW, out of the image file's, in one step by nearest pixel."""
        label = _warped(label_HW, self.array, self.view_hw, Image.Resampling.NEAREST, fill)
        return label if self.parent is None else np.where(self.visible(), label, np.uint8(fill))

    def soft(self, soft_Khw: np.ndarray, scaled_hw: Size, stride: int) -> Tensor:
        """The view's soft labels, float32 (K, cells of the view), out of those of the whole image.

        ``soft_Khw`` (any type and scale, at least 0) lies at ``stride`` on the whole image scaled to ``scaled_hw``.
        Bilinear; probabilities sum to one, and are all zero where nothing is seen.
        """
        to_scaled = np.diag([scaled_hw[1] / self.image_hw[1], scaled_hw[0] / self.image_hw[0], 1]) @ self.array
        maps_1Khw = torch.from_numpy(soft_Khw).float()[None]
        matrix_133 = torch.from_numpy(to_scaled).float()[None]
        warped_Khw = resample(maps_1Khw, matrix_133, cells(self.view_hw, stride), stride)[0]
        warped_Khw *= torch.from_numpy(self.visible(stride))
        return warped_Khw / warped_Khw.sum(0).clamp_min(1e-6)

    def visible(self, stride: int = 1) -> np.ndarray:
        """Bool (cells of the view): whether the centre of the cell shows a pixel of the image."""
        height, width = cells(self.view_hw, stride)
        return self._sees((np.arange(width) + 0.5) * stride, (np.arange(height)[:, None] + 0.5) * stride)

    def _sees(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether these points of the view (arrays that broadcast) show a pixel of the image."""
        seen = _within(x, y, (0, 0, *self.view_hw))
        if self.cutout is not None:
            seen &= ~_within(x, y, self.cutout)
        if self.parent is not None:
            return seen & self.parent._sees(*_apply(self.relative_to(self.parent), x, y))
        return seen & _within(*_apply(self.array, x, y), (0, 0, *self.image_hw))


def resample(
    maps_BCHW: Tensor,
    matrix_B33: Tensor,
    out_hw: Sequence[int],
    stride: int = 1,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    fill: float = 0.0,
) -> Tensor:
    """Maps of one view carried over to another; both lie at ``stride``.

    Args:
        maps_BCHW: any type; "bilinear" computes in float32.
        matrix_B33: pixels of the new view → pixels of the maps' view, at full resolution.
        out_hw: size of the result in cells.
        stride: pixels per cell, of the maps and of the result.
        fill: value of cells whose centre lies outside the maps.

    Returns:
        (B, C, *out_hw) in the maps' type.
    """
    in_hw = (maps_BCHW.shape[2], maps_BCHW.shape[3])
    grid_Bhw2 = _lookup(matrix_B33, in_hw, out_hw, stride)
    maps = maps_BCHW if maps_BCHW.is_floating_point() else maps_BCHW.float()
    # "border", not "zeros": the outermost half cell would otherwise fade towards zero.
    out_BChw = F.grid_sample(maps, grid_Bhw2.to(maps.dtype), mode, padding_mode="border", align_corners=False)
    return out_BChw.masked_fill(~_inside(grid_Bhw2)[:, None], fill).to(maps_BCHW.dtype)


def _lookup(matrix_B33: Tensor, in_hw: Sequence[int], out_hw: Sequence[int], stride: int) -> Tensor:
    """(B, *out_hw, 2): where the centre of each new cell lies in the maps, scaled to -1 … 1 over their extent."""
    matrix_B33 = matrix_B33.float()
    x = (torch.arange(out_hw[1], device=matrix_B33.device) + 0.5) * stride
    y = (torch.arange(out_hw[0], device=matrix_B33.device) + 0.5) * stride
    points_hw3 = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(out_hw, device=x.device)], dim=-1)
    pixels_Bhw2 = torch.einsum("hwj,bij->bhwi", points_hw3, matrix_B33[:, :2])
    extent = torch.tensor([in_hw[1] * stride, in_hw[0] * stride], device=x.device)
    return pixels_Bhw2 / extent * 2 - 1


def _inside(grid_Bhw2: Tensor) -> Tensor:
    return ((grid_Bhw2 >= -1) & (grid_Bhw2 < 1)).all(-1)


def _flat(matrix: np.ndarray) -> tuple[float, ...]:
    return tuple(matrix.ravel().tolist())


def _apply(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (a, b, c), (d, e, f) = matrix[:2]
    return a * x + b * y + c, d * x + e * y + f


def _within(x: np.ndarray, y: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    y0, x0, y1, x1 = box
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def _warped(picture: np.ndarray, matrix: np.ndarray, hw: Size, how: Image.Resampling, fill: int) -> np.ndarray:
    """Uint8 HW or HWC picture under any affine map, at about the same scale (no antialiasing)."""
    size, colour = (hw[1], hw[0]), fill if picture.ndim == 2 else (fill,) * 3
    coefficients = matrix.ravel()[:6].tolist()
    image = Image.fromarray(picture)
    return np.array(image.transform(size, Image.Transform.AFFINE, coefficients, how, fillcolor=colour))


def _resized(image_HWC: np.ndarray, matrix: np.ndarray, hw: Size) -> np.ndarray:
    """Uint8 HWC picture under an axis-aligned map: only the part that is seen is resized, antialiased."""
    canvas = np.full((*hw, 3), FILL, dtype=np.uint8)
    rows, top, bottom = _span(matrix[1, 1], matrix[1, 2], hw[0], image_HWC.shape[0])
    columns, left, right = _span(matrix[0, 0], matrix[0, 2], hw[1], image_HWC.shape[1])
    size = columns.stop - columns.start, rows.stop - rows.start
    if min(size) > 0:
        image = Image.fromarray(image_HWC)
        canvas[rows, columns] = np.asarray(image.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom)))
    return canvas[:: int(np.sign(matrix[1, 1])), :: int(np.sign(matrix[0, 0]))].copy()


def _span(scale: float, offset: float, length: int, limit: int) -> tuple[slice, float, float]:
    """The view pixels along one axis that show the file's 0 … limit, and which stretch of the file they show.

    A mirrored axis (negative scale) is measured from its other end. Where the file ends inside a view
    pixel, that pixel is shown or not as a whole; crops at whole pixels never have such.
    """
    if scale < 0:
        scale, offset = -scale, offset + scale * length
    first, last = (min(max(round((edge - offset) / scale), 0), length) for edge in (0, limit))
    start, stop = (min(max(scale * edge + offset, 0), limit) for edge in (first, last))
    return slice(first, last), start, stop
