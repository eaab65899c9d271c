"""Counter-based random numbers: each is a hash of an image's 64-bit key and a counter.

No generator carries state from one draw to the next. So an image's draws are the same on a CPU
and a GPU, for any batch size, order and number of workers, and any single image can be made again
alone (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the hash is
splitmix64's finaliser).
"""

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

SPLITS = ("train", "val", "test")
FIXED = -1  # stands for the epoch where draws never change


def _to_signed(word: int) -> int:
    """Return the int64 that has the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >= 1 << 63 else word


_INCREMENT = _to_signed(0x9E3779B97F4A7C15)
_CALL_INCREMENT = _to_signed(0xD1B54A32D192ED03)
_FACTOR_1 = 0xBF58476D1CE4E5B9
_FACTOR_2 = 0x94D049BB133111EB


def splitmix64(x: torch.Tensor) -> torch.Tensor:
    """Scramble int64 words, so that every input bit reaches every output bit.

    Products wrap around on purpose.
    """
    return _splitmix64_numpy(x) if x.device.type == "cpu" else _splitmix64_torch(x)


def _splitmix64_torch(x):
    x = _shift_right(x, 30).bitwise_xor_(x).mul_(_to_signed(_FACTOR_1))
    x = _shift_right(x, 27).bitwise_xor_(x).mul_(_to_signed(_FACTOR_2))
    return _shift_right(x, 31).bitwise_xor_(x)


def _shift_right(x, bits):
    """Shift zeros in from the left; torch's >> copies the sign bit of an int64."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _splitmix64_numpy(x):
    """Do the same in unsigned words, which torch cannot shift, in less than half the time."""
    x = x.numpy().view(np.uint64)
    shifted = np.empty_like(x)
    x = np.bitwise_xor(x, np.right_shift(x, np.uint64(30), out=shifted), out=np.empty_like(x))
    np.multiply(x, np.uint64(_FACTOR_1), out=x)
    np.bitwise_xor(x, np.right_shift(x, np.uint64(27), out=shifted), out=x)
    np.multiply(x, np.uint64(_FACTOR_2), out=x)
    np.bitwise_xor(x, np.right_shift(x, np.uint64(31), out=shifted), out=x)
    return torch.from_numpy(x.view(np.int64))


def fold_in(*fields: int | torch.Tensor) -> torch.Tensor:
    """Hash integers or int64 tensors, which broadcast, into int64 keys.

    The fields of an image's key are its seed, split, epoch, reference and variant.
    """
    key = torch.zeros((), dtype=torch.int64)
    for field in fields:
        word = splitmix64(torch.as_tensor(field, dtype=torch.int64) + _INCREMENT)
        key = splitmix64((key ^ word) + _INCREMENT)
    return key


def permutation(n: int, *fields: int | torch.Tensor) -> torch.Tensor:
    """Return a random order of 0 … n − 1, (n,) int64, that depends on the fields alone."""
    return torch.argsort(fold_in(*fields, torch.arange(n)), stable=True)


class CounterRNG:
    """The random numbers of a batch of images, from their keys (B,) int64.

    Each call gives new numbers, which depend on the key and on how many calls came before.
    """

    def __init__(self, keys: torch.Tensor):
        self.keys = keys
        self.calls = 0

    def bits(self, n: int) -> torch.Tensor:
        """Draw (B, n) int64 words, of which all 64 bits are random."""
        self.calls += 1
        call = _to_signed(self.calls * _CALL_INCREMENT & (1 << 64) - 1)
        stream = splitmix64(self.keys + call)
        return splitmix64(stream[:, None] + _counters(n, self.keys.device))

    def uniform(
        self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = (1,)
    ) -> torch.Tensor:
        """Draw (B, *shape) float32 numbers, evenly distributed in [low, high)."""
        words = self.bits(math.prod(shape))
        whole = (words >> 40).bitwise_and_((1 << 24) - 1)  # exact in float32 on every device
        values = whole.float().mul_((high - low) * 2**-24).add_(low)
        return values.view(len(words), *shape)

    def sign(self) -> torch.Tensor:
        """Draw (B,) float32 numbers that are −1 or +1 with even odds."""
        return torch.where(self.bits(1)[:, 0] < 0, -1.0, 1.0)

    def normal_like(self, images: torch.Tensor) -> torch.Tensor:
        """Draw standard normals, float32, in the shape of the images.

        They are the middles of 2**16 equally likely parts of the distribution, so |z| < 4.4.
        """
        count = images[0].numel()
        words = self.bits(-(-count // 4))
        parts = words.view(torch.uint16).int()  # four of each 64 bits
        normals = _normal_quantiles(parts.device).index_select(0, parts.flatten())
        return normals.view(len(parts), -1)[:, :count].reshape(images.shape)

    def for_image(self, i: int) -> "ImageRNG":
        """Return the random numbers of image i alone, for functions of one image."""
        return ImageRNG(CounterRNG(self.keys[i : i + 1].cpu()))


class ImageRNG:
    """The random numbers of one image, as numpy arrays."""

    def __init__(self, rng: CounterRNG):
        self.rng = rng

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: int | tuple | None = None) -> Any:
        """Draw a float in [low, high), or a float32 array of this shape."""
        if shape is None:
            return float(self.rng.uniform(low, high))
        if isinstance(shape, int):
            shape = (shape,)
        return self.rng.uniform(low, high, shape=shape)[0].numpy()

    def normal_like(self, image: np.ndarray) -> np.ndarray:
        """Draw standard normals, float32, in the shape of the image."""
        return self.rng.normal_like(torch.empty((1, *image.shape))).numpy()[0]


@lru_cache(maxsize=8)
def _counters(n, device):
    """Return (n,) int64 counters, far apart from each other."""
    return torch.arange(1, n + 1, device=device) * _INCREMENT


@cache
def _normal_quantiles(device):
    """Return the (2**16,) float32 middles of equally likely parts of the normal distribution."""
    shares = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
    return torch.special.ndtri(shares).float().to(device)
