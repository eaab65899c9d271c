"""References × distortions → images with their quality. Run it to see every distortion at every level:

python distorted_dataset.py
python distorted_dataset.py --references path/to/photos --image_size 96 --distortions all --output examples.png
"""

import argparse
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from distortions.standard import (
    DISTORTION_TYPES,
    DISTORTIONS,
    MAX_LEVEL,
    MIN_LEVEL,
    MIN_SIDE,
    PRISTINE,
    apply_distortion,
    distort,
    select_types,
)
from distortions.uint8_ops import from_interleaved, interleaved
from utils.cli import MAX_SEED, HelpFormatter, run_script, whole
from utils.errors import UserError
from utils.rng import FIXED, PARTS, Draw, make_key

__all__ = [
    "DISTORTION_TYPES",
    "DistortedImage",
    "DistortedImageDataset",
    "Labels",
    "apply_distortion",
]
SEAM = (0.25, 0.75)  # of the width: where two references are joined
PIXELS_AT_ONCE = 2**20  # images are distorted together up to this many pixels, to fill the device


class DistortedImage(NamedTuple):
    image: torch.Tensor  # (3, H, W) uint8
    quality: float  # 0–100, higher is better
    type: str  # a distortion's name, or "pristine"
    direction: int  # −1 or +1; 0 where the type has none
    level: float  # 0–1; 0 where pristine
    reference: int  # index into the references


@dataclass(frozen=True)
class Labels:
    """What is true of each image of an epoch. With --compose an image has several steps, in order; −1 stands for no
    step. N images, S steps; `type` and `level` are those of the step that costs most quality."""

    reference: torch.Tensor  # (N,) int64
    variant: torch.Tensor  # (N,) int64; 0 is the pristine image
    steps: torch.Tensor  # (N, S) int64 index of a type, or −1
    step_level: torch.Tensor  # (N, S) float32
    step_direction: torch.Tensor  # (N, S) int64: −1, +1, or 0 where a type has no direction
    key: torch.Tensor  # (N,) int64
    orientation: (
        torch.Tensor
    )  # (N,) int64, 0–7: how the reference is turned before anything else; 0 leaves it
    neighbour: (
        torch.Tensor
    )  # (N,) int64: the reference whose left part replaces that of this one, before it is turned
    seam: (
        torch.Tensor
    )  # (N,) float32: where that part ends, as a share of the width; 0 where nothing is replaced
    quality: torch.Tensor  # (N,) float32
    type: torch.Tensor  # (N,) int64; the number of types stands for pristine
    level: torch.Tensor  # (N,) float32
    direction: torch.Tensor  # (N,) int64


