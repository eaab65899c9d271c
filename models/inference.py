"""A trained run in your own code:

from models import load_run

run = load_run("experiments/resnet18_distorted")
run.predict(images).qualities
"""

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from models.blocks import blocks_of
from models.mixture import Mixture
from models.quality_map import QualityMap, interpolate
from models.quality_net import NETWORKS, Output, QualityNet
from models.tiles import WeightedMean, cut, split_tiles, tile_image, weigh
from utils.checkpoint import load_checkpoint, load_states
from utils.device import choose_device
from utils.errors import UserError
from utils.images import MIN_SIDE, to_rgb
from utils.runs import find_checkpoint

BATCH_PIXELS = 2**20  # pixels of images in one forward pass
LOCAL_PROBABILITY = 0.5  # of local distortions, from which on a tile counts as showing one


class Predictions(NamedTuple):
    """What a run says of N images, with K clusters and T types.

    `unknown` is False for all images of a run that was interrupted. An image of several tiles is
    judged by a mean of theirs, so it is flagged less often.
    """

    qualities: np.ndarray  # (N,) in 0–100, higher is better
    embeddings: np.ndarray  # (N, D)
    responsibilities: np.ndarray  # (N, K); rows sum to 1
    clusters: np.ndarray  # (N,) of the largest responsibility
    log_likelihoods: np.ndarray  # (N,) of the standardised embedding under the mixture
    type_probabilities: np.ndarray  # (N, T + 1) of the type head, pristine last; (N, 0) without it
    unknown: np.ndarray  # (N,) bool: less likely than 95 % of validation's images


