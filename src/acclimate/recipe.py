"""The recipe: every choice of a run as typed values, read from YAML and checked all at once.

A recipe file holds only what differs from the defaults below. ``load`` reads a file or the name of a
built-in recipe, lays command-line overrides (``selflabel.temperature=0.1``) over it, and raises one
`UserError` that lists *every* problem: unknown keys with the nearest known name, wrong types, values
out of range, choices that contradict each other.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Union

import yaml

from acclimate import yamls
from acclimate.errors import UserError
from acclimate.printable import is_plain, shown


@dataclass(frozen=True)
class Folder:
    """Where one set of images lies on disk."""

    path: str = ""
    """Root folder. Empty: this set is not given."""
    layout: Literal["folder", "gta5", "synthia", "cityscapes", "camvid"] = "folder"
    """How the files are arranged; ``folder`` is any folder of images."""
    split: str = ""
    """Sub-split of a known layout, such as ``train`` or ``val``. Empty: the layout's usual one."""
    labels: str = ""
    """Folder of the label PNGs, or a template such as ``gt/{name}_id.png``. Empty: the layout's own place."""
    ids: str = ""
    """Meaning of the raw label values: a known scheme (``cityscapes``, ``gta5``, ``synthia``,
    ``camvid``, ``train``) or the path of a label map. Empty: the layout's own scheme."""
    limit: int = 0
    """Use only that many images, evenly spaced. 0: all."""


@dataclass(frozen=True)
class Data:
    """What is learned from, and at which size."""

    classes: str = "cityscapes19"
    """A built-in label space (``cityscapes19``, ``cityscapes16``, ``cityscapes13``, ``camvid11``,
    ``streets``) or the path of a label map, whose names then are the classes."""
    source: Folder = field(default_factory=Folder)
    """Labelled images of the source domain."""
    target: Folder = field(default_factory=Folder)
    """Unlabelled images of the target domain. No label of theirs is ever opened."""
    val: Folder = field(default_factory=Folder)
    """Optional labelled images of the target domain, to measure with and for nothing else."""
    ceiling: Folder = field(default_factory=Folder)
    """Optional labelled images for the reference model that shows what target labels would give.
    Nothing of the adaptation sees them."""
    width: int = 480
    """Width in pixels to which images are brought (height in proportion) at scale 1."""
    crop: tuple[int, int] = (192, 256)
    """Height and width in pixels of the training crops."""
    scale: tuple[float, float] = (0.75, 1.5)
    """Range of the random scale of training images, relative to ``width``."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """What becomes of target images that cannot be read. ``stop``: they are problems. ``skip``: up to one in
    20 is left out, and listed; docs/bad-input.md says how."""
    workers: int = -1
    """Processes that prepare batches. 0: none beside the trainer; -1: chosen from the machine."""


@dataclass(frozen=True)
class Augment:
    """The strong view: what is done to a target crop beyond scale, crop and flip."""

    flip: bool = True
    """Mirror weak views at random, and strong views once more."""
    blur: float = 0.5
    """Probability of a Gaussian blur."""
    jitter: float = 0.4
    """Largest relative change of brightness, contrast and saturation; hue changes a quarter of it."""
    operations: int = 2
    """RandAugment: operations drawn per view (photometric and geometric). 0: none."""
    magnitude: float = 0.5
    """RandAugment: strength in 0 … 1."""
    cutout: float = 0.3
    """Largest side of the removed rectangle, relative to the crop. 0: none."""
    policy: Literal["acclimate", "official"] = "acclimate"
    """How operations and strengths are drawn. ``official``: nine steps of strength, each operation
    applied half of the time, a rectangle of a third of the shorter side always removed."""
    label_geometry: Literal["exact", "replayed"] = "exact"
    """How labels follow from the weak view to the strong one. ``exact``: by the picture's own matrix;
    ``replayed``: as the official code does, by remembered operations in a fixed order (defect B11)."""


@dataclass(frozen=True)
class Network:
    """The segmentation network."""

    architecture: Literal["light", "context", "deeplab"] = "light"
    """``light``: a timm backbone under a light pyramid head, stride 4. ``context``: a timm backbone under DAFormer's
    head, stride 4: for large transformers, on a GPU. ``deeplab``: the paper's modified DeepLab-v2 on ResNet-101,
    stride 8."""
    backbone: str = "efficientnet_lite0"
    """Any timm transformer of one stride (DINOv2, DINOv3), or timm model with ``features_only`` support (architectures
    ``light`` and ``context``); docs/backbones.md says which and how to choose."""
    weights: str = "imagenet"
    """``imagenet``: pre-trained, as published for the backbone, on ImageNet or whatever it is (efficientnet_lite0: from
    the installed package, without network); ``none``: random; or the path of a file with backbone weights."""
    channels: int = 96
    """Channels of the head's features, which are clustered (architectures ``light`` and ``context``)."""
    dropout: float = 0.1
    """Dropout on the features before the classifier; clustering sees them before it."""
    drop_path: float = 0.0
    """Stochastic depth: how often training leaves out the deepest of a timm backbone's residual branches, image by
    image; earlier ones are left out less, in proportion to their depth."""
    extra_norm: bool = False
    """A BatchNorm on the backbone's output (architecture ``deeplab``), for self-supervised weights."""
    passes: Literal["joint", "separate"] = "joint"
    """Source and target views go through the network as one batch, or each alone (official), with BatchNorm
    statistics of its own."""
    statistics: Literal["target", "trained"] = "target"
    """What BatchNorm normalises by in models for the target. ``target``: averages measured on target images as they
    are, at the end of a stage; stage 1 starts from such a model and keeps them, as does a student of distillation
    that goes on from one. ``trained``: averages of all that went through the network in training, source and strong
    views included (paper)."""
    loss_stride: int = 0
    """Maps of a coarser network are enlarged to this stride before the losses on target images. 0: they are not."""
    channels_last: bool = True
    """In training, a pixel's channels lie side by side in memory: faster. This and the next two change results by
    rounding alone, and training alone: a model in use is always laid out so, and neither of the others."""
    compile: bool = False
    """Compile the network for its training passes (``torch.compile``): minutes at the start of each stage, for
    faster steps. Needs a C++ compiler, on GPUs Triton; one process only."""
    checkpointing: bool = False
    """Keep no more than the inputs of the backbone's blocks for the backward pass, which computes the rest anew:
    a fraction of the memory, for about a third more time. On a CPU (Linux) the process also gives back what it
    frees."""