class DistortedImageDataset:
    """Each reference once pristine and `distortions_per_image` times distorted: R × (V + 1) images.

    Every draw is a hash of (seed, part, epoch, reference, variant). With redistort, `set_epoch` gives new types and
    levels; without, an epoch's draws are those of every other. With turn, each image starts from its reference in
    one of the eight ways to turn and mirror a square, and with join every second one has a part of another reference in
    place of its own (after Yun et al., "CutMix", ICCV 2019): no better and no worse, and harder to learn by heart.
    """

    def __init__(
        self,
        references,
        types=DISTORTION_TYPES,
        distortions_per_image=5,
        seed=0,
        part="train",
        compose=1,
        redistort=True,
        turn=False,
        join=False,
    ):
        self.references = references
        self.types = tuple(types)
        self.class_names = (*self.types, PRISTINE)
        self.variants = distortions_per_image
        self.compose = min(compose, len(self.types))
        self.redistort = redistort
        self.turn, self.join = turn, join
        self._key = (seed, PARTS.index(part))
        self.set_epoch(0)

    def set_epoch(self, epoch):
        self.labels = self._draw_labels(epoch if self.redistort else FIXED)

    def __len__(self):
        return len(self.references) * (self.variants + 1)

    def __getitem__(self, i):
        """DistortedImage i: (image, quality, type, direction, level, reference)."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        at, labels = range(len(self))[i], self.labels
        values = labels.quality[at], labels.direction[at], labels.level[at], labels.reference[at]
        quality, direction, level, reference = (value.item() for value in values)
        image = self.images(torch.tensor([at]))[0]
        return DistortedImage(
            image, quality, self.class_names[labels.type[at]], direction, level, reference
        )

    def show(self, i):
        """A Figure for a notebook: image i beside its reference, with what was done to it."""
        from evaluation.plots import plot_pair  # a slow import, not needed for --help

        item, reference = self[i], self._references(torch.tensor([range(len(self))[i]]))[0]
        title = f"{item.type}, level {item.level:.2f}, quality {item.quality:.0f}"
        return plot_pair(reference.numpy(), item.image.numpy(), title)

    def images(self, indices, device="cpu"):
        """(B, 3, H, W) uint8 images at these indices (B,), made on the device."""
        labels = self.labels
        images = self._references(indices, device)
        for step in range(self.compose):
            direction = torch.where(labels.step_direction[indices, step] < 0, -1, 1)
            key = make_key(labels.key[indices], step)
            label, level = labels.steps[indices, step], labels.step_level[indices, step]
            images = distort(images, self.types, label, level, direction, key)
        return images

    def batches(self, order, batch_size, device="cpu"):
        """Yield (images (B, 3, H, W) uint8, indices (B,)) in this order; several batches are distorted together."""
        pixels = math.prod(self.references.images.shape[2:])
        together = max(1, PIXELS_AT_ONCE // (pixels * batch_size)) * batch_size
        for block in order.split(together):
            images = self.images(block, device)
            yield from zip(images.split(batch_size), block.split(batch_size))

    def digest(self):
        """16 hexadecimal digits of the references and the present draws."""
        labels, digest = self.labels, hashlib.sha256()
        digest.update(" ".join((*self.references.digests, *self.types)).encode())
        drawn = labels.steps, labels.step_level, labels.step_direction, labels.key
        for values in (*drawn, labels.orientation, labels.neighbour, labels.seam):
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _references(self, indices, device="cpu"):
        """(B, 3, H, W) uint8 on the device: what these images start from."""
        labels = self.labels
        pixels = self._copied(labels.reference[indices], device)
        joined = labels.seam[indices].nonzero()[:, 0]
        if len(joined):
            seams = labels.seam[indices[joined]].to(device)
            replaced = (
                torch.arange(pixels.shape[2], device=device) < seams[:, None] * pixels.shape[2]
            )  # (J, W)
            neighbours, joined = (
                self._copied(labels.neighbour[indices[joined]], device),
                joined.to(device),
            )
            pixels[joined] = torch.where(replaced[:, None, :, None], neighbours, pixels[joined])
        orientation = labels.orientation[indices]
        for bit, turned in (
            (1, lambda x: x.flip(2)),
            (2, lambda x: x.flip(1)),
            (4, lambda x: x.transpose(1, 2)),
        ):
            left = orientation & bit == 0
            if not left.all():
                pixels = torch.where(left.to(device)[:, None, None, None], pixels, turned(pixels))
        return from_interleaved(pixels)

    def _copied(self, references, device):
        """(B, H, W, 3) on the device."""
        return interleaved(self.references.images[references]).to(device, non_blocking=True)

    def _draw_labels(self, epoch):
        count, variants = len(self.references), self.variants
        reference = torch.arange(count).repeat_interleave(variants + 1)
        variant = torch.arange(variants + 1).repeat(count)
        key = make_key(*self._key, epoch, reference, variant)
        draw = Draw(make_key(key, 0x1AB))
        steps = self._draw_steps(epoch, draw, variant)
        level = torch.where(
            steps >= 0, draw.uniforms(self.compose, MIN_LEVEL, MAX_LEVEL), torch.zeros(())
        )
        two_way = torch.tensor(
            [bool(DISTORTIONS[name].directions) for name in self.types] + [False]
        )
        sign = torch.where(draw.bits(self.compose) < 0, -1, 1)
        direction = torch.where(two_way[steps], sign, 0)
        worst = torch.tensor(
            [float(DISTORTIONS[name].worst_quality) for name in self.types] + [100.0]
        )
        single = 100 - (100 - worst[steps]) * level  # (N, S); worst[−1] is the pristine 100
        main = single.argmin(1, keepdim=True)
        kind, level_of, direction_of = (
            values.gather(1, main)[:, 0] for values in (steps, level, direction)
        )
        kind = torch.where(kind < 0, len(self.types), kind)
        quality = 100 * (single / 100).prod(1)
        orientation = (draw.bits(1)[:, 0] & 7) * self.turn
        neighbour = (draw.uniforms(1)[:, 0] * count).long().clamp(max=count - 1)
        seam = draw.uniforms(1, *SEAM)[:, 0] * ((draw.bits(1)[:, 0] < 0) & self.join)
        return Labels(
            reference, variant, steps, level, direction, key, orientation, neighbour, seam,
            quality, kind, level_of, direction_of
        )  # fmt: skip

    def _draw_steps(self, epoch, draw, variant):
        """(N, S) types. The first step is dealt; a random number of further ones differ from it and each other."""
        first = torch.full((len(self.references), self.variants + 1), -1)
        first[:, 1:] = self._deal(epoch)
        steps = first.view(-1, 1)
        if self.compose == 1:
            return steps
        chances = draw.uniforms(len(self.types))  # the others, in the order of a random number each
        chances.scatter_(1, steps.clamp(min=0), 2.0)
        others = chances.argsort(1)[:, : self.compose - 1]
        extra = (draw.uniforms(1) * self.compose).floor()  # 0 … compose − 1
        wanted = (torch.arange(self.compose - 1) < extra) & (variant > 0)[:, None]
        return torch.cat([steps, torch.where(wanted, others, -1)], dim=1)

    def _deal(self, epoch):
        """(R, V) types, from one shuffled deck of types for each T references: an epoch holds each type equally often
        (±1), and a reference's types differ while there are enough."""
        types, count = len(self.types), len(self.references)
        blocks = -(-count // types)
        deck = make_key(
            *self._key, epoch, FIXED, torch.arange(blocks)[:, None], torch.arange(types)
        ).argsort(1)
        slot = torch.arange(types * self.variants) % types
        return deck[:, slot].reshape(blocks * types, self.variants)[:count]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add(
        "--references",
        default="photos",
        help="images to show: 'photos', 'cifar10', 'auto' or a folder; one is drawn",
    )
    add("--data_root", default="data", help="folder that holds CIFAR-10, or gets it")
    add(
        "--image_size",
        type=whole(MIN_SIDE),
        help="side of the square reference, pixels (default: up to 128)",
    )
    add(
        "--distortions",
        default="default",
        help="'default' (the eight), 'all', or names separated by commas",
    )
    add("--output", default="distortion_examples.png", help="the figure's file")
    add("--seed", type=whole(0, MAX_SEED), default=0, help="which reference, and its draws")
    return parser.parse_args(argv)


def main(args):
    from matplotlib.backend_bases import FigureCanvasBase  # a slow import, not needed for --help

    from evaluation.plots import plot_distortion_examples
    from references.sources import largest_side, load_training_references, resolve_source

    suffix, formats = (
        Path(args.output).suffix[1:].lower(),
        FigureCanvasBase.get_supported_filetypes(),
    )
    if suffix not in formats:
        raise UserError(
            f"--output {args.output}: expected a file name that ends in one of {', '.join(formats)}"
        )
    types = select_types(args.distortions)
    source, warning = resolve_source(args.references, args.data_root)
    if warning:
        print(f"warning: {warning}")
    side = args.image_size or largest_side(source, at_most=128)
    references, _ = load_training_references(source, 1, 0, side, args.data_root, args.seed)
    reference = references.images[0].permute(1, 2, 0).numpy()
    rows = example_rows(reference, types, args.seed)
    figure = plot_distortion_examples(reference, rows, f"{references.source}, {side}×{side} pixels")
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=100, bbox_inches="tight")
    print(
        f"{args.output}: {len(rows)} rows of {len(types)} distortions, reference {references.names[0]}"
    )


def example_rows(reference, types, seed, levels=(0.2, 0.4, 0.6, 0.8, 1.0)):
    """[(type, direction's name or "", [(image, quality) a level])]: a row for each type and direction."""
    rows = []
    for name in types:
        for direction, label in zip((-1, 1), DISTORTIONS[name].directions or ("",)):
            rows.append(
                (
                    name,
                    label,
                    [apply_distortion(reference, name, level, direction, seed) for level in levels],
                )
            )
    return rows


if __name__ == "__main__":
    run_script(main, parse_args)
