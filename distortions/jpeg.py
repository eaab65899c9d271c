"""What baseline JPEG with 4:2:0 chroma does to pixels: on a CPU libjpeg itself, on a GPU the same for a whole batch.

Entropy coding is lossless, so `emulate` leaves it out; every step that rounds is in it, as in ITU-T T.81 and the JFIF
specification, with libjpeg's choices where the standard leaves one (its integer transform, 4:2:0 averaging, triangle
upsampling). All values are whole multiples of a power of two that fit float32's 24 bits, or float64's 53 in the
transforms, so that sums are exact in any order, and every byte is libjpeg's.
"""

from functools import cache

import cv2
import torch
import torch.nn.functional as F

from distortions.uint8_ops import each_on_cpu, one_by_one

# ITU-T T.81, annex K: the quantisation tables at quality setting 50.
_LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
         14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
         49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)  # fmt: skip
_CHROMA = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
           47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32)  # fmt: skip
# libjpeg's transform of 8 values, √8 times the orthonormal DCT-II, with 13 bits after the point: what comes of the flow
# graph by Loeffler, Ligtenberg and Moschytz ("Practical fast 1-D DCT algorithms with 11 multiplications", ICASSP 1989)
# where each of its constants is rounded.
_DCT = ((8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192), (11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363),
        (10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703), (9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633),
        (8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192), (6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437),
        (4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433),
        (2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260))  # fmt: skip
# Bits that are rounded off after each of the two passes.
_FORWARD_BITS, _BACK_BITS = (11, 15), (11, 18)
# JFIF's colour weights in 16-bit fixed point.
_FIXED = 2**16
_Y, _CB, _CR = (19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329)
_RED_FROM_CR, _BLUE_FROM_CB, _GREEN_FROM_CB, _GREEN_FROM_CR = 91881, 116130, -22554, -46802


def jpeg_round_trip(images, setting):
    """Encode and decode images (B, 3, H, W) uint8; setting (B,), whole, 1 (worst) to 100, or 0: left as it is."""
    if one_by_one(images):
        return each_on_cpu(images, _round_trip, setting.int().tolist())
    return torch.where(setting.view(-1, 1, 1, 1) > 0, emulate(images, setting.clamp(min=1)), images)


def _round_trip(image, setting, into):
    if setting == 0:
        into[:] = image
        return
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    cv2.cvtColor(image, cv2.COLOR_RGB2BGR, into)
    _, file = cv2.imencode(".jpg", into, (cv2.IMWRITE_JPEG_QUALITY, setting, *sampling))
    cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB, into)


