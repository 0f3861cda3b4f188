"""Segmentation networks, their averaged teacher, the discriminator, and files of weights."""

from __future__ import annotations

from pathlib import Path

import torch

from acclimate import recipe
from acclimate.networks import backbones
from acclimate.networks.average import Average
from acclimate.networks.context import Context
from acclimate.networks.deeplab import DeepLab
from acclimate.networks.discriminator import Discriminator
from acclimate.networks.segmenter import Features, Light, Pyramid, Segmenter

__all__ = ["Average", "Discriminator", "Features", "Segmenter", "build"]

RESNET101 = "resnet101.tv_in1k"
"""The ImageNet weights that the paper starts from, as timm names them."""


def build(network: recipe.Network, num_classes: int) -> Segmenter:
    """The network of a recipe with its first weights, in train mode, on the CPU, channels last.

    What starts random (the head, and the backbone with ``weights: none``) comes from torch's global
    generator: call ``torch.manual_seed`` beforehand, inside ``torch.random.fork_rng`` where the
    generator's state must not change. ``backbone``, ``channels`` and ``drop_path`` are for the architectures
    ``light`` and ``context``; ``deeplab`` has ResNet-101 and 256.

    Raises:
        UserError: unknown backbone, or weights that cannot be had or do not fit.
    """
    if network.architecture == "deeplab":
        built: Segmenter = _deeplab(network, num_classes)
    else:
        built = _on_timm(network, num_classes)
    built.choices = network
    return built.lay_out(torch.channels_last)  # a quarter faster on a CPU, and what GPUs prefer


def _on_timm(network: recipe.Network, num_classes: int) -> Light:
    backbone = backbones.create(network.backbone, network.weights, network.drop_path)
    if network.architecture == "context":
        head: Context | Pyramid = Context(backbone.channels, backbone.strides, network.channels)
    else:
        head = Pyramid(backbone.channels, network.channels)
    return Light(backbone, head, num_classes, network.channels, network.dropout)


def _deeplab(network: recipe.Network, num_classes: int) -> DeepLab:
    built = DeepLab(num_classes, network.dropout, network.extra_norm)
    if network.weights == "imagenet":
        backbones.fit(built, backbones.pretrained(RESNET101).state_dict(), RESNET101)
    elif network.weights != "none":
        backbones.fit(built, backbones.read_state(Path(network.weights)), network.weights)
    return built
