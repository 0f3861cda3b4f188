"""Trees, bushes and hedges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.data.streets.canvas import Canvas, Face
from acclimate.data.streets.classes import Class
from acclimate.data.streets.style import Colour, Materials, shaded
from acclimate.data.streets.texture import grain, visible

Place = tuple[float, float]
"""(x, z) in metres."""
BARK = (0.36, 0.27, 0.19)


@dataclass(frozen=True)
class Tree:
    """A tree or, without a trunk, a bush; metres. ``form`` is round, tall or cone."""

    x: float
    z: float
    trunk: float
    """Height of the lowest leaves."""
    radius: float
    form: str
    leaf: Colour
    clumps: np.ndarray
    """(n, 4): x, y and depth offsets, radius; relative to the crown's radius."""
    salt: int

    @property
    def crown(self) -> float:
        """Half the crown's height."""
        return self.radius * {"round": 0.9, "tall": 2.0, "cone": 1.7}[self.form]


def random_tree(rng: np.random.Generator, materials: Materials, x: float, z: float, bush: bool = False) -> Tree:
    """A tree of a random shape at a place."""
    form = "round" if bush else str(rng.choice(["round", "tall", "cone"], p=(0.7, 0.15, 0.15)))
    radius = float(rng.uniform(0.5, 1.0) if bush else rng.uniform(1.5, 3.0) * (0.65 if form != "round" else 1))
    count = 9 if bush else 16
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count)) * 0.75
    size = rng.uniform(0.28, 0.5, count)
    clumps = np.stack([np.cos(angle) * reach, np.sin(angle) * reach, rng.uniform(-0.5, 0.8, count), size], 1)
    if form == "cone":
        clumps[:, 0] *= 0.55 - 0.5 * clumps[:, 1]
        clumps[:, 3] *= 0.9 - 0.4 * clumps[:, 1]
    leaf = materials.leaves[rng.integers(len(materials.leaves))]
    shade = rng.uniform(0.8, 1.15)
    trunk = 0.0 if bush else float(rng.uniform(1.6, 2.8) if form == "round" else 0.8)
    return Tree(x, z, trunk, radius, form, shaded(leaf, shade), clumps, int(rng.integers(1 << 12)))


def draw_tree(canvas: Canvas, tree: Tree, materials: Materials) -> None:
    """Trunk first, then the crown over it."""
    ground = float(canvas.camera.ground(tree.z))
    if abs(tree.x) > tree.z + 4:
        return
    if tree.trunk:
        canvas.figure(_trunk(tree, ground), tree.z)
    _draw_crown(canvas, tree, ground + tree.trunk + 0.8 * tree.crown, materials)


def _trunk(tree: Tree, ground: float) -> list[Face]:
    """A tapered stem, lighter on one side."""
    width, top, faces = 0.05 + 0.05 * tree.radius, ground + tree.trunk + tree.crown, []
    for left, right, shade in ((-width, width, 0.8), (-width, 0, 1.1)):
        foot, tip = (
            [(tree.x + dx, ground - 0.1, tree.z) for dx in (left, right)],
            [(tree.x + 0.6 * dx, top, tree.z) for dx in (right, left)],
        )
        faces.append(Face(np.array(foot + tip), shaded(BARK, shade), Class.VEGETATION))
    return faces


def _draw_crown(canvas: Canvas, tree: Tree, height: float, materials: Materials) -> None:
    (px, py), scale = canvas.camera.project(np.array([[tree.x, height, tree.z]]))[0], canvas.camera.focal / tree.z
    reach_x, reach_y = 1.4 * tree.radius * scale, 1.4 * tree.crown * scale
    x0, x1 = max(int(px - reach_x), 0), min(int(px + reach_x) + 1, canvas.size[1])
    y0, y1 = max(int(py - reach_y), 0), min(int(py + reach_y) + 1, canvas.size[0])
    if x0 >= x1 or y0 >= y1 or not (canvas.depth[y0:y1, x0:x1] > tree.z).any():
        return
    x = ((np.arange(x0, x1, dtype=np.float32) - np.float32(px)) / np.float32(scale * tree.radius))[None]
    y = ((np.float32(py) - np.arange(y0, y1, dtype=np.float32)) / np.float32(scale * tree.crown))[:, None]
    clumps = tree.clumps if reach_x > 30 else tree.clumps[::2] * (1, 1, 1, 1.3)  # far away nobody counts them
    relief, shade = _clumps(clumps.astype(np.float32), x, y, canvas.sun_direction)
    u, v = np.broadcast_arrays(x * np.float32(tree.radius), y * np.float32(tree.crown))
    leaves = grain(u, v, 14, tree.salt)
    mask = relief + 0.22 * leaves > 0.12
    value = shade * (1 + 0.16 * materials.texture * leaves)
    canvas.patch((x0, y0), np.asarray(tree.leaf, np.float32) * value[..., None], mask, Class.VEGETATION, tree.z)


def _clumps(clumps_N4: np.ndarray, x: np.ndarray, y: np.ndarray, sun: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height of the nearest clump over each pixel (below 0: none) and how its roundness takes the light."""
    relief = np.full(np.broadcast_shapes(x.shape, y.shape), -1, np.float32)
    shade = np.zeros_like(relief)
    front = np.full_like(relief, -np.inf)
    lean, lift = np.float32(0.3 * sun[0]), np.float32(0.3 * max(sun[1], 0.6))
    for cx, cy, deep, radius in clumps_N4:
        dx, dy = (x[0] - cx) / radius, (y[:, 0] - cy) / radius
        columns, rows = np.nonzero(np.abs(dx) < 1)[0], np.nonzero(np.abs(dy) < 1)[0]
        if not len(columns) or not len(rows):
            continue
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        dx, dy = dx[part[1]][None], dy[part[0]][:, None]
        bulge = 1 - dx * dx - dy * dy
        reach = bulge * radius - deep * np.float32(0.4)
        nearer = (bulge > 0) & (reach > front[part])
        np.maximum(relief[part], bulge, out=relief[part])
        np.copyto(front[part], reach, where=nearer)
        light = 0.72 + 0.18 * cy - 0.12 * deep + (dx * lean + dy * lift)
        np.copyto(shade[part], light, where=nearer)
    return relief, np.where(shade == 0, np.float32(0.55), shade)


def draw_hedge(
    canvas: Canvas, start: Place, end: Place, height: float, leaf: Colour, materials: Materials, salt: int
) -> None:
    """A trimmed hedge from (x, z) to (x, z): the near face, the top and both ends."""
    a, b = (np.array([p[0], float(canvas.camera.ground(max(p[1], 0))) - 0.05, p[1]]) for p in (start, end))
    along = (b - a) / np.linalg.norm(b - a)
    thick = np.array([np.sign(a[0]) * 0.8, 0, 0])
    up = np.array([0, height, 0])

    def leaves(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> np.ndarray:
        noise = grain(s, t, 16, salt)
        value = 0.78 + 0.2 * np.clip(t / height, 0, 1) + 0.2 * materials.texture * noise * (0.4 + 0.6 * visible(z, 20))
        return np.asarray(leaf, np.float32) * value[:, None]

    vertical = np.array([0.0, 1.0, 0.0])
    canvas.surface(np.array([a, b, b + up, a + up]), along, vertical, leaves, Class.VEGETATION)
    canvas.surface(
        np.array([a + up, b + up, b + up + thick, a + up + thick]), along, thick / 0.8, leaves, Class.VEGETATION
    )
    canvas.surface(np.array([a, a + thick, a + thick + up, a + up]), thick / 0.8, vertical, leaves, Class.VEGETATION)