def emulate(images, setting):
    """The same, by tensor arithmetic, on any device; setting from 1 on."""
    height, width = images.shape[2:]
    luma, chroma = _to_ycbcr(images.float().contiguous())
    luma = _code(luma, _table(_LUMA, setting))
    chroma = _code(_subsample(chroma), _table(_CHROMA, setting))
    chroma = _upsample(chroma[..., : (width + 1) // 2])[:, :, :height, :width]
    return _to_rgb(luma, chroma).byte()


def _table(base, setting):
    """(8, 8, B, 1): the base table scaled for each image's quality setting."""
    scale = torch.where(setting < 50, (5000 / setting).floor(), 200 - 2 * setting).view(-1, 1)
    base = _constant(base, setting.device).view(8, 8, 1, 1)
    return ((base * scale + 50) / 100).floor().clamp(1, 255)


def _code(planes, table):
    """Transform, quantise and restore the 8×8 blocks of planes (B, C, H, W) of values −128–127."""
    batch, _, height, width = planes.shape
    planes = _replicate(planes, -height % 8, -width % 8)
    blocks = (
        planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).permute(3, 5, 0, 1, 2, 4)
    )  # (8, 8, B, C, rows, columns)
    flat, dct = blocks.reshape(8, 8, -1).double(), _constant(_DCT, planes.device).double()
    across, down = _FORWARD_BITS
    coefficients = (
        _down(_across(flat, dct, across), dct, down).float().view(8, 8, batch, -1)
    )  # in eighths
    sizes = coefficients.abs().add_(4 * table).div_(8 * table).floor_().mul_(table)
    down, across = _BACK_BITS
    flat = _across(
        _down(sizes.copysign_(coefficients).view(8, 8, -1).double(), dct.T, down), dct.T, across
    )
    flat = flat.clamp_(-128, 127).float()
    return (
        flat.view(blocks.shape)
        .permute(2, 3, 4, 0, 5, 1)
        .reshape(planes.shape)[:, :, :height, :width]
    )


def _down(blocks, matrix, bits):
    """The columns of blocks (8, 8, N) under the matrix, less this many bits."""
    return _without(bits, (matrix @ blocks.flatten(1)).view(blocks.shape))


def _across(blocks, matrix, bits):
    """The rows of blocks (8, 8, N) under the matrix, less this many bits."""
    return _without(bits, matrix @ blocks)


def _without(bits, values):
    return values.mul_(2.0**-bits).add_(0.5).floor_()


@cache
def _constant(values, device):
    return torch.tensor(values, dtype=torch.float32, device=device)


def _subsample(planes):
    """Average 2×2 pixels; the rounding alternates by column, so that it favours neither way."""
    planes = _replicate(planes, -planes.shape[2] % 2, -planes.shape[3] % 16)
    pairs = planes[:, :, ::2] + planes[:, :, 1::2]
    bias = 1 + torch.arange(pairs.shape[3] // 2, device=planes.device) % 2
    return (pairs[..., ::2] + pairs[..., 1::2]).add_(bias).div_(4).floor_()


def _upsample(planes):
    """Double both sides with the triangle filter: three quarters the nearer sample, one quarter the farther."""
    batch, channels, height, width = planes.shape
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    near, above, below = 3 * padded[:, :, 1:-1], padded[:, :, :-2], padded[:, :, 2:]
    rows = planes.new_empty(batch, channels, height, 2, width + 2)
    torch.add(near, above, out=rows[:, :, :, 0])
    torch.add(near, below, out=rows[:, :, :, 1])
    rows = rows.flatten(2, 3)
    near, left, right = 3 * rows[..., 1:-1], rows[..., :-2], rows[..., 2:]
    columns = planes.new_empty(batch, channels, 2 * height, width, 2)
    columns[..., 0], columns[..., 1] = (near + left).add_(8), (near + right).add_(7)
    return columns.flatten(3, 4).div_(16).floor_()


def _to_ycbcr(rgb):
    """(luma (B, 1, H, W), chroma (B, 2, H, W)), both less 128, as the transform and the way back want them."""
    planes = torch.empty_like(rgb)
    for plane, weights in zip(planes.split(1, dim=1), (_Y, _CB, _CR)):
        _weigh(rgb, weights, plane)
    luma, chroma = planes.split((1, 2), dim=1)
    return luma.add_(0.5 - 128).floor_(), chroma.add_(0.5 - 1 / _FIXED).floor_()


def _to_rgb(luma, chroma):
    cb, cr = chroma.split(1, dim=1)
    rgb = luma.new_empty(len(luma), 3, *luma.shape[2:])
    red, green, blue = rgb.split(1, dim=1)
    torch.mul(cr, _RED_FROM_CR / _FIXED, out=red)
    torch.mul(cb, _BLUE_FROM_CB / _FIXED, out=blue)
    _weigh(chroma, (_GREEN_FROM_CB, _GREEN_FROM_CR), green)
    return rgb.add_(luma + 128.5).floor_().clamp_(0, 255)


def _weigh(planes, weights, total):
    """Write the planes' sum under weights in fixed point to total (B, 1, H, W)."""
    first, *others = zip(planes.split(1, dim=1), weights)
    torch.mul(first[0], first[1] / _FIXED, out=total)
    for plane, weight in others:
        total.add_(plane, alpha=weight / _FIXED)


def _replicate(planes, bottom, right):
    return F.pad(planes, (0, right, 0, bottom), mode="replicate") if bottom or right else planes
