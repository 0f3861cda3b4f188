"""Published class lists: names and colours of the label spaces, and what raw label values stand for.

Cityscapes: the official ``labels.py``, its ids and its colours. GTA5: the Cityscapes ids, plus 34. SYNTHIA: the
class list of RAND-CITYSCAPES. CamVid: the 32 classes of the data set, in the 11 groups of the SegNet paper.
"""

from __future__ import annotations

Colour = tuple[int, int, int]

CITYSCAPES: dict[str, Colour] = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0), "vegetation": (107, 142, 35), "terrain": (152, 251, 152),
    "sky": (70, 130, 180), "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142),
    "truck": (0, 0, 70), "bus": (0, 60, 100), "train": (0, 80, 100), "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}  # fmt: skip

CAMVID: dict[str, Colour] = {
    "sky": (128, 128, 128), "building": (128, 0, 0), "pole": (192, 192, 128), "road": (128, 64, 128),
    "pavement": (60, 40, 222), "tree": (128, 128, 0), "sign": (192, 128, 128), "fence": (64, 64, 128),
    "car": (64, 0, 128), "pedestrian": (64, 64, 0), "bicyclist": (0, 128, 192),
}  # fmt: skip

STREETS: dict[str, Colour] = {
    "sky": (70, 130, 180), "building": (70, 70, 70), "road": (128, 64, 128), "pavement": (244, 35, 232),
    "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "pole": (153, 153, 153), "sign": (220, 220, 0),
    "fence": (190, 153, 153), "car": (0, 0, 142), "person": (220, 20, 60), "cyclist": (119, 11, 32),
}  # fmt: skip

# SYNTHIA lacks three of the 19 classes; the 13 also leave out what it labels unlike Cityscapes.
_SIXTEEN = {name: c for name, c in CITYSCAPES.items() if name not in {"terrain", "truck", "train"}}
_THIRTEEN = {name: c for name, c in _SIXTEEN.items() if name not in {"wall", "fence", "pole"}}

SPACES: dict[str, dict[str, Colour]] = {
    "cityscapes19": CITYSCAPES,
    "cityscapes16": _SIXTEEN,
    "cityscapes13": _THIRTEEN,
    "camvid11": CAMVID,
    "streets": STREETS,
}
"""Class names in the order of their train ids, with the colour each is shown in."""

_CITYSCAPES_IDS = dict(enumerate((
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole",
    "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car",
    "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)))  # fmt: skip
_LICENSE_PLATE = {-1: "license plate", 255: "license plate"}  # -1 is 255 in an 8-bit file

_SYNTHIA_IDS = dict(enumerate((
    "void", "sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car", "traffic sign",
    "person", "bicycle", "motorcycle", "parking slot", "road work", "traffic light", "terrain", "rider", "truck",
    "bus", "train", "wall", "lane marking",
)))  # fmt: skip

ID_SCHEMES: dict[str, dict[int, str]] = {
    "cityscapes": {**_CITYSCAPES_IDS, **_LICENSE_PLATE},
    "cityscapes-train": {**dict(enumerate(CITYSCAPES)), -1: "license plate", 255: "void"},
    "gta5": {**_CITYSCAPES_IDS, **_LICENSE_PLATE, 34: "license plate"},
    "synthia": _SYNTHIA_IDS,
    "camvid": {**dict(enumerate(CAMVID)), 11: "void"},
}
"""What each raw id stands for. Names that no class of a label space takes are ignored."""

COLOUR_SCHEMES: dict[str, dict[Colour, str]] = {
    "cityscapes-colours": {
        **{colour: name for name, colour in CITYSCAPES.items()},  # pole groups look like poles, plates like cars
        (0, 0, 0): "void",
        (20, 20, 20): "static",  # so in GTA5
        (111, 74, 0): "dynamic",
        (81, 0, 81): "ground",
        (250, 170, 160): "parking",
        (230, 150, 140): "rail track",
        (180, 165, 180): "guard rail",
        (150, 100, 100): "bridge",
        (150, 120, 90): "tunnel",
        (0, 0, 90): "caravan",
        (0, 0, 110): "trailer",
    },
    "camvid32": {
        (128, 128, 128): "sky",
        (128, 0, 0): "building",
        (192, 0, 128): "building",  # archway
        (0, 128, 64): "building",  # bridge
        (64, 0, 64): "building",  # tunnel
        (64, 192, 0): "building",  # wall
        (192, 192, 128): "pole",
        (0, 0, 64): "pole",  # traffic cone
        (128, 64, 128): "road",
        (128, 0, 192): "road",  # driving lane marking
        (192, 0, 64): "road",  # other lane marking
        (0, 0, 192): "pavement",
        (64, 192, 128): "pavement",  # parking block
        (128, 128, 192): "pavement",  # road shoulder
        (128, 128, 0): "tree",
        (192, 192, 0): "tree",  # other vegetation
        (192, 128, 128): "sign",
        (128, 128, 64): "sign",  # other text
        (0, 64, 64): "sign",  # traffic light
        (64, 64, 128): "fence",
        (64, 0, 128): "car",
        (64, 128, 192): "car",  # SUV, pick-up
        (192, 128, 192): "car",  # truck, bus
        (192, 64, 128): "car",  # train
        (128, 64, 64): "car",  # other moving
        (64, 64, 0): "pedestrian",
        (192, 128, 64): "pedestrian",  # child
        (64, 0, 192): "pedestrian",  # cart, luggage, pram
        (64, 128, 64): "pedestrian",  # animal
        (0, 128, 192): "bicyclist",
        (192, 0, 192): "bicyclist",  # motorcycle, scooter
        (0, 0, 0): "void",
    },
}
"""What each raw colour stands for."""

_COARSE = {
    "wall": "building", "sidewalk": "pavement", "traffic light": "sign", "traffic sign": "sign", "truck": "car",
    "bus": "car",
}  # fmt: skip

GROUPS: dict[str, dict[str, str]] = {
    "camvid11": {
        **_COARSE, "vegetation": "tree", "person": "pedestrian", "rider": "bicyclist", "bicycle": "bicyclist",
    },
    "streets": {**_COARSE, "rider": "cyclist", "bicycle": "cyclist"},
}  # fmt: skip
"""By label space: raw class → the class that takes it in. A class always takes the raw class of its own name."""
