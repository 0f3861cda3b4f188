"""Class-balanced self-labelling in a plain PyTorch training loop, with a network of torchvision.

    python examples/plugin.py renders photos classes.yaml

takes folders as README describes them. `SelfLabelling` is all that is added to the loop in `train`; `see` is all that
it needs to know of the network. docs/plugin.md explains both, and has `see` for segmentation_models.pytorch.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large
from torchvision.transforms.v2 import ColorJitter

from acclimate import selflabel as cpsl
from acclimate.labels import IGNORE, read_label_map

SIZE = (256, 128)
"""Width and height in pixels to which this example brings all images."""


def see(model, image_BCHW):
    """Logits and the features before the classifier, of the same height and width."""
    *layers, classifier = model.classifier
    feat_BDhw = torch.nn.Sequential(*layers)(model.backbone(image_BCHW)["out"])
    return classifier(feat_BDhw), feat_BDhw


class SelfLabelling(torch.nn.Module):
    """Soft pseudo labels, prototypes, memory bank and class distribution of images without labels."""

    @torch.no_grad()
    def __init__(self, see, model, photos_NCHW, bank=16384):
        super().__init__()
        seen = [see(model.eval(), photo_CHW[None]) for photo_CHW in photos_NCHW]
        classes, channels = seen[0][0].shape[1], seen[0][1].shape[1]
        means = cpsl.PrototypeMeans(classes, channels)
        for logits_BKhw, feat_BDhw in seen:
            means.add(feat_BDhw, logits_BKhw)
        self.soft_NKhw = torch.cat([logits_BKhw.softmax(1) for logits_BKhw, _ in seen])
        self.distribution_K = cpsl.label_shares(self.soft_NKhw.argmax(1), classes).float()
        # A class that the model never predicts starts anywhere: pixels that are assigned to it bring it home.
        self.prototypes = cpsl.Prototypes(means.means(torch.randn(classes, channels)), momentum=0.99)
        self.bank = cpsl.MemoryBank(bank, channels)

    def correct(self, index_B, feat_BDhw):
        """Pseudo labels of some photos, corrected by the clusters of their features."""
        found = cpsl.rectify(self.soft_NKhw[index_B], feat_BDhw, self.prototypes.average_KD)
        cpsl.follow(self.distribution_K, found.label_Bhw, momentum=0.99)
        return found.label_Bhw

    def loss(self, feat_BDhw, label_Bhw, pixels=64):
        """What the prototypes learn from: pixels drawn in the classes' shares, assigned under the same shares."""
        label_P, feat_PD = label_Bhw.flatten(), feat_BDhw.permute(0, 2, 3, 1).flatten(0, 2)
        chosen_N = cpsl.stratified_sample(label_P, self.distribution_K, pixels * len(label_Bhw))
        feat_ND, proto_KD = feat_PD[chosen_N], self.prototypes.weight_KD
        scores_NK, remembered_MK = (cpsl.similarity(feat, proto_KD) for feat in (feat_ND, self.bank.features()))
        assign_NK = cpsl.sinkhorn(scores_NK, self.distribution_K, remembered_MK=remembered_MK)
        self.bank.push(F.normalize(feat_ND, dim=1), label_P[chosen_N])
        return cpsl.self_labelling(feat_ND, proto_KD, assign_NK)


def train(model, see, source, photos_NCHW, steps, batch=4, lr=3e-4):
    """Adapt a model that was trained on the source; returns its average, and what it knows of the photos.

    ``source``: images (N x 3 x H x W, float) and labels (N x H x W, 255 is ignored). Photos are of one size, too.
    """
    ours = SelfLabelling(see, model, photos_NCHW)
    teacher = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    rates = [{"params": model.parameters()}, {"params": ours.parameters(), "lr": 5 * lr, "weight_decay": 0.0}]
    optimizer, strong = torch.optim.AdamW(rates, lr=lr), ColorJitter(0.4, 0.4, 0.4, 0.1)
    images_NCHW, labels_NHW = source
    for _ in range(steps):
        of_source, of_target = (torch.randint(len(images), (batch,)) for images in (images_NCHW, photos_NCHW))
        with torch.no_grad():
            _, taught_BDhw = see(teacher.module.eval(), photos_NCHW[of_target])
        label_Bhw = ours.correct(of_target, taught_BDhw)
        both = torch.cat([images_NCHW[of_source], strong(photos_NCHW[of_target])])
        on_source, on_target = see(model.train(), both)[0].split(batch)
        on_source = F.interpolate(on_source, labels_NHW.shape[1:], mode="bilinear")
        loss = cpsl.cross_entropy(on_source, labels_NHW[of_source], IGNORE)
        loss = loss + cpsl.symmetric_cross_entropy(on_target, label_Bhw) + 0.1 * ours.loss(taught_BDhw, label_Bhw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.update_parameters(model)
        ours.prototypes.update()
    return teacher.module.eval(), ours


def warm_up(model, see, source, steps, batch=4, lr=1e-3):
    """Plain training on the source, where any loop will do."""
    optimizer, (images_NCHW, labels_NHW) = torch.optim.AdamW(model.parameters(), lr=lr), source
    for _ in range(steps):
        index_B = torch.randint(len(images_NCHW), (batch,))
        logits_BKhw = F.interpolate(see(model.train(), images_NCHW[index_B])[0], labels_NHW.shape[1:], mode="bilinear")
        optimizer.zero_grad()
        cpsl.cross_entropy(logits_BKhw, labels_NHW[index_B], IGNORE).backward()
        optimizer.step()


def read(folder):
    """The images of a folder as one tensor."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".png", ".jpg"))
    arrays = [np.asarray(Image.open(path).convert("RGB").resize(SIZE), np.float32) / 255 for path in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def main(renders, photos, label_map, steps=200):
    """Train on the renders, adapt to the photos, write the weights."""
    space, table = read_label_map(label_map)
    paths = sorted(Path(renders, "labels").glob("*.png"))
    raw = [np.asarray(Image.open(path).resize(SIZE, Image.Resampling.NEAREST)) for path in paths]
    labels_NHW = torch.from_numpy(np.stack([table.encode(one, path) for one, path in zip(raw, paths, strict=True)]))
    source, photos_NCHW = (read(Path(renders, "images")), labels_NHW.long()), read(photos)
    model = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(space))
    warm_up(model, see, source, steps)
    adapted, ours = train(model, see, source, photos_NCHW, steps)
    print(dict(zip(space.classes, [round(share, 3) for share in ours.distribution_K.tolist()], strict=True)))
    torch.save(adapted.state_dict(), "adapted.pt")


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