@dataclass(frozen=True)
class Optimizer:
    """How all stages descend; a stage may set its own learning rate and head factor."""

    name: Literal["sgd", "adamw"] = "adamw"
    """The same ``lr`` and ``weight_decay`` do other things in each."""
    lr: float = 3e-4
    """Learning rate of the backbone."""
    head_factor: float = 5.0
    """The head learns this many times faster."""
    layer_decay: float = 1.0
    """Each block of the backbone learns so much slower than the next deeper one; the deepest at the full rate. 1: all
    learn alike."""
    weight_decay: float = 0.01
    """Of the network; prototypes have ``selflabel.prototype_decay``."""
    decay: Literal["all", "weights"] = "all"
    """What ``weight_decay`` applies to. ``weights``: kernels and matrices alone, not biases, normalisations, position
    embeddings and tokens, as transformers want it."""
    clip: float = 0.0
    """Longest gradient (norm over the whole network); a longer one is shortened to it. 0: as long as it is."""
    momentum: float = 0.9
    """SGD only."""
    power: float = 0.9
    """The rate falls as (1 - t/T)^power; T is the stage's length, so that it ends with it."""
    ramp: int = 20
    """Iterations over which the rate rises at the start of a stage."""
    ema: float = 0.99
    """Momentum of the averaged weights (the teacher)."""
    average: Literal["ramped", "constant"] = "ramped"
    """``ramped``: the first steps average faster, and BatchNorm statistics are averaged too. ``constant``:
    the same momentum from the first step on, statistics copied (official)."""
    keep: Literal["average", "student"] = "average"
    """Which network a stage leaves behind."""
    accumulate: int = 1
    """Each process does its batch in that many equal parts, one after the other, and descends by the mean of their
    gradients: as much less memory for activations. A part is treated as a batch of its own: BatchNorm's statistics
    and the losses' means are over it alone, and it enters bank and class distribution before the next is seen."""


