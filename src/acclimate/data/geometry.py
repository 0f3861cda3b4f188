"""Where each pixel of a view comes from: one record for image, labels, soft maps and stride-k features.

Coordinates are continuous: pixel i covers [i, i + 1) and its centre is i + 0.5. Matrices are 3x3,
act on columns (x, y, 1) and lead from the new picture back to the old one, which is the direction in
which pixels are looked up. Maps of a network have cells, and a `Grid` says which pixels these stand for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from acclimate.devices import upload
from acclimate.errors import UserError
from acclimate.labels import IGNORE

FILL = 127
"""Grey level of pixels that a view shows but the image does not have."""

Size = tuple[int, int]
"""(height, width)"""

_LARGEST = 1 << 28
"""Pixels of a scaled image: 16,384 x 16,384."""


def scaled_size(image_hw: Size, width: float) -> Size:
    """Size of an image brought to ``width`` pixels, its height in proportion.

    Raises:
        UserError: a strip so high and narrow that it would not fit into memory.
    """
    height = image_hw[0] * width / image_hw[1]
    if height * width > _LARGEST:
        raise UserError(
            f"an image of {image_hw[1]}x{image_hw[0]} pixels (width x height) would have {width:.0f}x{height:.0f} at "
            f"width {width:.0f}; cut it to a less extreme shape, or choose a smaller width"
        )
    return max(1, round(height)), max(1, round(width))


@dataclass(frozen=True)
class Grid:
    """Where the cells of a map lie on the picture that it describes."""

    stride: int
    """Pixels from one cell to the next (nearly so with ``corners``)."""
    corners: bool = False
    """False: cell i covers the pixels [stride i, stride (i + 1)), and the last may reach beyond the edge.
    True: the first and the last cell lie on the first and the last pixel, the others evenly between."""
    beyond: bool = False
    """With ``corners``: one cell more, as pooling that rounds up leaves it (the paper's network)."""

    def cells(self, hw: Size) -> Size:
        """Rows and columns over a picture of ``hw`` pixels."""
        height, width = (self._count(side) for side in hw)
        return height, width

    def centres(self, length: int) -> np.ndarray:
        """Pixel coordinates of the cells' centres along a side of ``length`` pixels."""
        index = np.arange(self._count(length))
        return 0.5 + index * self._step(length) if self.corners else (index + 0.5) * self.stride

    def index(self, pixels: Tensor, length: int) -> Tensor:
        """The cells, with fractions, in which pixel coordinates along a side of ``length`` pixels lie."""
        return (pixels - 0.5) / self._step(length) if self.corners else pixels / self.stride - 0.5

    def reach(self, length: int) -> int:
        """Pixels that the cells stand for along a side of ``length`` pixels; may be more than these."""
        return length if self.corners else self._count(length) * self.stride

    def _count(self, length: int) -> int:
        if not self.corners:
            return (length + self.stride - 1) // self.stride  # rounded up by what torch.export can follow
        return (length + 1) // self.stride + 1 if self.beyond else max(1, length // self.stride)

    def _step(self, length: int) -> float:
        """Pixels from one cell to the next, with ``corners``."""
        return max(length - 1, 1) / max(self._count(length) - 1, 1)


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


PIXELS = Grid(1)


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

    def placed(self) -> tuple[int, ...]:
        """Of a crop: height and width of the scaled image, y0, y1, x0, x1 of the crop on it, and 1 if mirrored."""
        height, width = self.view_hw
        (step_x, _, x), (_, step_y, y), _ = self.array
        mirrored = step_x < 0
        left = x + step_x * width if mirrored else x
        y0, x0 = round(y / step_y), round(left / abs(step_x))
        scaled_h, scaled_w = round(self.image_hw[0] / step_y), round(self.image_hw[1] / abs(step_x))
        return scaled_h, scaled_w, y0, y0 + height, x0, x0 + width, int(mirrored)

    def relative_to(self, other: Geometry) -> np.ndarray:
        """3x3 matrix from this view's pixels to those of another view of the same image."""
        # Rounding noise of the inverse would make pictures that only move by whole pixels off by one grey level.
        return (np.linalg.inv(other.array) @ self.array).round(10)

    def reach(self) -> tuple[slice, slice]:
        """The rows and columns of the image file that `image` and `label` look at; all others may be missing."""
        if self.parent is not None:
            return self.parent.reach()
        _, rows = _span(self.array[1, 1], self.array[1, 2], self.view_hw[0], self.image_hw[0])
        _, columns = _span(self.array[0, 0], self.array[0, 2], self.view_hw[1], self.image_hw[1])
        return _widened(rows, self.array[1, 1], self.image_hw[0]), _widened(columns, self.array[0, 0], self.image_hw[1])

    def image(self, image: np.ndarray | Image.Image) -> np.ndarray:
        """The view's picture, uint8 HWC, out of the image file's; antialiased, `FILL` where nothing is seen."""
        if self.parent is not None:
            return self.image_from_parent(self.parent.image(image))
        return _resized(_picture(image), self.array, self.view_hw)

    def image_from_parent(self, parent: np.ndarray | Image.Image) -> np.ndarray:
        """The view's picture, uint8 HWC, out of its parent's picture."""
        assert self.parent is not None
        view_HWC = _moved(_picture(parent), self.relative_to(self.parent), self.view_hw)
        if self.cutout is not None:
            y0, x0, y1, x1 = self.cutout
            view_HWC[y0:y1, x0:x1] = FILL
        return view_HWC

    def label(self, label_HW: np.ndarray, fill: int = IGNORE) -> np.ndarray:
        """The view's labels, uint8 HW, out of the image file's, in one step by nearest pixel."""
        label = _warped(_picture(label_HW), self.array, self.view_hw, Image.Resampling.NEAREST, fill)
        return label if self.parent is None else np.where(self.visible(), label, np.uint8(fill))

    def soft(self, soft_Khw: np.ndarray, scaled_hw: Size, grid: Grid, view_grid: Grid) -> Tensor:
        """The view's soft labels, float32 (K, cells of ``view_grid``), out of those of the whole image.

        ``soft_Khw`` (any type and scale, at least 0) lies in ``grid`` on the whole image scaled to ``scaled_hw``.
        Bilinear; probabilities sum to one, and are all zero where nothing is seen.
        """
        to_scaled = np.diag([scaled_hw[1] / self.image_hw[1], scaled_hw[0] / self.image_hw[0], 1]) @ self.array
        maps_1Khw = torch.from_numpy(soft_Khw).float()[None]
        matrix_133 = torch.from_numpy(to_scaled).float()[None]
        warped_Khw = resample(maps_1Khw, matrix_133, (scaled_hw, grid), (self.view_hw, view_grid))[0]
        warped_Khw *= torch.from_numpy(self.visible(view_grid))
        return warped_Khw / warped_Khw.sum(0).clamp_min(1e-6)

    def visible(self, grid: Grid = PIXELS) -> np.ndarray:
        """Bool (cells of the view): whether the centre of the cell shows a pixel of the image."""
        height, width = self.view_hw
        return self._sees(grid.centres(width), grid.centres(height)[:, None])

    def _sees(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether these points of the view (arrays that broadcast) show a pixel of the image."""
        seen = _within(x, y, (0, 0, *self.view_hw))
        if self.cutout is not None:
            seen &= ~_within(x, y, self.cutout)
        if self.parent is not None:
            return seen & self.parent._sees(*_apply(self.relative_to(self.parent), x, y))
        return seen & _within(*_apply(self.array, x, y), (0, 0, *self.image_hw))


def enlarge(maps_BChw: Tensor, grid: Grid, size_hw: Size, stride: int = 1) -> Tensor:
    """Maps in a picture's cells, bilinear, at its pixels: (B, C, *size_hw); or in the cells of a finer stride."""
    finer = Grid(stride, grid.corners)
    if finer == grid:
        return maps_BChw
    rows, columns = finer.cells(size_hw)
    if grid.corners:
        return F.interpolate(maps_BChw, (rows, columns), mode="bilinear", align_corners=True)
    enlarged = F.interpolate(maps_BChw, scale_factor=grid.stride / stride, mode="bilinear", align_corners=False)
    if enlarged.shape[-2:] == (rows, columns):  # slicing all the same would cost the backward pass a copy
        return enlarged
    return enlarged[..., :rows, :columns]  # the last cells reach beyond the picture


def resample(
    maps_BCHW: Tensor,
    matrix_B33: Tensor,
    old: tuple[Size, Grid],
    new: tuple[Size, Grid],
    mode: Literal["bilinear", "nearest"] = "bilinear",
    fill: float = 0.0,
) -> Tensor:
    """Maps of one view carried over to another.

    Args:
        maps_BCHW: any type; "bilinear" computes in float32.
        matrix_B33: pixels of the new view → pixels of the maps' view.
        old: size in pixels of the maps' view, and where the maps' cells lie on it.
        new: the same of the result.
        fill: value of cells whose centre none of the old cells stands for.

    Returns:
        (B, C, cells of ``new``) in the maps' type.
    """
    x_Bhw, y_Bhw = _look_up(matrix_B33.float(), new).unbind(-1)
    (height, width), grid = old
    inside_Bhw = (x_Bhw >= 0) & (x_Bhw < grid.reach(width)) & (y_Bhw >= 0) & (y_Bhw < grid.reach(height))
    rows, columns = maps_BCHW.shape[2:]
    x_Bhw = (grid.index(x_Bhw, width) + 0.5) / columns * 2 - 1
    y_Bhw = (grid.index(y_Bhw, height) + 0.5) / rows * 2 - 1
    maps = maps_BCHW if maps_BCHW.is_floating_point() else maps_BCHW.float()
    # "border", not "zeros": the outermost half cell would otherwise fade towards zero.
    out_BChw = F.grid_sample(
        maps, torch.stack([x_Bhw, y_Bhw], dim=-1).to(maps.dtype), mode, padding_mode="border", align_corners=False
    )
    return out_BChw.masked_fill(~inside_Bhw[:, None], fill).to(maps_BCHW.dtype)


def _look_up(matrix_B33: Tensor, new: tuple[Size, Grid]) -> Tensor:
    """(B, h, w, 2): pixels (x, y) of the old view at the centres of the new view's cells."""
    (height, width), grid = new
    centres = (torch.from_numpy(grid.centres(side)).to(matrix_B33.dtype) for side in (width, height))
    x, y = (upload(centre, matrix_B33.device) for centre in centres)
    points_hw3 = torch.stack([*torch.meshgrid(x, y, indexing="xy"), x.new_ones(len(y), len(x))], dim=-1)
    return torch.einsum("hwj,bij->bhwi", points_hw3, matrix_B33[:, :2])


def _flat(matrix: np.ndarray) -> tuple[float, ...]:
    return tuple(matrix.ravel().tolist())


def _apply(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (a, b, c), (d, e, f) = matrix[:2]
    return a * x + b * y + c, d * x + e * y + f


def _within(x: np.ndarray, y: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    y0, x0, y1, x1 = box
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def _picture(image: np.ndarray | Image.Image) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def _warped(picture: Image.Image, matrix: np.ndarray, hw: Size, how: Image.Resampling, fill: int) -> np.ndarray:
    """Uint8 HW or HWC of a picture under any affine map, at about the same scale (no antialiasing)."""
    colour = fill if picture.mode == "L" else (fill,) * 3
    coefficients = matrix.ravel()[:6].tolist()
    return np.array(picture.transform((hw[1], hw[0]), Image.Transform.AFFINE, coefficients, how, fillcolor=colour))


def _moved(picture: Image.Image, matrix: np.ndarray, hw: Size) -> np.ndarray:
    """Uint8 HWC of a picture of ``hw`` pixels under any affine map, bilinear, `FILL` where it has nothing."""
    if np.array_equal(matrix, np.eye(3)):  # what the look-up of every pixel would give, too
        return np.array(picture)
    if np.array_equal(matrix, affine("flip", 0, hw)):
        return np.array(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    return _warped(picture, matrix, hw, Image.Resampling.BILINEAR, FILL)


def _resized(image: Image.Image, matrix: np.ndarray, hw: Size) -> np.ndarray:
    """Uint8 HWC of a picture under an axis-aligned map: only the part that is seen is resized, antialiased."""
    rows, (top, bottom) = _span(matrix[1, 1], matrix[1, 2], hw[0], image.height)
    columns, (left, right) = _span(matrix[0, 0], matrix[0, 2], hw[1], image.width)
    size = columns.stop - columns.start, rows.stop - rows.start
    canvas = Image.new("RGB", (hw[1], hw[0]), (FILL,) * 3)
    if min(size) > 0:
        seen = image.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom))
        canvas.paste(seen, (columns.start, rows.start))
    if matrix[0, 0] < 0:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if matrix[1, 1] < 0:
        canvas = canvas.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return np.array(canvas)


def _widened(span: tuple[float, float], scale: float, limit: int) -> slice:
    """The whole pixels of a stretch of the file, and those beside it that antialiasing takes in."""
    margin = max(abs(scale), 1) + 1
    return slice(max(math.floor(span[0] - margin), 0), min(math.ceil(span[1] + margin), limit))


def _span(scale: float, offset: float, length: int, limit: int) -> tuple[slice, tuple[float, float]]:
    """The view pixels along one axis that show the file's 0 … limit, and which stretch of the file they show.

    A mirrored axis (negative scale) is measured from its other end. Where the file ends inside a view
    pixel, that pixel is shown or not as a whole; crops at whole pixels never have such.
    """
    if scale < 0:
        scale, offset = -scale, offset + scale * length
    first, last = (min(max(round((edge - offset) / scale), 0), length) for edge in (0, limit))
    start, stop = (min(max(scale * edge + offset, 0), limit) for edge in (first, last))
    return slice(first, last), (start, stop)
