"""A trained run in a user's own code:

from models import load_run

run = load_run("experiments/resnet18_distorted")
run.predict(images).qualities
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from models.mixture import Mixture
from models.quality_net import QualityNet
from utils.checkpoint import load_checkpoint, load_states
from utils.device import choose_device
from utils.errors import UserError
from utils.images import to_rgb

MIN_SIDE = 8  # pixels
MAX_TILES = 64
PIXELS_AT_ONCE = 2**20  # pixels of images in one forward pass


class Predictions(NamedTuple):
    """For N images and K clusters."""

    qualities: np.ndarray  # (N,) in 0–100, higher is better
    embeddings: np.ndarray  # (N, D)
    responsibilities: np.ndarray  # (N, K), rows sum to 1
    clusters: np.ndarray  # (N,) of the largest responsibility
    log_likelihoods: np.ndarray  # (N,) of the standardised embedding under the mixture
    type_probabilities: (
        np.ndarray
    )  # (N, T + 1) of the type head, pristine last; (N, 0) without that head
    unknown: np.ndarray  # (N,) bool: less likely than 95 % of validation's images, so perhaps of an unknown distortion
    # (False for all from a run that was interrupted; an image of several tiles is judged by their mean, so less often)


class Run:
    """A network and its mixture as a checkpoint holds them. `config` is the run's configuration, `epoch` counts from 0,
    `reference_digests` tell the references of training and validation by their pixels."""

    def __init__(self, model, mixture, state):
        self.model, self.mixture = model.eval(), mixture
        self.config, self.epoch, self.reference_digests = (
            state["config"],
            state["epoch"],
            state["reference_digests"],
        )

    def predict(self, images):
        """Predictions for images: uint8 (B, 3, H, W), or a list of PIL images, sides of 8 pixels or more.

        An image larger than the training size is scored by tiles of that size, evenly spread, their answers averaged.
        Raises ValueError for images of another kind.
        """
        if isinstance(images, (torch.Tensor, np.ndarray)):
            batches = [images]
        elif (
            isinstance(images, (list, tuple))
            and images
            and all(isinstance(image, Image.Image) for image in images)
        ):
            batches = [np.array(to_rgb(image))[None].transpose(0, 3, 1, 2) for image in images]
        else:
            raise UserError(
                "predict takes uint8 images (B, 3, H, W), or a list of one or more PIL images"
            )
        answers = [self._predict_alike(_checked(batch)) for batch in batches]
        joined = [np.concatenate(values) for values in zip(*answers)]
        qualities, embeddings, responsibilities, log_likelihoods, type_probabilities = joined
        clusters, unknown = (
            responsibilities.argmax(1),
            log_likelihoods < self.mixture.unknown_below.item(),
        )
        return Predictions(
            qualities,
            embeddings,
            responsibilities,
            clusters,
            log_likelihoods,
            type_probabilities,
            unknown,
        )

    def _predict_alike(self, images):
        """Answers for images of one size, averaged over each image's tiles."""
        corners = tile_corners(*images.shape[2:], self.config["image_size"])
        height, width = (min(self.config["image_size"], side) for side in images.shape[2:])
        at_once = max(1, PIXELS_AT_ONCE // (height * width * len(corners)))
        answers = []
        for block in images.split(at_once):
            tiles = torch.stack(
                [block[:, :, y : y + height, x : x + width] for y, x in corners], dim=1
            )
            values = self._answer(tiles.flatten(0, 1))
            answers.append(
                [v.unflatten(0, (len(block), len(corners))).mean(1).cpu().numpy() for v in values]
            )
        return [np.concatenate(values) for values in zip(*answers)]

    @torch.inference_mode()
    def _answer(self, tiles):
        qualities, embeddings = forward(self.model, tiles)
        log_joint = self.mixture.log_joint(embeddings)
        types = (
            self.model.type_head(embeddings).softmax(1)
            if self.model.type_head
            else embeddings[:, :0]
        )
        return qualities.double(), embeddings, log_joint.softmax(1), log_joint.logsumexp(1), types


@torch.inference_mode()
def forward(model, images):
    """(qualities (B,), embeddings (B, D)) of images (B, 3, H, W) uint8, in evaluation mode and full float32, so that
    an answer does not depend on the batch that an image is in."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        output = model(images.to(device))
    model.train(was_training)
    return output.quality, output.embedding


def tile_corners(height, width, side):
    """[(top, left)] of at most 64 tiles of this side, evenly spread; one where the image is no larger."""
    rows, columns = math.ceil(height / side), math.ceil(width / side)
    if rows * columns > MAX_TILES:
        shrink = math.sqrt(MAX_TILES / (rows * columns))
        rows = min(MAX_TILES, max(1, int(rows * shrink)))
        columns = min(MAX_TILES // rows, max(1, int(columns * shrink)))
    tops = np.linspace(0, max(0, height - side), rows) if rows > 1 else [max(0, height - side) / 2]
    lefts = (
        np.linspace(0, max(0, width - side), columns) if columns > 1 else [max(0, width - side) / 2]
    )
    return [(int(round(top)), int(round(left))) for top in tops for left in lefts]


def load_run(folder, checkpoint="best", device="auto"):
    """The Run in an experiment's folder; checkpoint 'best' (chosen by validation SRCC) or 'last'."""
    path = Path(folder) / f"{checkpoint}.pt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; train first: python train_with_distortions.py --experiment_name …"
        )
    device, state = choose_device(device), load_checkpoint(path)
    model, mixture = build(state["config"])
    load_states({"model": model, "mixture": mixture}, state, path)
    if not mixture.fitted:
        raise UserError(f"{path} has no mixture yet: its training has not reached the first refit")
    return Run(model.to(device), mixture.to(device), state)


def build(config, pretrained=False):
    """(QualityNet, Mixture) of a configuration, with fresh weights."""
    type_count = len(config["types"]) + 1 if config["type_loss_weight"] > 0 else 0
    model = QualityNet(
        config["backbone"], config["stem"], config["embedding_dim"], type_count, pretrained
    )
    return model, Mixture(config["n_clusters"], config["embedding_dim"])


def _checked(images):
    alike = images.dtype in (torch.uint8, np.uint8) and images.ndim == 4
    if not alike or images.shape[1] != 3 or min(images.shape[2:]) < MIN_SIDE:
        raise UserError(
            f"expected uint8 images (B, 3, H, W) with sides of {MIN_SIDE} or more, "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    return (
        torch.from_numpy(np.array(images, order="C")) if isinstance(images, np.ndarray) else images
    )