@dataclass(frozen=True)
class Supervised:
    """Plain training on labels: the source-only model, and the ceiling on target labels."""

    iterations: int = 300
    """Steps."""
    batch: int = 8
    """Images per step."""
    lr: float = 0.0
    """0: the optimizer's."""
    head_factor: float = 0.0
    """0: the optimizer's."""


@dataclass(frozen=True)
class Warmup:
    """Warm-up on top of the source-only model: colour statistics and output-space alignment."""

    iterations: int = 200
    """0: no warm-up, self-labelling starts from the source-only model."""
    batch: int = 8
    """Source images and as many target images per step."""
    lr: float = 0.0
    """0: the optimizer's."""
    head_factor: float = 0.0
    """0: the optimizer's."""
    colour: bool = True
    """Give source images the LAB statistics of random target images."""
    jitter: bool = True
    """Then blur them and change their colours, as ``augment`` has it for strong views."""
    adversarial: bool = True
    """Align the outputs on source and target with a discriminator."""
    adversarial_weight: float = 0.01
    """Of the segmenter's reward where the discriminator takes target outputs for the source's."""
    discriminator_lr: float = 1e-4
    """Of the discriminator's own Adam."""


@dataclass(frozen=True)
class SelfLabel:
    """Stage 1: online class-balanced self-labelling (CPSL sections 3.2 to 3.4)."""

    iterations: int = 400
    """0: no stage 1."""
    batch: int = 8
    """Source images and as many target images per step."""
    lr: float = 0.0
    """0: the optimizer's."""
    head_factor: float = 0.0
    """0: the optimizer's."""
    colour: bool = True
    """Give source images the LAB statistics of random target images."""
    flip: bool = True
    """Average the initialisation's predictions with those on the mirrored image (paper: not)."""
    labels: Literal["stored", "online"] = "stored"
    """Soft labels that are corrected. ``stored``: the initialisation's (paper); ``online``: the teacher's of the
    moment, as a mean teacher's."""
    rectify: bool = True
    """Correct the pseudo labels by the prototypes' cluster probabilities (else they stay fixed)."""
    rectify_by: Literal["shares", "alike"] = "shares"
    """How far. ``shares``: out of a class with less than the mean share, and into it, in proportion to its share, since
    prototypes of rare classes drift; ``alike``: fully (paper)."""
    align: bool = True
    """Assign under the class distribution of the pseudo labels (else under a uniform one)."""
    stratified: bool = True
    """Sample pixels in the class proportions of the pseudo labels (else uniformly)."""
    temperature: float = 0.08
    """Of the cluster probabilities softmax(cos / temperature)."""
    epsilon: float = 0.05
    """Entropy weight of the optimal transport."""
    sinkhorn_iterations: int = 3
    """Of the optimal transport: the more, the nearer the assignments come to the class distribution."""
    bank: int = 65536
    """Features kept in the memory bank. 0: assignments over the current batch alone."""
    pixels: int = 256
    """Pixels sampled per target image."""
    distribution_momentum: float = 0.99
    """Of the moving average of the class distribution. 1: fixed after the initialisation."""
    prototype_factor: float = 5.0
    """Prototypes learn this many times faster than the backbone."""
    prototype_momentum: float = 0.99
    """Of the averaged prototypes that rectify."""
    weight_source: float = 1.0
    """Of the cross-entropy on source labels. 0 removes it."""
    weight_target: float = 1.0
    """Of the symmetric cross-entropy on rectified labels. 0 removes it."""
    alpha: float = 1.0
    """Weight of the cross-entropy in the symmetric cross-entropy (paper: 0.1)."""
    beta: float = 0.0
    """Weight of the reverse cross-entropy in it (paper: 1): robust to wrong labels, and to rare classes."""
    trust: Literal["confidence", "alike"] = "confidence"
    """Weight of a pixel in it. ``confidence``: the probability of its rectified label; ``alike``: 1 (paper)."""
    balance: float = 0.5
    """Classes weigh as (share in the class distribution)^-balance in it, and in the loss on source labels. 0: all
    pixels weigh alike (paper)."""
    weight_selflabel: float = 0.1
    """Of the self-labelling loss. 0 removes it."""
    weight_consistency: float = 0.26
    """Of the weak-to-strong consistency, a mean over pixels (5 / 19 in the official scale). 0 removes it."""
    weight_contrast: float = 0.0
    """Of the contrast between target pixels and the memory bank, by their labels. 0 removes it."""
    weight_logits: float = 0.0
    """Of a second self-labelling loss, whose assignments come from the class-normalised logits of the
    teacher, with a bank of their own (B5). 0 removes it."""
    weight_uniform: float = 0.0
    """Of ProDA's regulariser, which pulls target predictions towards uniform ones. 0 removes it."""
    cutmix: float = 0.5
    """Probability of pasting a source region of half the area into the target's view. 0: never."""
    cutmix_by: Literal["image", "batch"] = "image"
    """Whether each image draws its own region, or the batch one for all."""
    target_view: Literal["strong", "weak"] = "strong"
    """View on which the rectified labels are learned. ``strong`` shares one pass with the
    consistency; ``weak`` is the paper's, at the price of one more pass."""
    teacher_view: Literal["weak", "whole"] = "weak"
    """What the teacher sees: the student's weak view, or the whole image at ``data.width`` (official)."""
    teacher_mode: Literal["eval", "train"] = "eval"
    """``train``: dropout on the features that are clustered, and the batch's own statistics (B3)."""
    assign_by: Literal["batch", "image"] = "batch"
    """Pixels that are assigned together: the batch's with the bank's; or each image's, with the bank's
    once it is full (official)."""
    bank_scores: Literal["cosine", "dot"] = "cosine"
    """Scores of the bank: as those of the current pixels, or with the prototypes' lengths in them (B4)."""
    bank_labels: Literal["own", "misplaced"] = "own"
    """``own``: pixels are drawn from the view, and carry their label. ``misplaced``: drawn at random from all
    that the teacher saw, with labels of other places (B1)."""
    kl_mean: Literal["pixels", "elements"] = "pixels"
    """The consistency's mean: over pixels, or over pixels and classes (B6)."""
    prototype_decay: float = 0.0
    """Weight decay of the prototypes."""


