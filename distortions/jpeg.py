"""What baseline JPEG with 4:2:0 chroma does to pixels, on a CPU and on a GPU.

On a CPU libjpeg does it. On a GPU `jpeg_batched` does the same for a whole batch. Entropy coding
is lossless, so it is left out; every step that rounds is there, as in ITU-T T.81 and the JFIF
specification, with libjpeg's choices where the standard leaves one: its integer transform, 4:2:0
averaging and triangle upsampling. All values are whole multiples of a power of two that fit the
24 bits of float32, or the 53 of float64 in the transforms. So sums are exact in any order, and
every byte is libjpeg's.
"""

from functools import cache

import cv2
import torch
import torch.nn.functional as F

from distortions.uint8_ops import map_on_cpu, on_cpu

# ITU-T T.81, annex K: the quantisation tables at quality setting 50.
_LUMA_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA_TABLE = (
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # fmt: skip
# libjpeg's transform of 8 values: √8 times the orthonormal DCT-II, with 13 bits after the point.
# It is what the flow graph of Loeffler, Ligtenberg and Moschytz ("Practical fast 1-D DCT
# algorithms with 11 multiplications", ICASSP 1989) gives where each of its constants is rounded.
_DCT = (
    (8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363),
    (10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703),
    (9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633),
    (8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437),
    (4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433),
    (2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260),
)  # fmt: skip
# Bits that are rounded off after each of the two passes of the transform, in their order.
_FORWARD_ROW_BITS = 11
_FORWARD_COLUMN_BITS = 15
_INVERSE_COLUMN_BITS = 11
_INVERSE_ROW_BITS = 18
# JFIF's colour weights in 16-bit fixed point.
_ONE = 2**16
_Y_WEIGHTS = (19595, 38470, 7471)
_CB_WEIGHTS = (-11059, -21709, 32768)
_CR_WEIGHTS = (32768, -27439, -5329)
_RED_FROM_CR = 91881
_BLUE_FROM_CB = 116130
_GREEN_WEIGHTS = (-22554, -46802)  # of Cb and Cr


def jpeg_round_trip(images: torch.Tensor, setting: torch.Tensor) -> torch.Tensor:
    """Encode and decode images (B, H, W, 3) uint8.

    setting (B,) holds whole quality settings from 1 (worst) to 100, or 0, which leaves an image
    as it is.
    """
    if on_cpu(images):
        return map_on_cpu(images, _round_trip, setting.int().tolist())
    coded = jpeg_batched(images, setting.clamp(min=1))
    return torch.where(setting.view(-1, 1, 1, 1) > 0, coded, images)


def _round_trip(image, setting, output):
    if setting == 0:
        output[:] = image
        return
    options = (
        cv2.IMWRITE_JPEG_QUALITY,
        setting,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    )
    cv2.cvtColor(image, cv2.COLOR_RGB2BGR, output)
    _, file = cv2.imencode(".jpg", output, options)
    cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB, output)


def jpeg_batched(images: torch.Tensor, setting: torch.Tensor) -> torch.Tensor:
    """Do the same by tensor arithmetic, on any device, with settings (B,) from 1 on."""
    height, width = images.shape[1:3]
    luma, chroma = _to_ycbcr(images.permute(0, 3, 1, 2).float().contiguous())
    luma = _code(luma, _scaled_table(_LUMA_TABLE, setting))
    chroma = _code(_subsample(chroma), _scaled_table(_CHROMA_TABLE, setting))
    chroma = _upsample(chroma[..., : (width + 1) // 2])[:, :, :height, :width]
    return _to_rgb(luma, chroma).byte().permute(0, 2, 3, 1).contiguous()


def _scaled_table(base, setting):
    """Return (8, 8, B, 1): the base table scaled for each image's quality setting."""
    scale = torch.where(setting < 50, (5000 / setting).floor(), 200 - 2 * setting).view(-1, 1)
    base = _constant(base, setting.device).view(8, 8, 1, 1)
    return ((base * scale + 50) / 100).floor().clamp(1, 255)


def _code(planes, table):
    """Transform, quantise and restore 8×8 blocks of planes (B, C, H, W), values −128–127."""
    batch, _, height, width = planes.shape
    planes = _replicate(planes, -height % 8, -width % 8)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))
    blocks = blocks.permute(3, 5, 0, 1, 2, 4)  # (8, 8, B, C, rows of blocks, columns of blocks)
    flat = blocks.reshape(8, 8, -1).double()
    dct = _constant(_DCT, planes.device).double()
    flat = _transform_rows(flat, dct, _FORWARD_ROW_BITS)
    flat = _transform_columns(flat, dct, _FORWARD_COLUMN_BITS)
    coefficients = flat.float().view(8, 8, batch, -1)  # in eighths
    sizes = coefficients.abs().add_(4 * table).div_(8 * table).floor_().mul_(table)
    flat = sizes.copysign_(coefficients).view(8, 8, -1).double()
    flat = _transform_columns(flat, dct.T, _INVERSE_COLUMN_BITS)
    flat = _transform_rows(flat, dct.T, _INVERSE_ROW_BITS)
    flat = flat.clamp_(-128, 127).float()
    planes = flat.view(blocks.shape).permute(2, 3, 4, 0, 5, 1).reshape(planes.shape)
    return planes[:, :, :height, :width]


