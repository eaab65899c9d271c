"""References × distortions → images with their quality. Run it to see every distortion:

    python distorted_dataset.py
    python distorted_dataset.py --references path/to/photos --image_size 96 \\
        --distortions all --output examples.png
"""

import sys

if __name__ == "__main__":
    try:
        from utils.startup import explain_import_errors
    except ImportError as problem:  # -I, -P or PYTHONSAFEPATH, or another folder's `utils`
        sys.exit(f"error: {problem}; run it as: python '{__file__}', without -I and -P")
    explain_import_errors()  # of the imports below, which take seconds

import argparse
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch

from distortions.apply import apply_distortion, distort
from distortions.effect import describe_ineffective, takes_effect
from distortions.labels import Labels, draw_labels
from distortions.registry import DISTORTION_TYPES, DISTORTIONS, PRISTINE, select_types
from distortions.sources_changed import stale_warning
from distortions.uint8_ops import map_on_cpu, on_cpu
from distortions.visibility import CURVE_IMAGES, VisibilityCurves, dissimilarity
from references.crops import Crops
from references.sizes import (
    NativeCrops,
    add_crop_flags,
    check_working_size,
    choose_crop,
    largest_side,
)
from utils.cli import MAX_SEED, int_in_range, make_parser, run_script
from utils.errors import UserError
from utils.images import MIN_SIDE, to_nchw
from utils.rng import FIXED, SPLITS, fold_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from references.sources import References

__all__ = ["DISTORTION_TYPES", "DistortedImage", "DistortedImageDataset", "apply_distortion"]
BLOCK_PIXELS = 2**20  # images are distorted together up to this many pixels, to fill the device
LARGEST_SHOWN = 128  # pixels: the side of the reference in the figure, where none is given
WORDS_OF_CROPS = {"native": "a crop at its own scale", "whole": "a whole scene"}
RECROP_WINDOWS = 2  # of each photograph, that tell whether a type has an effect on it
# Pixels around a crop of a photograph that are distorted with it. So blur has something to blur in
# at its edges, and JPEG's blocks may begin anywhere in it.
CROP_MARGIN = 16
_CROP = 0xC0  # folded into an image's key for the draw of its window
_NEIGHBOUR_CROP = 0xC1  # likewise, for the window of the part that cutmix puts into it


class DistortedImage(NamedTuple):
    """One image of a dataset, and what is true of it."""

    image: torch.Tensor  # (3, H, W) uint8
    quality: float  # 0–100, higher is better
    type: str  # a distortion's name, or "pristine"
    direction: int  # −1 or +1; 0 where the type has none
    level: float  # 0–1; 0 where pristine
    reference: int  # index into the references