@dataclass(frozen=True)
class Distill:
    """Stages 2 and 3: confident pseudo labels into a freshly initialised student."""

    rounds: int = 2
    """0: adaptation ends with stage 1."""
    iterations: int = 400
    """Of each round."""
    batch: int = 8
    """Source images and as many target images per step."""
    lr: float = 0.0
    """0: the optimizer's."""
    head_factor: float = 0.0
    """0: the optimizer's."""
    colour: bool = True
    """Give source images the LAB statistics of random target images."""
    threshold: float = 0.95
    """Pseudo labels under this confidence are ignored."""
    flip: bool = True
    """Average the teacher's predictions with those on the mirrored image."""
    temperature: float = 1.0
    """Of both distributions in the distillation."""
    weight_source: float = 1.0
    """Of the cross-entropy on source labels. 0 removes it."""
    balance: float = 0.0
    """Classes weigh as (share among the teacher's labels)^-balance in it, as in stage 1. 0: all pixels weigh alike
    (paper)."""
    weight_target: float = 1.0
    """Of the cross-entropy on confident pseudo labels. 0 removes it."""
    weight_distill: float = 1.0
    """Of KL(teacher || student), a mean over pixels. 0 removes it."""
    kl_mean: Literal["pixels", "elements"] = "pixels"
    """The divergence's mean: over pixels, or over pixels and classes (B6)."""
    divergence: Literal["kl", "official"] = "kl"
    """``official``: probabilities where log-probabilities belong, which is no divergence (B2)."""
    teacher: Literal["stored", "live"] = "stored"
    """Whose full distribution is learned: the stored soft labels, carried to the strong view; or that of the
    previous stage's model run on the strong view in every step (official)."""
    weights: str = ""
    """Backbone weights of a fresh student, as ``network.weights``. Empty: those."""
    extra_norm: bool = False
    """``network.extra_norm`` of a fresh student."""
    student: Literal["fresh", "chained", "previous"] = "fresh"
    """Weights that a student starts from. ``fresh``: the pre-trained backbone, in every round;
    ``chained``: that in the first round, the round before in later ones (as in the official run);
    ``previous``: always the stage before."""