def _transform_columns(blocks, matrix, bits):
    """Multiply the columns of blocks (8, 8, N) by the matrix, and round this many bits off."""
    return _round_off((matrix @ blocks.flatten(1)).view(blocks.shape), bits)


def _transform_rows(blocks, matrix, bits):
    """Multiply the rows of blocks (8, 8, N) by the matrix, and round this many bits off."""
    return _round_off(matrix @ blocks, bits)


def _round_off(values, bits):
    return values.mul_(2.0**-bits).add_(0.5).floor_()


@cache
def _constant(values, device):
    return torch.tensor(values, dtype=torch.float32, device=device)


def _subsample(planes):
    """Average 2×2 pixels. The rounding alternates by column, so that it favours neither way."""
    planes = _replicate(planes, -planes.shape[2] % 2, -planes.shape[3] % 16)
    pairs = planes[:, :, ::2] + planes[:, :, 1::2]
    bias = 1 + torch.arange(pairs.shape[3] // 2, device=planes.device) % 2
    return (pairs[..., ::2] + pairs[..., 1::2]).add_(bias).div_(4).floor_()


def _upsample(planes):
    """Double both sides by the triangle filter: 3/4 of the nearer sample, 1/4 of the farther."""
    batch, channels, height, width = planes.shape
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    near = 3 * padded[:, :, 1:-1]
    rows = planes.new_empty(batch, channels, height, 2, width + 2)
    torch.add(near, padded[:, :, :-2], out=rows[:, :, :, 0])
    torch.add(near, padded[:, :, 2:], out=rows[:, :, :, 1])
    rows = rows.flatten(2, 3)
    near = 3 * rows[..., 1:-1]
    columns = planes.new_empty(batch, channels, 2 * height, width, 2)
    columns[..., 0] = (near + rows[..., :-2]).add_(8)
    columns[..., 1] = (near + rows[..., 2:]).add_(7)
    return columns.flatten(3, 4).div_(16).floor_()


def _to_ycbcr(rgb):
    """Return luma (B, 1, H, W) and chroma (B, 2, H, W), both less 128, as the transform needs."""
    planes = torch.empty_like(rgb)
    luma, cb, cr = planes.split(1, dim=1)
    _weighted_sum(rgb, _Y_WEIGHTS, output=luma)
    _weighted_sum(rgb, _CB_WEIGHTS, output=cb)
    _weighted_sum(rgb, _CR_WEIGHTS, output=cr)
    luma = planes[:, :1].add_(0.5 - 128).floor_()
    chroma = planes[:, 1:].add_(0.5 - 1 / _ONE).floor_()
    return luma, chroma


def _to_rgb(luma, chroma):
    cb, cr = chroma.split(1, dim=1)
    rgb = luma.new_empty(len(luma), 3, *luma.shape[2:])
    red, green, blue = rgb.split(1, dim=1)
    torch.mul(cr, _RED_FROM_CR / _ONE, out=red)
    torch.mul(cb, _BLUE_FROM_CB / _ONE, out=blue)
    _weighted_sum(chroma, _GREEN_WEIGHTS, output=green)
    return rgb.add_(luma + 128.5).floor_().clamp_(0, 255)


def _weighted_sum(planes, weights, output):
    """Write the sum of planes (B, C, H, W) under fixed-point weights to output (B, 1, H, W)."""
    torch.mul(planes[:, :1], weights[0] / _ONE, out=output)
    for channel, weight in enumerate(weights[1:], start=1):
        output.add_(planes[:, channel : channel + 1], alpha=weight / _ONE)


def _replicate(planes, bottom, right):
    """Repeat the last row and column of planes so many times."""
    if not bottom and not right:
        return planes
    return F.pad(planes, (0, right, 0, bottom), mode="replicate")