class DistortedImageDataset:
    """Each reference once pristine, and `distortions_per_image` times distorted.

    These are R × (V + 1) images.
    Every draw is a hash of (seed, split, epoch, reference, variant). With redistort, `set_epoch`
    gives new types and levels; without, an epoch's draws are those of every other. With flip,
    each image starts from its reference in one of the eight orientations of a square. With
    cutmix, every second image has a part of another reference in place of its own (after Yun et
    al., "CutMix", ICCV 2019): no better and no worse, and harder to learn by heart. A type is not
    dealt to a reference that it does not change, such as color_saturation to a grey one. With
    recrop, references that are crops of photographs get a new window in every image; without,
    each has its fixed one. Such a window may be larger than a reference and is then shrunk, by a
    factor from smallest_scale to 1: photographs seen from further away are further scenes.
    """

    def __init__(
        self,
        references: "References",
        types: tuple[str, ...] = DISTORTION_TYPES,
        distortions_per_image: int = 5,
        seed: int = 0,
        split: str = "train",
        compose: int = 1,
        redistort: bool = True,
        flip: bool = False,
        cutmix: bool = False,
        recrop: bool = False,
        refinement: float = 0.0,
        smallest_scale: float = 1.0,
    ):
        self.references = references
        self.types = tuple(types)
        self.class_names = (*self.types, PRISTINE)
        self.variants = distortions_per_image
        self.compose = min(compose, len(self.types))
        self.redistort = redistort
        self.flip = flip
        self.cutmix = cutmix
        self.recrop = recrop and isinstance(references.images, Crops)
        self.smallest_scale = smallest_scale if self.recrop else 1.0
        self.margin = CROP_MARGIN if isinstance(references.images, Crops) else 0
        self._in_places = torch.tensor([DISTORTIONS[name].in_places for name in self.types])
        self._key = (seed, SPLITS.index(split))
        self.effective = self._find_effective()  # (R, T, 2) bool
        if not self.effective.any():
            raise UserError(
                f"none of the distortions {', '.join(self.types)} changes any of the "
                f"{len(references)} references: the images are without what they change, or they "
                "change nothing; look at them by python distorted_dataset.py, choose others by "
                "--distortions, or other images"
            )
        self.refinement = refinement
        if refinement:
            stride = -(-len(references) // CURVE_IMAGES)
            scenes = references.images[torch.arange(0, len(references), stride)]
            self._curves = VisibilityCurves(scenes, self.types)
        self.labels: Labels
        self.targets: torch.Tensor  # (N,) float32 in 0–100: the quality that is trained on
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the labels of this epoch."""
        self.labels = draw_labels(
            self._key,
            epoch if self.redistort else FIXED,
            reference_count=len(self.references),
            types=self.types,
            variants=self.variants,
            steps=self.compose,
            flip=self.flip,
            cutmix=self.cutmix,
            effective=None if self.effective.all() else self.effective,
        )
        self.targets = self.labels.quality.clone()

    def _find_effective(self):
        """Return (R, T, 2) bool: whether each type, in either direction, changes each reference.

        With new windows in every image, a type counts where it changes all of a few windows of the
        photograph.
        """
        images = self.references.images
        if not self.recrop:
            return takes_effect(images, self.types)
        _, first, photographs = np.unique(
            self.references.photographs, return_index=True, return_inverse=True
        )
        window = torch.arange(RECROP_WINDOWS).repeat(len(first))
        rows = torch.from_numpy(first).repeat_interleave(RECROP_WINDOWS)
        keys = fold_in(images.keys[rows], window)
        windows = Crops(images.photographs, images.rows[rows], keys, images.shape[1])
        effective = takes_effect(windows, self.types)
        of_photographs = effective.unflatten(0, (len(first), RECROP_WINDOWS)).all(1)
        return of_photographs[torch.from_numpy(photographs)]

    def describe_ineffective(self) -> str:
        """Return a line on types that some references do not get; "" where all get all."""
        return describe_ineffective(self.effective, self.types)

    def __len__(self) -> int:
        return len(self.references) * (self.variants + 1)

    def __getitem__(self, i: int) -> DistortedImage:
        i = self._checked_index(i)
        labels = self.labels
        return DistortedImage(
            image=self.images(torch.tensor([i]))[0],
            quality=labels.quality[i].item(),
            type=self.class_names[labels.main_type[i]],
            direction=int(labels.main_direction[i]),
            level=labels.main_level[i].item(),
            reference=int(labels.reference[i]),
        )

    def _checked_index(self, i):
        """Return the index from 0 on that i stands for, or raise IndexError."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return range(len(self))[i]

    def show(self, i: int) -> "Figure":
        """Draw image i beside its reference, with what was done to it, for a notebook."""
        from distortions.figures import plot_pair  # a slow import, not needed for --help

        item = self[i]
        starting_images = self._starting_images(torch.tensor([self._checked_index(i)]), "cpu")
        reference = self._cut(*starting_images)[0]
        title = f"{item.type}, level {item.level:.2f}, quality {item.quality:.0f}"
        return plot_pair(reference.numpy(), item.image.permute(1, 2, 0).numpy(), title)

    def images(self, indices: torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
        """Make the images at these indices (B,) on the device: (B, 3, H, W) uint8."""
        starting_images, places = self._starting_images(indices, device)
        images = starting_images
        for step in range(self.compose):
            images = self._distort_step(images, places, indices, step)
        images = self._cut(images, places)
        if self.refinement:
            self._refine_targets(indices, self._cut(starting_images, places), images)
        return to_nchw(images)

    def _distort_step(self, images, places, indices, step):
        """Return images (B, S, S, 3), each distorted as its labels (at `indices`) say of a step.

        What changes some places alone is drawn inside the references: in what lies around them it
        would be cut away.
        """
        labels = self.labels
        label = labels.type[indices, step]
        level = labels.level[indices, step]
        direction = torch.where(labels.direction[indices, step] < 0, -1, 1)
        keys = fold_in(labels.key[indices], step)
        if not self.margin:
            return distort(images, self.types, label, level, direction, keys)
        is_inside = self._in_places[label] & (label >= 0)
        around = torch.where(is_inside, -1, label)
        images = distort(images, self.types, around, level, direction, keys)
        rows = is_inside.nonzero()[:, 0]
        if len(rows):
            crops = self._cut(images[rows.to(images.device)], places[rows])
            draws = (label[rows], level[rows], direction[rows], keys[rows])
            crops = distort(crops, self.types, *draws)
            side = crops.shape[1]
            for crop, row, (top, left) in zip(crops, rows.tolist(), places[rows].tolist()):
                images[row, top : top + side, left : left + side] = crop
        return images

    def _cut(self, images, places):
        """Return (B, S, S, 3): the references at these places (B, 2) in what lies around them."""
        if not self.margin:
            return images
        side = self.references.images.shape[1]
        crops = images.new_empty((len(images), side, side, 3))
        for crop, image, (top, left) in zip(crops, images, places.tolist()):
            crop[:] = image[top : top + side, left : left + side]
        return crops

    def _refine_targets(self, indices, references, images):
        """Let the targets of images with one distortion follow how visible it is."""
        labels = self.labels
        is_single = (labels.type[indices] >= 0).sum(1) == 1
        rows = is_single.nonzero()[:, 0]
        chosen = indices[rows]
        rows = rows.to(images.device)
        measured = dissimilarity(references[rows], images[rows]).cpu()
        type_ = labels.type[chosen].max(1).values
        level = labels.level[chosen].max(1).values
        direction = labels.direction[chosen].sum(1)
        refined = self._curves.refine(measured, type_, direction, level, self.refinement)
        worst = torch.tensor([DISTORTIONS[name].worst_quality for name in self.types])
        self.targets[chosen] = 100 - (100 - worst[type_]).float() * refined

    def batches(
        self, order: torch.Tensor, batch_size: int, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (images (B, 3, H, W) uint8, indices (B,)) in this order.

        Several batches are distorted together.
        """
        pixels = math.prod(self.references.images.shape[1:3])
        batches_at_once = max(1, BLOCK_PIXELS // (pixels * batch_size))
        for block in order.split(batches_at_once * batch_size):
            images = self.images(block, device)
            yield from zip(images.split(batch_size), block.split(batch_size))

    def digest(self) -> str:
        """Return 16 hexadecimal digits of the references and the present draws."""
        digest = hashlib.sha256()
        digest.update(" ".join((*self.references.digests, *self.types)).encode())
        if isinstance(self.references.images, Crops):
            side = self.references.images.shape[1]
            digest.update(f" {side}+{self.margin} pixels, {self.recrop}".encode())
            if self.smallest_scale != 1:
                digest.update(f" from {self.smallest_scale}".encode())
        labels = self.labels
        for values in (
            labels.type,
            labels.level,
            labels.direction,
            labels.key,
            labels.orientation,
            labels.neighbour,
            labels.cutmix_width,
        ):
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _starting_images(self, indices, device):
        """Return the references on the device, mixed and flipped as drawn: (B, H, W, 3) uint8.

        Crops of photographs come with what lies around them. Also returns (B, 2): where the
        references are in it.
        """
        labels = self.labels
        keys = labels.key[indices]
        references = labels.reference[indices]
        images, places = self._copy_references(references, fold_in(keys, _CROP), device)
        mixed = labels.cutmix_width[indices].nonzero()[:, 0]
        if len(mixed):
            neighbours, _ = self._copy_references(
                labels.neighbour[indices[mixed]], fold_in(keys[mixed], _NEIGHBOUR_CROP), device
            )
            width = images.shape[2]
            replaced_width = labels.cutmix_width[indices[mixed]].to(device) * width
            is_replaced = torch.arange(width, device=device) < replaced_width[:, None]  # (M, W)
            mixed = mixed.to(device)
            images[mixed] = torch.where(is_replaced[:, None, :, None], neighbours, images[mixed])
        orientation = labels.orientation[indices]
        return _orient(images, orientation), _orient_places(places, orientation, self.margin)

    def _copy_references(self, references, crop_keys, device):
        images = self.references.images
        places = torch.zeros((len(references), 2), dtype=torch.int64)
        if self.margin:
            keys = crop_keys if self.recrop else images.keys[references]
            copies, places = images.draw_with_margin(
                references, keys, self.margin, self.smallest_scale
            )
        else:
            copies = images[references].contiguous()
        return copies.to(device, non_blocking=True), places


def _orient(images, orientation):
    """Mirror (bits 1 and 2) and transpose (bit 4) images (B, S, S, 3) by their orientation (B,)."""
    if on_cpu(images):
        return map_on_cpu(images, _orient_one, orientation.tolist())
    changes = {1: lambda x: x.flip(2), 2: lambda x: x.flip(1), 4: lambda x: x.transpose(1, 2)}
    for bit, change in changes.items():
        rows = (orientation & bit).nonzero()[:, 0].to(images.device)
        images[rows] = change(images[rows])
    return images


def _orient_one(image, orientation, output):
    """Do the same to one image (S, S, 3) in OpenCV."""
    if orientation & 1:
        image = cv2.flip(image, 1)
    if orientation & 2:
        image = cv2.flip(image, 0)
    if orientation & 4:
        image = cv2.transpose(image)
    output[:] = image


def _orient_places(places, orientation, margin):
    """Return where (B, 2) a reference is in its surroundings, once they have an orientation."""
    top, left = places.unbind(1)
    left = torch.where(orientation & 1 > 0, margin - left, left)
    top = torch.where(orientation & 2 > 0, margin - top, top)
    is_transposed = orientation[:, None] & 4 > 0
    return torch.where(is_transposed, torch.stack([left, top], 1), torch.stack([top, left], 1))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--references",
        default="builtin:photos",
        help="images to show: a folder or one file, 'photos', 'cifar10' or 'auto'; one is drawn",
    )
    add("--data_root", default="data", help="folder that holds CIFAR-10, or gets it")
    add(
        "--image_size",
        type=int_in_range(MIN_SIDE),
        help="side of the square reference, pixels (default: up to 128)",
    )
    add_crop_flags(parser)
    add(
        "--distortions",
        default="default",
        help="'default' (the eight), 'kadid' (KADID-10k's 25), 'all' (the eight and those of "
        "distortions/extra.py), or names separated by commas",
    )
    add("--output", default="distortion_examples.png", help="the figure's file")
    add("--seed", type=int_in_range(0, MAX_SEED), default=0, help="which reference, and its draws")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Draw every distortion of one reference at every level."""
    from matplotlib.backend_bases import FigureCanvasBase  # slow imports, not needed for --help

    from distortions.figures import example_rows, plot_distortion_examples
    from references.sources import resolve_source
    from utils.drawing import LONGEST_NAME, default_style, save_figure, shorten

    formats = FigureCanvasBase.get_supported_filetypes()
    if Path(args.output).suffix[1:].lower() not in formats:
        endings = ", ".join(formats)
        raise UserError(
            f"--output {args.output}: expected a file name that ends in one of {endings}"
        )
    types = select_types(args.distortions)
    source, warning = resolve_source(args.references, args.data_root)
    for problem in (warning, stale_warning()):
        if problem:
            print(f"warning: {problem}")
    references, crop = load_reference(args, source)
    reference = references.images[0].numpy()
    rows = example_rows(reference, types, args.seed)
    unchanged = [row.type for row in rows if all((row.images[-1] == reference).ravel())]
    if unchanged:
        print(f"this reference is not changed by {', '.join(dict.fromkeys(unchanged))}")
    side = len(reference)
    size = f"{side}×{side} pixels, {crop}"
    subtitle = f"{shorten(references.source, LONGEST_NAME)}, {size}"
    with default_style():
        figure = plot_distortion_examples(reference, rows, subtitle)
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, args.output, bbox_inches="tight")
    print(
        f"{args.output}: {len(rows)} rows of {len(types)} distortions, "
        f"reference {references.names[0]}, {size}"
    )


def load_reference(args: argparse.Namespace, source: str) -> tuple["References", str]:
    """Return the one reference that is drawn, cropped as in training, and words for what it is.

    source is what resolve_source made of --references.
    """
    from references.sources import load_test_references  # a slow import, not needed for --help

    side = args.image_size or largest_side(source, at_most=min(LARGEST_SHOWN, args.working_size))
    crop = args.crop
    if crop == "auto":
        crop, _ = choose_crop(source, side)
    crops = None
    if crop == "native":
        check_working_size(side, args.working_size)
        crops = NativeCrops(args.working_size, per_reference=1)
    references, _ = load_test_references(
        source,
        1,
        image_size=side,
        data_root=args.data_root,
        data_seed=args.seed,
        seed=args.seed,
        part="held_out" if source in ("cifar10", "photos") else "all",
        crops=crops,
    )
    return references, WORDS_OF_CROPS[crop]


if __name__ == "__main__":
    run_script(main, parse_args)