@dataclass(frozen=True)
class Selection:
    """Which network a stage leaves behind, and which stage's a run does: chosen on unlabelled target images."""

    by: Literal["agreement", "last"] = "agreement"
    """``agreement``: the network that keeps its labels best when pictures are disturbed, or the last of those that the
    images cannot tell from it. ``last``: that of the last iteration, and of the last stage."""
    candidates: int = 6
    """Networks of a stage that are compared, after equal numbers of iterations; stages that learn from the source
    alone or from target labels have none. 1: only the last."""
    images: int = 16
    """Target images that they are compared on, evenly spaced over the set."""
    average: bool = False
    """Give the run one more model to choose: the mean of the weights of stage 1 and of the rounds of distillation, as
    far back as each went on from the one before (``distill.student``)."""
    keep: bool = False
    """Keep the weights of all candidates. Where there are labelled target images each is measured on these too, and
    the table shows what an oracle would have chosen."""


PairSection = Warmup | SelfLabel | Distill
"""Of a stage that learns from source and target."""
Section = Supervised | PairSection
"""Of a stage that learns."""


@dataclass(frozen=True)
class Recipe:
    """All choices of a run."""

    method: Literal["cpsl", "official"] = "cpsl"
    """``cpsl``: the paper's method as we understand it. ``official``: the arithmetic of the official
    implementation, defects included; it sets the keys of `OFFICIAL`, each of which a recipe may still set."""
    start: str = ""
    """A model (.safetensors, or an official .pkl) from which self-labelling starts, in place of the
    source-only model and the warm-up."""
    seed: int = 0
    """Start of all randomness: same recipe, same seed, same weights to the bit on a CPU."""
    device: str = "auto"
    """``auto``: a GPU where there is one; or ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the network's arithmetic (bfloat16: autocast; losses stay in float32)."""
    log_every: int = 20
    """Iterations between two log lines."""
    save_every: int = 100
    """Iterations between two checkpoints."""
    tensorboard: bool = False
    """Write losses and scores for TensorBoard too, into ``RUN/tensorboard`` (extra ``tensorboard``)."""
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    network: Network = field(default_factory=Network)
    optimizer: Optimizer = field(default_factory=Optimizer)
    source: Supervised = field(default_factory=Supervised)
    """The source-only model: where adaptation starts from, and what it is compared with."""
    warmup: Warmup = field(default_factory=Warmup)
    selflabel: SelfLabel = field(default_factory=SelfLabel)
    distill: Distill = field(default_factory=Distill)
    ceiling: Supervised = field(default_factory=Supervised)
    """The reference model on ``data.ceiling``; give it time enough to be a fair one."""
    selection: Selection = field(default_factory=Selection)


OFFICIAL: dict[str, Any] = {
    "network.loss_stride": 4,
    "network.passes": "separate",
    "network.statistics": "trained",
    "optimizer.average": "constant",
    "optimizer.keep": "student",
    "optimizer.ramp": 0,
    "warmup.jitter": False,
    "augment.policy": "official",
    "augment.label_geometry": "replayed",
    "selflabel.alpha": 0.1,
    "selflabel.beta": 1.0,
    "selflabel.trust": "alike",
    "selflabel.balance": 0.0,
    "selflabel.flip": False,
    "selflabel.rectify_by": "alike",
    "selflabel.teacher_view": "whole",
    "selflabel.teacher_mode": "train",
    "selflabel.target_view": "weak",
    "selflabel.cutmix_by": "batch",
    "selflabel.assign_by": "image",
    "selflabel.bank_scores": "dot",
    "selflabel.bank_labels": "misplaced",
    "selflabel.stratified": False,
    "selflabel.distribution_momentum": 1.0,
    "selflabel.kl_mean": "elements",
    "selflabel.weight_consistency": 5.0,
    "selflabel.weight_contrast": 0.001,
    "selflabel.weight_logits": 0.1,
    "selflabel.prototype_decay": 2e-4,
    "distill.kl_mean": "elements",
    "distill.divergence": "official",
    "distill.teacher": "live",
    "selection.by": "last",
}
"""What ``method: official`` means, key by key: docs/fidelity.md has the reasons."""