class Run:
    """A network and its mixture as a checkpoint holds them.

    `config` is the run's configuration, `epoch` counts from 0, and `reference_digests` tell the
    references of training and validation by their pixels.
    """

    def __init__(self, model: QualityNet, mixture: Mixture, checkpoint: dict[str, Any]):
        self.model = model.eval()
        self.mixture = mixture
        self.config: dict[str, Any] = checkpoint["config"]
        types = self.config["types"]
        self._local_classes = [types.index(name) for name in self.config["local_types"]]
        self.epoch: int = checkpoint["epoch"]
        self.reference_digests: tuple[str, ...] = checkpoint["reference_digests"]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    def predict(self, images: torch.Tensor | np.ndarray | list[Image.Image]) -> Predictions:
        """Score images: uint8 (B, 3, H, W), or a list of PIL images. Sides are 8 pixels or more.

        A larger image than the training size is cut into tiles of about that size, which cover all
        of it. The heads read the tiles' mean embedding, in which busy tiles count more than flat
        ones. A distortion that lies in some places alone is judged by the tiles that show it.
        Memory does not grow with the image. Raises ValueError for images of another kind.
        """
        parts = [self._predict_same_size(_checked(batch)) for batch in _to_batches(images)]
        return Predictions(*(np.concatenate(values) for values in zip(*parts)))

    def quality_map(self, image: torch.Tensor | np.ndarray | Image.Image) -> QualityMap:
        """Say where an image is bad: a PIL image, or uint8 (H, W, 3) or (3, H, W).

        The network averages what it sees over an image before its heads read it. Here they read
        each place alone. Memory does not grow with the image, but for the map itself. Raises
        ValueError for images of another kind, and UserError for a network whose heads read more
        than such means.
        """
        if self.model.feature_count() != self.model.channels:
            raise UserError(
                f"network {self.config['recipe']['network']!r} has no quality map, because its "
                "heads read more than means over an image; expected 'plain'"
            )
        images = _checked(_to_single(image))
        height, width = images.shape[2:]
        qualities, type_probabilities = self._answer_cells(images)
        cell_side = self.model.cell_side
        return QualityMap(
            quality=interpolate(qualities, height, width, cell_side),
            type_probabilities=type_probabilities,
            cell_side=cell_side,
            types=tuple(self.config["types"]),
        )

    @torch.inference_mode()
    def _answer_cells(self, images):
        """Return qualities (rows, columns) and type probabilities (…, T + 1) of an image's cells.

        images: (1, 3, H, W).
        """
        height, width = images.shape[2:]
        cell_side = self.model.cell_side
        shape = (-(-height // cell_side), -(-width // cell_side))
        head = self.model.type_head
        qualities = np.empty(shape, np.float32)
        type_probabilities = np.empty((*shape, head.out_features if head else 0), np.float32)
        for rows, columns in blocks_of(height, width, cell_side):
            cells = feature_map(self.model, images[:, :, rows.pixels, columns.pixels])
            own = cells[0, :, rows.own, columns.own].permute(1, 2, 0)  # (rows, columns, C)
            output = self.model.read(own.flatten(0, 1))
            qualities[rows.cells, columns.cells] = output.quality.view(own.shape[:2]).cpu()
            if output.type_logits is not None:
                probabilities = output.type_logits.softmax(1).unflatten(0, own.shape[:2])
                type_probabilities[rows.cells, columns.cells] = probabilities.cpu()
        return qualities, type_probabilities

    def _predict_same_size(self, images):
        """Return Predictions for a batch."""
        height, width = images.shape[2:]
        groups = tile_image(height, width, self.config["image_size"])
        is_whole = len(groups) == 1 and len(groups[0].corners) == 1
        embed = self._embed if is_whole else partial(self._embed_tiles, groups=groups)
        blocks = images.split(max(1, BATCH_PIXELS // (height * width)))
        parts = [self._read(embed(block)) for block in blocks]
        return Predictions(*(np.concatenate(values) for values in zip(*parts)))

    def _embed(self, images):
        """Return embeddings (B, D) of images, or of tiles, of one size."""
        return forward(self.model, images).embedding

    @torch.inference_mode()
    def _embed_tiles(self, images, groups):
        """Return (B, D): the mean embedding of each image's tiles, by their weights.

        Where tiles show a local distortion, it is the mean of these tiles, if its quality is lower.
        """
        size = (len(images), self.config["embedding_dim"], self.device)
        everywhere, at_faults = WeightedMean(*size), WeightedMean(*size)
        for tiles in groups:
            tiles_at_once = BATCH_PIXELS // (tiles.height * tiles.width * len(images))
            for some in split_tiles(tiles, max(1, tiles_at_once)):
                pixels = cut(images, some).to(self.device)
                weights = weigh(pixels)
                embeddings = self._embed(pixels)
                everywhere.add(embeddings, weights)
                at_faults.add(embeddings, weights * self._show_local(embeddings))
        return self._choose_lower(everywhere.compute(), at_faults.compute())

    def _show_local(self, embeddings):
        """Tell which embeddings (N, D) are of a local distortion, by the type head: (N, 1) bool."""
        logits = self.model.read_embedding(embeddings).type_logits
        if logits is None:
            return torch.zeros_like(embeddings[:, :1], dtype=torch.bool)
        probabilities = logits.softmax(1)[:, self._local_classes]
        return probabilities.sum(1, keepdim=True) > LOCAL_PROBABILITY

    def _choose_lower(self, everywhere, at_faults):
        """Return of each pair of embeddings (B, D) the one of lower quality; of nan the other."""
        qualities = self.model.read_embedding(everywhere).quality
        is_lower = self.model.read_embedding(at_faults).quality < qualities
        return torch.where(is_lower[:, None], at_faults, everywhere)

    @torch.inference_mode()
    def _read(self, embeddings):
        """Return the Predictions that follow from embeddings (B, D)."""
        output = self.model.read_embedding(embeddings)
        log_joint = self.mixture.log_joint(embeddings)
        log_likelihoods = log_joint.logsumexp(1)
        responsibilities = log_joint.softmax(1)
        if output.type_logits is None:
            type_probabilities = embeddings[:, :0]
        else:
            type_probabilities = output.type_logits.softmax(1)
        answers = Predictions(
            qualities=output.quality.double(),
            embeddings=embeddings,
            responsibilities=responsibilities,
            clusters=responsibilities.argmax(1),
            log_likelihoods=log_likelihoods,
            type_probabilities=type_probabilities,
            unknown=log_likelihoods < self.mixture.ood_threshold,
        )
        return Predictions(*(values.cpu().numpy() for values in answers))


@torch.inference_mode()
def forward(model: QualityNet, images: torch.Tensor) -> Output:
    """Return the model's Output for images (B, 3, H, W) uint8, in evaluation mode and full float32.

    So an answer does not depend on the batch that an image is in.
    """
    with _full_precision(model):
        return model(images.to(next(model.parameters()).device))


@torch.inference_mode()
def feature_map(model: QualityNet, images: torch.Tensor) -> torch.Tensor:
    """Return the model's last features (B, C, rows, columns), computed as forward does."""
    with _full_precision(model):
        return model.feature_map(images.to(next(model.parameters()).device))


@contextmanager
def _full_precision(model):
    """Let a model be in evaluation mode, and compute in float32 and repeatably."""
    was_training = model.training
    model.eval()
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
    model.train(was_training)


def load_run(folder: str | Path, checkpoint: str = "best", device: str = "auto") -> Run:
    """Return the Run in an experiment's folder, which its name stands for too.

    checkpoint: 'best', which validation SRCC chose, or 'last'. Raises FileNotFoundError where
    there is none, and ValueError for a checkpoint that is damaged or not trained far enough.
    """
    path = find_checkpoint(folder, checkpoint)
    torch_device = choose_device(device)
    state = load_checkpoint(path)
    model, mixture = build(state["config"])
    load_states({"model": model, "mixture": mixture}, state, path)
    if not mixture.fitted:
        raise UserError(f"{path} has no mixture yet: its training has not reached the first refit")
    return Run(model.to(torch_device), mixture.to(torch_device), state)


def build(config: dict[str, Any], pretrained: bool = False) -> tuple[QualityNet, Mixture]:
    """Return the network and the mixture of a configuration, with fresh weights."""
    recipe = config["recipe"]
    has_type_head = config["type_loss_weight"] > 0
    model = NETWORKS[recipe["network"]](
        config["backbone"],
        config["stem"],
        config["embedding_dim"],
        type_count=len(config["types"]) + 1 if has_type_head else 0,
        pretrained=pretrained,
        cosine_stem=recipe["cosine_stem"],
        stages=recipe["stages"],
        joined_stages=recipe["joined_stages"],
    )
    mixture = Mixture(
        config["n_clusters"],
        config["embedding_dim"],
        covariance=recipe["covariance"],
        match_refits=recipe["match_refits"],
    )
    return model, mixture


def _to_batches(images):
    """Return batches (B, 3, H, W) of what predict takes, or raise UserError."""
    if isinstance(images, (torch.Tensor, np.ndarray)):
        return [images]
    is_list = isinstance(images, (list, tuple)) and len(images) > 0
    if not is_list or not all(isinstance(image, Image.Image) for image in images):
        raise UserError(
            "predict takes uint8 images (B, 3, H, W), or a list of one or more PIL images; "
            f"got {_describe(images)}"
        )
    return [np.array(to_rgb(image))[None].transpose(0, 3, 1, 2) for image in images]


def _describe(images):
    """Name what was given in place of images, and the way out where it is known."""
    if isinstance(images, Image.Image):
        return "one PIL image: put it in a list"
    if not isinstance(images, (list, tuple)) or not images:
        return f"{type(images).__name__} {images!r}"
    wrong = next(image for image in images if not isinstance(image, Image.Image))
    words = f"a list that holds {type(wrong).__name__}"
    return f"{words}: open it by PIL.Image.open" if isinstance(wrong, (str, Path)) else words


def _to_single(image):
    """Return what quality_map takes as a batch (1, 3, H, W), or raise UserError."""
    if isinstance(image, Image.Image):
        return _to_batches([image])[0]
    if not isinstance(image, (torch.Tensor, np.ndarray)) or image.ndim != 3 or 3 not in image.shape:
        got = type(image).__name__
        if isinstance(image, (torch.Tensor, np.ndarray)):
            got = f"{image.dtype} {tuple(image.shape)}"
        raise UserError(
            "quality_map takes one image: a PIL image, or uint8 values (H, W, 3) or (3, H, W); "
            f"got {got}"
        )
    image = image if isinstance(image, torch.Tensor) else torch.from_numpy(np.array(image))
    if image.shape[0] != 3:
        image = image.permute(2, 0, 1)
    return image[None]


def _checked(images):
    """Return images as a tensor, or raise UserError where they are not uint8 (B, 3, H, W)."""
    is_uint8 = images.dtype in (torch.uint8, np.uint8)
    if not is_uint8 or images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < MIN_SIDE:
        raise UserError(
            f"expected uint8 images (B, 3, H, W) with sides of {MIN_SIDE} or more, "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if isinstance(images, np.ndarray):
        return torch.from_numpy(np.array(images, order="C"))
    return images
