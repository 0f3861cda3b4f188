"""The drawing surface: what each pixel shows, how far away it is, and how the sun meets it.

Nothing here is lit yet: ``albedo`` holds plain colours, ``sun`` the share of direct light. `look` makes
the picture of them. All buffers are float32 (labels uint8) at twice the size of the finished picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from acclimate.data.streets.camera import NEAR, Camera, clip_near

Colour = tuple[float, float, float]
Material = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(metres along the surface, metres up the surface, distance) each of shape (N,) → colours (N, 3).

NaN is a gap: what lies behind stays visible, while the label counts the gap in.
"""


@dataclass(frozen=True)
class Face:
    """A flat polygon of a figure: world points (N, 3), colour with shading included, class.

    Colour None is a gap: what lies behind stays visible, while the label counts the gap in.
    """

    points: np.ndarray
    colour: Colour | None
    label: int


_EMPTY = 254
"""Label of a figure's pixels that none of its faces covers."""


def _rgba(colour: Colour | None) -> tuple[int, int, int, int]:
    if colour is None:
        return 0, 0, 0, 0
    red, green, blue = (int(255 * min(max(c, 0), 1)) for c in colour)
    return red, green, blue, 255


class Canvas:
    """Buffers of shape ``size`` and the ways to draw on them, nearest wins."""

    def __init__(self, size: tuple[int, int], camera: Camera, sun: np.ndarray) -> None:
        self.size, self.camera, self.sun_direction = size, camera, sun
        self.ray_x, self.ray_y = camera.rays(size)
        self.albedo = np.zeros((*size, 3), np.float32)
        self.depth = np.full(size, np.inf, np.float32)
        self.label = np.zeros(size, np.uint8)
        self.sun = np.ones(size, np.float32)
        self.open = np.ones(size, np.float32)
        """Share of the sky's light that arrives: less under and beside things."""
        self._shadow, self._contact = (Image.new("L", (size[1] // 2, size[0] // 2), 255) for _ in range(2))

    def surface(self, points_N3: np.ndarray, along: np.ndarray, up: np.ndarray, material: Material, label: int) -> None:
        """Draw a planar polygon. Texture coordinates start at its first point, ``along`` and ``up`` (unit vectors)."""
        normal = np.cross(along, up)
        origin = np.asarray(points_N3[0], float)
        at, z = self._visible(points_N3, normal, origin)
        if not len(at):
            return
        x = z * self.ray_x.ravel()[at] - np.float32(origin[0])
        y = z * self.ray_y.ravel()[at] + np.float32(self.camera.height - origin[1])
        deep = z - np.float32(origin[2])
        s, t = (x * float(axis[0]) + y * float(axis[1]) + deep * float(axis[2]) for axis in (along, up))
        colour = material(s, t, z)
        self.label.ravel()[at] = label
        solid = ~np.isnan(colour[:, 0])
        if not solid.all():
            at, colour, z = at[solid], colour[solid], z[solid]
        self.albedo.reshape(-1, 3)[at] = colour
        self.depth.ravel()[at] = z
        self.sun.ravel()[at] = self.facing(normal, origin)
        self.open.ravel()[at] = 1

    def _visible(self, points_N3: np.ndarray, normal: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flat indices and distances of the polygon's pixels that nothing nearer covers."""
        nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
        points = clip_near(points_N3)
        if len(points) < 3:
            return nothing
        pixels = self.camera.project(points)
        box = self._box(pixels)
        if box is None or not self._open_behind(box, float(points[:, 2].min())):
            return nothing
        x0, y0, x1, y1 = box
        mask = Image.new("L", (x1 - x0, y1 - y0))
        ImageDraw.Draw(mask).polygon((pixels - (x0, y0)).ravel().tolist(), fill=1)
        rows, columns = np.nonzero(np.asarray(mask))
        at = (rows + y0) * self.size[1] + (columns + x0)
        slant = self.ray_x.ravel()[at] * float(normal[0]) + self.ray_y.ravel()[at] * float(normal[1]) + float(normal[2])
        distance = float(normal @ (origin - [0, self.camera.height, 0]))
        z = distance / np.where(np.abs(slant) < 1e-6, np.float32(1e-6), slant)
        z = np.clip(z, float(points[:, 2].min()), float(points[:, 2].max()))
        seen = z * np.float32(0.97) < self.depth.ravel()[at]
        return at[seen], z[seen]

    def _box(self, pixels_N2: np.ndarray) -> tuple[int, int, int, int] | None:
        """Whole-pixel bounds (x0, y0, x1, y1) inside the canvas; None if outside."""
        low, high = np.floor(pixels_N2.min(0)).astype(int), np.ceil(pixels_N2.max(0)).astype(int) + 1
        x0, y0, x1, y1 = max(low[0], 0), max(low[1], 0), min(high[0], self.size[1]), min(high[1], self.size[0])
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def figure(self, faces: Sequence[Face], depth: float) -> None:
        """Draw polygons over each other, in the order given, as one thing at one distance."""
        flat = self._flatten(faces)
        box = self._box(np.concatenate([pixels for pixels, _ in flat])) if flat else None
        if box is None or not self._open_behind(box, depth):
            return
        x0, y0, x1, y1 = box
        colours, labels = Image.new("RGBA", (x1 - x0, y1 - y0)), Image.new("L", (x1 - x0, y1 - y0), _EMPTY)
        pen, marker = ImageDraw.Draw(colours), ImageDraw.Draw(labels)
        for pixels, face in flat:
            polygon = (pixels - (x0, y0)).ravel().tolist()
            pen.polygon(polygon, fill=_rgba(face.colour))
            marker.polygon(polygon, fill=face.label)
        pixels, label = np.asarray(colours), np.asarray(labels)
        albedo = pixels[..., :3].astype(np.float32) / np.float32(255)
        self.patch((x0, y0), albedo, label != _EMPTY, label, depth, solid=pixels[..., 3] > 0)

    def _flatten(self, faces: Sequence[Face]) -> list[tuple[np.ndarray, Face]]:
        """The pixels of each face's corners, without faces behind the near plane."""
        corners = np.concatenate([face.points for face in faces])
        if corners[:, 2].min() >= NEAR:
            ends = np.cumsum([len(face.points) for face in faces])[:-1]
            return list(zip(np.split(self.camera.project(corners), ends), faces, strict=True))
        clipped = [(clip_near(face.points), face) for face in faces]
        return [(self.camera.project(points), face) for points, face in clipped if len(points) > 2]

    def _open_behind(self, box: tuple[int, int, int, int], depth: float) -> bool:
        """Whether anything at this distance could be seen within the box."""
        x0, y0, x1, y1 = box
        return bool((self.depth[y0:y1, x0:x1] > depth * 0.97 - 0.1).any())

    def patch(
        self,
        corner: tuple[int, int],
        albedo: np.ndarray,
        mask: np.ndarray,
        label: np.ndarray | int,
        depth: float,
        solid: np.ndarray | None = None,
    ) -> None:
        """Paste a cut-out (h, w, 3) at (x, y), all at one distance; where it is not ``solid``, the label alone."""
        (x, y), (h, w) = corner, mask.shape
        window = np.s_[y : y + h, x : x + w]
        seen = mask & (depth * 0.97 - 0.1 < self.depth[window])
        np.copyto(self.label[window], np.asarray(label, np.uint8), where=seen)
        seen = seen if solid is None else seen & solid
        np.copyto(self.albedo[window], albedo, where=seen[..., None])
        np.copyto(self.depth[window], np.float32(depth), where=seen)
        np.copyto(self.sun[window], np.float32(0.85), where=seen)
        np.copyto(self.open[window], np.float32(1), where=seen)

    def shadow(self, foot_N3: np.ndarray, height: float) -> None:
        """Cast the shadow of an upright prism over the footprint ``foot_N3``, and darken its foot."""
        x, y, z = self.sun_direction
        reach = min(height / max(y, 0.15), 25.0)
        foot = np.asarray(foot_N3, float)
        tip = foot - np.array([x * reach, 0, z * reach])
        self._darken(self._shadow, np.concatenate([foot, tip]))
        if foot[:, 2].min() < 40:
            self._darken(self._contact, foot)

    def _darken(self, image: Image.Image, points_N3: np.ndarray) -> None:
        if (np.abs(points_N3[:, 0]) > points_N3[:, 2] + 5).all():  # beside the view
            return
        points_N3[:, 1] = self.camera.ground(points_N3[:, 2])
        outline = clip_near(points_N3[convex_hull(points_N3[:, [0, 2]])])
        if len(outline) > 2:
            ImageDraw.Draw(image).polygon((self.camera.project(outline) / 2).ravel().tolist(), fill=0)

    def apply_shadows(self, softness: float) -> None:
        """Lay all shadows cast so far on what is drawn so far: the ground."""
        self.sun *= self._soft(self._shadow, softness)
        self.open *= 0.6 + 0.4 * self._soft(self._contact, 4)

    def _soft(self, image: Image.Image, softness: float) -> np.ndarray:
        """A half-size mask as float32 at full size, blurred by ``softness`` (pixels of the canvas)."""
        blurred = image.filter(ImageFilter.GaussianBlur(softness / 2)).resize(
            self.size[::-1], Image.Resampling.BILINEAR
        )
        return np.asarray(blurred, np.float32) / np.float32(255)

    def facing(self, normal: np.ndarray, at: np.ndarray) -> float:
        """Share of the sun on a surface seen from the camera: Lambert's cosine, softened."""
        normal = normal / np.linalg.norm(normal)
        towards = normal @ (np.array([0, self.camera.height, 0]) - at)
        cosine = float(normal @ self.sun_direction) * (1 if towards >= 0 else -1)
        return 0.12 + 0.88 * max(cosine, 0.0)


def convex_hull(points_N2: np.ndarray) -> list[int]:
    """Indices of the convex hull, in order (Andrew's monotone chain)."""
    points = [(float(x), float(y)) for x, y in points_N2]
    order = sorted(range(len(points)), key=points.__getitem__)

    def chain(indices: list[int]) -> list[int]:
        kept: list[int] = []
        for i in indices:
            while len(kept) > 1 and _turn(points[kept[-2]], points[kept[-1]], points[i]) <= 0:
                kept.pop()
            kept.append(i)
        return kept[:-1]

    return chain(order) + chain(order[::-1])


def _turn(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> float:
    """Above 0 if a → b → c turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