IMMATERIAL = ("device", "log_every", "save_every", "tensorboard", "data.workers", "data.val.", "selection.keep")
"""Keys (or their beginnings) that may change when a run is continued: they cannot alter what is learned."""


def names() -> list[str]:
    """Names of the built-in recipes."""
    folder = resources.files("acclimate") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe file, or a built-in recipe by name, with ``key=value`` overrides over it.

    Raises:
        UserError: the file is missing or not YAML, or the recipe has problems (all are listed).
    """
    text, origin = read(name_or_path)
    try:
        tree, node = yamls.parse(text)
    except yamls.NotReadable as error:
        raise UserError(f"{origin}: not valid YAML: {error}") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"{origin}: a recipe is a mapping of keys to values, found {type(tree).__name__}")
    if twice := list(yamls.doubled(node)):
        raise UserError(f"{origin}: keys that stand twice: {', '.join(twice)}; leave one of each")
    for override in overrides:
        _lay_over(tree, override, origin)
    return parse(tree, origin)


def read(name_or_path: str | Path) -> tuple[str, str]:
    """Text of a recipe file or built-in recipe, and what to call it in messages.

    Raises:
        UserError: there is neither, or the file cannot be read.
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        try:
            return yamls.read_text(path), str(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such recipe file") from None
        except OSError as error:
            raise UserError(f"{path}: the recipe cannot be read: {error.strerror}") from None
        except yamls.NotReadable as error:
            raise UserError(f"{path}: the recipe cannot be read: {error}") from None
    if name not in names():
        raise UserError(
            f"{name}: neither a recipe file (*.yaml) nor a built-in recipe"
            f"{_nearest(name, names())}; built-in are: {', '.join(names())}"
        )
    built_in = resources.files("acclimate") / "recipes" / f"{name}.yaml"
    return built_in.read_text(encoding="utf-8"), name


def as_override(key: str, value: Any) -> str:
    """The ``key=value`` that `load` reads back as exactly this value: quoted, so that YAML does not interpret text."""
    plain = str(value) if isinstance(value, Path) else value
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=math.inf)
    text = text.removesuffix("...\n").strip("\n")  # YAML ends a bare value with a document's end
    return f"{key}={text}"


