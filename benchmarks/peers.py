"""What albumentations, kornia, and OpenCV in a plain loop have for the eight types, at one level.

Each function takes what its library takes and gives what it gives: albumentations and the loop
one (H, W, 3) uint8 array, kornia a batch (B, 3, H, W) of float32 in [0, 1]. MATCH says in what
they are alike. The parameters are those of the registry's tables.
"""

import os
from collections.abc import Callable

# Without it, importing albumentations asks the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import kornia
import numpy as np
import torch
from kornia.enhance import adjust_brightness, adjust_contrast_with_mean_subtraction
from kornia.enhance import adjust_saturation_with_gray_subtraction as adjust_saturation

from distortions.registry import DISTORTIONS, LEVELS

LEVEL = 0.8


def parameter_of(name: str) -> float:
    """Return a type's parameter at LEVEL, in the direction +1 where there are two."""
    return float(DISTORTIONS[name].tables[-1][LEVELS.index(LEVEL)])


SIGMA = parameter_of("gaussian_blur")  # pixels
LENGTH = round(parameter_of("motion_blur"))  # pixels; the peers take whole ones
DEVIATION = parameter_of("gaussian_noise")  # grey levels
SETTING = int(parameter_of("jpeg_compression"))
CHROMA = parameter_of("color_saturation")
CONTRAST = parameter_of("contrast")
SHIFT = parameter_of("brightness")  # grey levels
SIDE = int(parameter_of("pixelation"))  # pixels
TAPS = 15  # of the Gaussian
MATCH = {
    "gaussian_blur": f"sigma {SIGMA}, {TAPS} taps, mirrored borders",
    "motion_blur": f"{LENGTH} pixels at a free angle; "
    f"ours {parameter_of('motion_blur')}, in a kernel that has room for the longest",
    "gaussian_noise": f"standard deviation {DEVIATION} in each channel",
    "jpeg_compression": f"quality setting {SETTING}, 4:2:0; "
    "kornia's rounding is smooth, albumentations takes red for blue",
    "color_saturation": f"chroma × {CHROMA} about luma",
    "contrast": f"× {CONTRAST} about the mean luma",
    "brightness": f"+ {SHIFT:.0f} grey levels",
    "pixelation": f"blocks of {SIDE} pixels; "
    "ours begin at a free place, between pixels too; kornia has none",
}


def albumentations_transforms() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return {type: function of one image}."""
    transforms = {
        "gaussian_blur": A.GaussianBlur(blur_limit=(TAPS, TAPS), sigma_limit=(SIGMA, SIGMA), p=1),
        "motion_blur": A.MotionBlur(
            blur_limit=(LENGTH, LENGTH), allow_shifted=False, direction_range=(0, 0), p=1
        ),
        "gaussian_noise": A.GaussNoise(std_range=(DEVIATION / 255, DEVIATION / 255), p=1),
        "jpeg_compression": A.ImageCompression(quality_range=(SETTING, SETTING), p=1),
        "color_saturation": _color_jitter(saturation=(CHROMA, CHROMA)),
        "contrast": _color_jitter(contrast=(CONTRAST, CONTRAST)),
        "brightness": A.RandomBrightnessContrast((SHIFT / 255, SHIFT / 255), (0, 0), p=1),
        "pixelation": A.Downscale(
            scale_range=(1 / SIDE, 1 / SIDE),
            interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_NEAREST},
            p=1,
        ),
    }

    def to_function(transform):
        return lambda image: transform(image=image)["image"]

    return {name: to_function(transform) for name, transform in transforms.items()}


def _color_jitter(**changes):
    unchanged = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    return A.ColorJitter(**{**unchanged, **changes}, p=1)


def kornia_functions() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return {type: function of a batch}."""

    def repeated(value, images):
        return torch.full((len(images),), float(value), device=images.device)

    def gaussian_blur(images):
        sigma = repeated(SIGMA, images)[:, None].expand(-1, 2)
        return kornia.filters.gaussian_blur2d(images, TAPS, sigma)

    def motion_blur(images):
        angle = 360 * torch.rand(len(images), device=images.device)
        forward = torch.zeros_like(angle)  # as strong before a pixel as behind it
        return kornia.filters.motion_blur(images, LENGTH, angle, forward, "replicate", "bilinear")

    def jpeg_compression(images):
        return kornia.enhance.jpeg_codec_differentiable(images, repeated(SETTING, images))

    return {
        "gaussian_blur": gaussian_blur,
        "motion_blur": motion_blur,
        "gaussian_noise": lambda x: x + DEVIATION / 255 * torch.randn_like(x),
        "jpeg_compression": jpeg_compression,
        "color_saturation": lambda x: adjust_saturation(x, repeated(CHROMA, x)),
        "contrast": lambda x: adjust_contrast_with_mean_subtraction(x, repeated(CONTRAST, x)),
        "brightness": lambda x: adjust_brightness(x, repeated(SHIFT / 255, x)),
    }


def opencv_functions() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return {type: function of one image}."""
    random = np.random.default_rng(0)
    grey_levels = np.arange(256.0)
    shifted = (grey_levels + SHIFT).clip(0, 255).astype(np.uint8)

    def motion_blur(image):
        angle = random.uniform(0, 2 * np.pi)
        radius = LENGTH // 2
        reach = radius * np.array([np.cos(angle), np.sin(angle)])
        start = (256 * (radius - reach)).round().astype(int).tolist()  # in 256ths of a pixel
        end = (256 * (radius + reach)).round().astype(int).tolist()
        kernel = np.zeros((LENGTH, LENGTH), np.uint8)
        cv2.line(kernel, start, end, 255, 1, cv2.LINE_AA, shift=8)
        weights = kernel.astype(np.float32) / kernel.sum()
        return cv2.filter2D(image, -1, weights, borderType=cv2.BORDER_REPLICATE)

    def gaussian_noise(image):
        noise = random.standard_normal(image.shape, np.float32)
        return (image + DEVIATION * noise).round().clip(0, 255).astype(np.uint8)

    def jpeg_compression(image):
        blue_first = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        coded = cv2.imencode(".jpg", blue_first, (cv2.IMWRITE_JPEG_QUALITY, SETTING))[1]
        return cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def color_saturation(image):
        luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        grey = cv2.merge([luma, luma, luma])
        return cv2.addWeighted(image, CHROMA, grey, 1 - CHROMA, 0)

    def contrast(image):
        mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
        scaled = mean + CONTRAST * (grey_levels - mean)
        return cv2.LUT(image, scaled.round().clip(0, 255).astype(np.uint8))

    def pixelation(image):
        height, width = image.shape[:2]
        small = cv2.resize(image, (width // SIDE, height // SIDE), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)

    return {
        "gaussian_blur": lambda image: cv2.GaussianBlur(image, (TAPS, TAPS), SIGMA),
        "motion_blur": motion_blur,
        "gaussian_noise": gaussian_noise,
        "jpeg_compression": jpeg_compression,
        "color_saturation": color_saturation,
        "contrast": contrast,
        "brightness": lambda image: cv2.LUT(image, shifted),
        "pixelation": pixelation,
    }
