"""How the official implementation carries maps from view to view: from its notes of what was done.

`geometry.Geometry` holds the exact matrix of a view. The official code remembers the operations of a view
instead and repeats them on the maps: a choice beside ours, to compare with (recipe key
``augment.label_geometry: replayed``, ``selflabel.teacher_view: whole``). Its defects are part of it:

- operations are repeated in one fixed order, not in the order drawn;
- an operation that was drawn twice is repeated once, with the second value;
- TranslateX is scaled by the height, so that maps move width / height times too far;
- translations and cutouts are cut to whole cells.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.data.geometry import affine
from acclimate.devices import upload

ORDER = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
"""In which operations are repeated, after the mirror and before the cutout."""


@dataclass(frozen=True)
class Replay:
    """What is remembered of a strong view; NaN: was not drawn. Units and signs are those of `geometry.affine`."""

    mirrored: bool = False
    shear_x: float = math.nan
    shear_y: float = math.nan
    translate_x: float = math.nan
    """Pixels of the view."""
    translate_y: float = math.nan
    rotate: float = math.nan
    """Degrees."""
    x0: float = math.nan
    """Cutout, in pixels of the view."""
    y0: float = math.nan
    x1: float = math.nan
    y1: float = math.nan

    def pack(self) -> Tensor:
        """The fields in their order, float32 (P,)."""
        return torch.tensor(astuple(self), dtype=torch.float32)

    @classmethod
    def unpack(cls, packed_P: Tensor) -> Replay:
        """What `pack` packed."""
        mirrored, *rest = packed_P.tolist()
        return cls(bool(mirrored), *rest)


def replay(maps_BChw: Tensor, packed_BP: Tensor, stride: int = 4, fill: float = 0.0) -> Tensor:
    """Maps of weak views carried over to the strong ones, by nearest cell.

    Args:
        maps_BChw: labels, probabilities or similarities, any type; w cells of ``stride`` pixels in a row.
        packed_BP: a packed `Replay` per item.
        stride: pixels per cell.
        fill: value of cells that the weak view does not show, or that are cut out.

    Returns:
        Same shape and type.
    """
    views = [Replay.unpack(packed_P) for packed_P in packed_BP.cpu()]
    height, width = maps_BChw.shape[2:]
    mirrored_B = upload(torch.tensor([view.mirrored for view in views]), maps_BChw.device)
    # One more channel tells what is still seen: lookups outside give 0.
    seen_B1hw = torch.ones(len(views), 1, height, width, device=maps_BChw.device)
    moved_BChw = torch.cat([maps_BChw.to(torch.promote_types(maps_BChw.dtype, torch.float32)), seen_B1hw], dim=1)
    moved_BChw = torch.where(mirrored_B[:, None, None, None], moved_BChw.flip(-1), moved_BChw)
    for name in ORDER:
        values = [getattr(view, name) for view in views]
        if not all(map(math.isnan, values)):
            theta_B23 = torch.stack([_theta(name, value, height, width, stride) for value in values])
            grid_Bhw2 = F.affine_grid(theta_B23.to(seen_B1hw), list(moved_BChw.shape), align_corners=False)
            moved_BChw = F.grid_sample(moved_BChw, grid_Bhw2.to(moved_BChw), "nearest", align_corners=False)
    gone_Bhw = moved_BChw[:, -1] == 0
    for gone_hw, view in zip(gone_Bhw, views, strict=True):
        if not math.isnan(view.x0):
            x0, y0, x1, y1 = (int(side // stride) for side in (view.x0, view.y0, view.x1, view.y1))
            gone_hw[y0:y1, x0:x1] = True
    return moved_BChw[:, :-1].masked_fill(gone_Bhw[:, None], fill).to(maps_BChw.dtype)


def whole_to_weak(
    maps_BChw: Tensor, resized_B2: Tensor, crop_B4: Tensor, mirrored_B: Tensor, stride: int = 4
) -> Tensor:
    """Maps of whole images carried over to weak views, all of one size.

    Sizes and places in pixels are divided by the stride and cut to whole cells, so that maps lie up to a cell
    beside the picture. Cells outside the image (never in the official recipes) are 0.

    Args:
        maps_BChw: features or probabilities of the whole images.
        resized_B2: height and width of the image that the view is a crop of.
        crop_B4: y0, y1, x0, x1 of the crop, in pixels of the resized image.
        mirrored_B: whether the crop is mirrored.
        stride: pixels per cell of the result.

    Returns:
        (B, C, crop height // stride, crop width // stride).
    """
    views = []
    for maps_Chw, resized, crop, mirrored in zip(
        maps_BChw, resized_B2.tolist(), crop_B4.tolist(), mirrored_B.tolist(), strict=True
    ):
        rows, columns = (int(side / stride) for side in resized)
        y0, y1, x0, x1 = crop
        top, left = int(y0 / stride), int(x0 / stride)
        height, width = int((y1 - y0) / stride), int((x1 - x0) / stride)
        scaled_1Chw = F.interpolate(maps_Chw[None], (rows, columns), mode="bilinear", align_corners=True)
        # Negative padding cuts off.
        view_1Chw = F.pad(scaled_1Chw, (-left, left + width - columns, -top, top + height - rows))
        views.append(view_1Chw.flip(-1) if mirrored else view_1Chw)
    return torch.cat(views)


def _theta(name: str, value: float, height: int, width: int, stride: int) -> Tensor:
    """2x3 matrix for `F.affine_grid` of one operation on a map; that of the identity for NaN."""
    if math.isnan(value):
        return torch.eye(2, 3)
    if name.startswith("translate"):
        value = value // stride * (width / height if name == "translate_x" else 1)
    to_unit = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])  # cells → -1 … 1
    matrix = to_unit @ affine(name, value, (height, width)) @ np.linalg.inv(to_unit)
    return torch.from_numpy(matrix[:2]).float()