def parse(tree: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Build a recipe from nested mappings; raises one `UserError` listing every problem."""
    problems: list[str] = []
    if tree.get("method") == "official":
        tree = _with_official(tree)
    recipe = _build(Recipe, tree, "", problems)
    if not problems:
        problems = list(_contradictions(recipe))
    if problems:
        listing = "\n".join(f"  - {p}" for p in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError(f"{origin}: {count} in the recipe:\n{listing}")
    return recipe


def to_dict(recipe: Any) -> dict[str, Any]:
    """The recipe (or a section of it) as plain nested mappings, ready for YAML and JSON."""
    return {
        key: list(value) if isinstance(value, tuple) else to_dict(value) if dataclasses.is_dataclass(value) else value
        for key, value in ((f.name, getattr(recipe, f.name)) for f in dataclasses.fields(recipe))
    }


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings: ``{"data": {"width": 480}}`` → ``{"data.width": 480}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat.update(flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value})
    return flat


def difference(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ and matter, with the old and the new value."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    return {k: (before[k], after[k]) for k in after if before[k] != after[k] and not k.startswith(IMMATERIAL)}


def _lay_over(tree: dict[str, Any], override: str, origin: str) -> None:
    """Set one ``dotted.key=value``; the value is read as YAML."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"{_cut(override, 400)!r}: an override is written key=value, such as selflabel.iterations=500")
    *sections, leaf = key.split(".")
    for section in sections:
        inner = tree[section] = {} if tree.get(section) is None else tree[section]
        if not isinstance(inner, dict):
            raise UserError(
                f"{origin}: {section} is not a section there, so {_cut(override, 400)!r} cannot be laid over it"
            )
        tree = inner
    try:
        tree[leaf] = yamls.parse(value)[0] if value else ""
    except yamls.NotReadable as error:
        raise UserError(f"{_cut(override, 400)!r}: the value is not valid YAML: {error}") from None


def _with_official(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tree with the keys of `OFFICIAL` below what it says itself."""
    full: dict[str, Any] = dict(tree)
    for dotted, value in OFFICIAL.items():
        section, _, key = dotted.partition(".")
        inner = full.get(section)
        if inner is None or isinstance(inner, Mapping):  # what else it may be is told by `_build`
            full[section] = {key: value, **(inner or {})}
    return full


def _build(kind: type, tree: Any, prefix: str, problems: list[str]) -> Any:
    if not isinstance(tree, Mapping):
        problems.append(f"{prefix.rstrip('.')}: expected a section with keys, found {shown(tree)}")
        return kind()
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{_cut(key)}"
        if key not in hints:
            problems.append(f"{path}: unknown key{_nearest(_cut(key), hints)}")
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = _build(hints[key], {} if value is None else value, f"{path}.", problems)
        else:
            try:
                values[key] = _convert(value, hints[key])
            except ValueError as error:
                problems.append(f"{path}: {error}")
    built = kind(**values)
    problems.extend(f"{prefix}{problem}" for problem in _out_of_range(built) if problem.split(":")[0] in values)
    return built


def _convert(value: Any, hint: Any) -> Any:
    """The value in the hinted type, or a ValueError that says what was expected."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(
                f"expected one of {', '.join(map(str, arguments))}, found {shown(value)}{_nearest(value, arguments)}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(arguments):
            raise ValueError(f"expected a list of {len(arguments)} values, found {shown(value)}")
        return tuple(_convert(v, a) for v, a in zip(value, arguments, strict=True))
    if origin in (Union, types.UnionType):
        raise TypeError(f"unsupported hint {hint}")
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 (without a dot) as text
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"expected a number, found {shown(value)}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise ValueError("expected a finite number, found one beyond all bounds") from None
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if type(value) is not hint:
        expected = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
        raise ValueError(f"expected {expected}, found {shown(value)}")
    if hint is int and abs(value) >= 1 << 53:
        raise ValueError("expected a whole number below 2^53, found one beyond")
    if hint is str and not is_plain(value):
        raise ValueError(f"expected plain text without control characters, found {shown(value)}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {shown(value)}")
    return value


# Ranges by key name: one name means one thing in every section.
_POSITIVE = {
    "lr", "head_factor", "prototype_factor", "discriminator_lr", "temperature", "epsilon", "width", "batch",
    "log_every", "save_every", "channels", "sinkhorn_iterations", "pixels", "accumulate", "candidates", "images",
    "layer_decay",
}  # fmt: skip
_NOT_NEGATIVE = {
    "iterations", "bank", "limit", "rounds", "operations", "weight_decay", "power", "ramp", "alpha", "beta", "seed",
    "adversarial_weight", "weight_source", "weight_target", "weight_selflabel", "weight_consistency", "weight_distill",
    "weight_contrast", "weight_logits", "weight_uniform", "prototype_decay", "loss_stride", "clip",
}  # fmt: skip
_FRACTION = {
    "blur", "jitter", "magnitude", "cutout", "dropout", "drop_path", "momentum", "ema", "distribution_momentum",
    "prototype_momentum", "cutmix", "threshold",
}  # fmt: skip
WIDEST = 1 << 15
"""Greatest ``data.width``."""
_AT_MOST = {
    "width": WIDEST,
    "channels": 1 << 14,
    "bank": 1 << 24,
    "pixels": 1 << 20,
    "batch": 1 << 14,
    "layer_decay": 1,
}
"""Far beyond any use, but for the last: a slip of the keyboard should not end in a machine without memory."""


def _out_of_range(section: Any) -> Iterator[str]:
    for item in dataclasses.fields(section):
        name, value = item.name, getattr(section, item.name)
        stage_default = item.default == 0.0 and value == 0.0  # "the optimizer's"
        if name in _POSITIVE and value <= 0 and not stage_default:
            yield f"{name}: must be greater than 0, found {value}"
        elif name in _NOT_NEGATIVE and value < 0:
            yield f"{name}: must not be negative, found {value}"
        elif name in _FRACTION and not 0 <= value <= 1:
            yield f"{name}: must lie in 0 … 1, found {value}"
        elif name in _AT_MOST and value > _AT_MOST[name]:
            yield f"{name}: must be at most {_AT_MOST[name]}, found {value}"
        elif name == "crop" and max(value) > WIDEST:
            yield f"crop: height and width must be at most {WIDEST} pixels, found {list(value)}"
        elif name == "crop" and min(value) < 32:
            yield f"crop: height and width must be at least 32 pixels, found {list(value)}"
        elif name == "scale" and not 0 < value[0] <= value[1]:
            yield f"scale: expected [smallest, largest] with 0 < smallest <= largest, found {list(value)}"
        elif name == "workers" and value < -1:
            yield f"workers: must be -1 (automatic), 0 or more, found {value}"


def _contradictions(recipe: Recipe) -> Iterator[str]:
    if recipe.source.iterations == 0:
        yield "source.iterations: 0 would leave nothing to adapt; give at least 1"
    if recipe.data.ceiling.path and recipe.ceiling.iterations == 0:
        yield "ceiling.iterations: 0 would train no reference model; give at least 1, or leave out data.ceiling"
    if recipe.optimizer.ema == 1 or recipe.selflabel.prototype_momentum == 1:
        yield "optimizer.ema and selflabel.prototype_momentum: 1 would never take anything in; stay below 1"
    stage = recipe.selflabel
    if stage.iterations and stage.weight_source == stage.weight_target == stage.weight_consistency == 0:
        yield "selflabel: all of weight_source, weight_target and weight_consistency are 0, nothing would be learned"
    if stage.iterations and stage.weight_target and stage.alpha == stage.beta == 0:
        yield "selflabel: alpha and beta are both 0, weight_target has nothing to weigh; set weight_target: 0 instead"
    if stage.bank_labels == "misplaced" and stage.stratified:
        yield "selflabel.bank_labels: misplaced pixels have no labels to stratify by; set selflabel.stratified: false"
    if stage.teacher_view == "whole":
        if any(side % 8 for side in recipe.data.crop):
            yield "data.crop: with selflabel.teacher_view: whole, height and width must be multiples of 8"
        if recipe.network.architecture == "deeplab" and not recipe.network.loss_stride:
            yield "selflabel.teacher_view: whole needs network.loss_stride: 4 with architecture deeplab"
    if stage.weight_contrast and not stage.bank:
        yield "selflabel.weight_contrast: there is nothing to contrast with when selflabel.bank is 0"
    if recipe.network.extra_norm and recipe.network.architecture != "deeplab":
        yield "network.extra_norm: only architecture deeplab has one"
    if recipe.distill.extra_norm and recipe.network.architecture != "deeplab":
        yield "distill.extra_norm: only architecture deeplab has one"
    if recipe.network.drop_path and recipe.network.architecture == "deeplab":
        yield "network.drop_path: architecture deeplab leaves no branches out; set it to 0"
    yield from _indivisible(recipe)
    last = recipe.distill
    if last.rounds and last.iterations == 0:
        yield "distill: rounds without iterations; set distill.rounds: 0 to leave distillation out"
    if last.rounds and last.weight_source == last.weight_target == last.weight_distill == 0:
        yield "distill: all weights are 0, nothing would be learned"


def _indivisible(recipe: Recipe) -> Iterator[str]:
    parts = recipe.optimizer.accumulate
    for name in ("source", "warmup", "selflabel", "distill", *(("ceiling",) if recipe.data.ceiling.path else ())):
        section: Section = getattr(recipe, name)
        if section.iterations and section.batch % parts:
            yield f"optimizer.accumulate: {name}.batch is {section.batch}, which cannot be done in {parts} equal parts"


def _cut(key: Any, most: int = 80) -> str:
    text = key if isinstance(key, str) else shown(key)
    return text if len(text) <= most else text[:most] + "…"


def _nearest(word: Any, known: Iterable[Any]) -> str:
    close = difflib.get_close_matches(_cut(word), [str(k) for k in known], n=1)
    return f" (did you mean {close[0]}?)" if close else ""
