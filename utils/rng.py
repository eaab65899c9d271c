"""Counter-based random draws: each is a hash of an image's 64-bit key and a counter.

Because no generator carries state from one draw to the next, an image's draws are the same on a CPU and a GPU,
for any batch size, order or number of workers, and any single image can be made again alone
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the mix is splitmix64's finaliser).
"""

import math
from functools import cache, lru_cache

import numpy as np
import torch

PARTS = ("train", "val", "test")
FIXED = -1  # stands for the epoch where draws never change


def _signed(word):
    return word - (1 << 64) if word >= 1 << 63 else word


_STEP = _signed(0x9E3779B97F4A7C15)
_CALL = _signed(0xD1B54A32D192ED03)
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(x):
    """Scramble int64 words so that every input bit reaches every output bit; overflow wraps on purpose."""
    return _mix_in_numpy(x) if x.device.type == "cpu" else _mix_in_torch(x)


def _mix_in_torch(x):
    x = _shift_right(x, 30).bitwise_xor_(x).mul_(_signed(_MIX_1))
    x = _shift_right(x, 27).bitwise_xor_(x).mul_(_signed(_MIX_2))
    return _shift_right(x, 31).bitwise_xor_(x)


def _shift_right(x, bits):
    """Logical shift: torch's >> copies the sign bit of an int64."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_in_numpy(x):
    """The same in unsigned words, which torch cannot shift: in less than half the time."""
    x = x.numpy().view(np.uint64)
    shifted = np.empty_like(x)
    x = np.bitwise_xor(x, np.right_shift(x, np.uint64(30), out=shifted), out=np.empty_like(x))
    for factor, bits in ((_MIX_1, 27), (_MIX_2, 31)):
        np.multiply(x, np.uint64(factor), out=x)
        np.bitwise_xor(x, np.right_shift(x, np.uint64(bits), out=shifted), out=x)
    return torch.from_numpy(x.view(np.int64))


def make_key(*fields):
    """One int64 key from integers or int64 tensors, which broadcast: seed, part, epoch, reference, variant."""
    key = torch.zeros((), dtype=torch.int64)
    for field in fields:
        key = mix((key ^ mix(torch.as_tensor(field, dtype=torch.int64) + _STEP)) + _STEP)
    return key


def permutation(n, *fields):
    """A random order of 0 … n − 1 that depends on the fields alone, (n,) int64."""
    return torch.argsort(make_key(*fields, torch.arange(n)), stable=True)


class Draw:
    """The free draws of a batch of images, from their keys (B,) int64. Each call gives new numbers."""

    def __init__(self, keys):
        self.keys = keys
        self.calls = 0

    def bits(self, n):
        """(B, n) int64, all 64 bits random."""
        self.calls += 1
        stream = mix(self.keys + _signed(self.calls * _CALL & (1 << 64) - 1))
        return mix(stream[:, None] + _counter(n, self.keys.device))

    def uniform(self, low=0.0, high=1.0):
        """(B, 1, 1, 1) float32 in [low, high)."""
        return self.uniforms(1, low, high)[:, :, None, None]

    def uniforms(self, n, low=0.0, high=1.0):
        """(B, n) float32 in [low, high)."""
        whole = (self.bits(n) >> 40).bitwise_and_(
            (1 << 24) - 1
        )  # exact in float32, so equal on every device
        return whole.float().mul_((high - low) * 2**-24).add_(low)

    def sign(self):
        """(B, 1, 1, 1) float32, −1 or +1 with even odds."""
        return torch.where(self.bits(1) < 0, -1.0, 1.0)[:, :, None, None]

    def normal_like(self, images):
        """Standard normals in the shape of the images, float32: the middles of 2**16 equally likely parts of the normal
        distribution (|z| stays under 4.4)."""
        count = images[0].numel()
        parts = self.bits(-(-count // 4)).view(torch.uint16).int()  # four of each 64 bits
        normals = _normal_quantiles(parts.device).index_select(0, parts.flatten())
        return normals.view(len(parts), -1)[:, :count].reshape(images.shape)

    def image(self, i):
        """The draws of image i alone, as numpy arrays, for functions that handle one image at a time."""
        return ImageDraw(Draw(self.keys[i : i + 1].cpu()))


class ImageDraw:
    """The free draws of one image."""

    def __init__(self, draw):
        self.draw = draw

    def uniform(self, low=0.0, high=1.0, size=None):
        """A float in [low, high), or an array of `size` of them."""
        if size is None:
            return float(self.draw.uniforms(1, low, high))
        return (
            self.draw.uniforms(math.prod(size) if isinstance(size, tuple) else size, low, high)
            .numpy()
            .reshape(size)
        )

    def normal_like(self, image):
        """Standard normals in the shape of the image, float32."""
        return self.draw.normal_like(torch.empty((1, *image.shape))).numpy()[0]


@lru_cache(maxsize=8)
def _counter(n, device):
    """(n,) int64."""
    return torch.arange(1, n + 1, device=device) * _STEP


@cache
def _normal_quantiles(device):
    """(2**16,) float32."""
    return (
        torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16)
        .float()
        .to(device)
    )
