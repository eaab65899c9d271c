"""What baseline JPEG with 4:2:0 chroma does to pixels, for a batch of images on any device.

Entropy coding is lossless, so it is left out; every step that rounds is here, as in ITU-T T.81 and the JFIF
specification, with libjpeg's choices where the standard leaves one (4:2:0 averaging, triangle upsampling).
All arithmetic is on whole numbers held in float64, where sums are exact in any order: an image's result depends
on neither its batch nor its device.
"""

import math

import torch
import torch.nn.functional as F

# ITU-T T.81, annex K: the quantisation tables at quality setting 50.
_LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
         14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
         49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)  # fmt: skip
_CHROMA = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
           47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32)  # fmt: skip
_DCT_SCALE = 2**24
# JFIF's colour weights in 16-bit fixed point.
_TO_YCBCR = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_RED_FROM_CR, _BLUE_FROM_CB, _GREEN_FROM_CB, _GREEN_FROM_CR = 91881, 116130, -22554, -46802


def jpeg_round_trip(images, setting):
    """Encode and decode. images (B, 3, H, W) float in [0, 1]; setting (B, 1, 1, 1), whole, 1 (worst) to 100."""
    height, width = images.shape[2:]
    y, cb, cr = _to_ycbcr((images.double() * 255).round())
    y = _code_plane(y, _table(_LUMA, setting))
    chroma = _table(_CHROMA, setting)
    cb, cr = (_upsample(_code_plane(_subsample(plane), chroma)[:, :, : (width + 1) // 2]) for plane in (cb, cr))
    return (_to_rgb(y, cb[:, :height, :width], cr[:, :height, :width]) / 255).to(images.dtype)


def _table(base, setting):
    """(B, 1, 64): the base table scaled for each image's quality setting."""
    setting = setting.double().view(-1, 1, 1)
    scale = torch.where(setting < 50, (5000 / setting).floor(), 200 - 2 * setting)
    base = torch.tensor(base, dtype=torch.float64, device=setting.device)
    return ((base * scale + 50) / 100).floor().clamp(1, 255)


def _code_plane(plane, table):
    """Transform, quantise and restore the 8×8 blocks of a plane (B, H, W) of values 0–255."""
    batch, height, width = plane.shape
    plane = _replicate(plane, -height % 8, -width % 8) - 128
    rows, columns = plane.shape[1] // 8, plane.shape[2] // 8
    blocks = plane.view(batch, rows, 8, columns, 8).transpose(2, 3).reshape(batch, rows * columns, 64)
    transform = _dct_matrix(plane.device)
    coefficients = ((blocks @ transform.T) * (8 / _DCT_SCALE) + 0.5).floor()  # in eighths, as libjpeg keeps them
    coefficients = coefficients.sign() * ((coefficients.abs() + 4 * table) / (8 * table)).floor() * table
    blocks = ((coefficients @ transform) / _DCT_SCALE + 0.5).floor()
    plane = blocks.view(batch, rows, columns, 8, 8).transpose(2, 3).reshape(batch, rows * 8, columns * 8)
    return (plane[:, :height, :width] + 128).clamp(0, 255)


def _dct_matrix(device):
    """(64, 64): the orthonormal two-dimensional DCT-II of a flattened block, in fixed point."""
    n = torch.arange(8, dtype=torch.float64)
    one = torch.cos(math.pi / 8 * (n + 0.5) * n[:, None]) / 2
    one[0] /= math.sqrt(2)
    return (torch.kron(one, one) * _DCT_SCALE).round().to(device)


def _subsample(plane):
    """Average 2×2 pixels; the rounding alternates by column, so that it favours neither way."""
    plane = _replicate(plane, -plane.shape[1] % 2, -plane.shape[2] % 16)
    total = plane[:, ::2, ::2] + plane[:, 1::2, ::2] + plane[:, ::2, 1::2] + plane[:, 1::2, 1::2]
    bias = 1 + torch.arange(total.shape[2], device=plane.device) % 2
    return ((total + bias) / 4).floor()


def _upsample(plane):
    """Double both sides with the triangle filter: three quarters the nearer sample, one quarter the farther."""
    rows = F.pad(plane[:, None], (0, 0, 1, 1), mode="replicate")[:, 0]
    near = 3 * plane
    plane = torch.stack([near + rows[:, :-2], near + rows[:, 2:]], dim=2).flatten(1, 2)
    columns = F.pad(plane[:, None], (1, 1, 0, 0), mode="replicate")[:, 0]
    near = 3 * plane
    plane = torch.stack([near + columns[:, :, :-2] + 8, near + columns[:, :, 2:] + 7], dim=3).flatten(2, 3)
    return (plane / 16).floor()


def _to_ycbcr(rgb):
    half = 32768
    planes = [sum(w * rgb[:, c] for c, w in enumerate(weights)) for weights in _TO_YCBCR]
    y, cb, cr = ((plane + half - offset) / 65536 for plane, offset in zip(planes, (0, 1, 1)))
    return y.floor(), (cb + 128).floor(), (cr + 128).floor()


def _to_rgb(y, cb, cr):
    cb, cr = cb - 128, cr - 128
    red = y + ((_RED_FROM_CR * cr + 32768) / 65536).floor()
    green = y + ((_GREEN_FROM_CB * cb + _GREEN_FROM_CR * cr + 32768) / 65536).floor()
    blue = y + ((_BLUE_FROM_CB * cb + 32768) / 65536).floor()
    return torch.stack([red, green, blue], dim=1).clamp(0, 255)


def _replicate(plane, bottom, right):
    return F.pad(plane[:, None], (0, right, 0, bottom), mode="replicate")[:, 0]
