"""What albumentations, kornia, and OpenCV in a plain loop have for the eight types, at level 0.8.

Each function takes what its library takes and gives what it gives: albumentations and the loop one (H, W, 3) uint8
array, kornia a batch (B, 3, H, W) of float32 in [0, 1]. MATCH says in what they are alike.
"""

import os

os.environ.setdefault(
    "NO_ALBUMENTATIONS_UPDATE", "1"
)  # or its import asks the network for a newer version

import albumentations as A
import cv2
import kornia
import numpy as np
import torch
from kornia.enhance import adjust_brightness, adjust_contrast_with_mean_subtraction
from kornia.enhance import adjust_saturation_with_gray_subtraction as adjust_saturation

LEVEL = 0.8
# The tables of distortions.py at that level, in the direction +1.
SIGMA, LENGTH, DEVIATION, SETTING, CHROMA, CONTRAST, SHIFT, SIDE = (
    1.34,
    5,
    27.2,
    7,
    2.63,
    1.64,
    71,
    2,
)
TAPS = 15  # of the Gaussian
MATCH = {
    "gaussian_blur": "sigma 1.34, 15 taps, mirrored borders",
    "motion_blur": "5 pixels at a free angle; ours 5.37, in a kernel of 9×9 that has room for 8.67",
    "gaussian_noise": "standard deviation 27.2 in each channel",
    "jpeg_compression": "quality setting 7, 4:2:0; kornia's rounding is smooth, albumentations takes red for blue",
    "color_saturation": "chroma × 2.63 about luma",
    "contrast": "× 1.64 about the mean luma",
    "brightness": "+ 71 grey levels",
    "pixelation": "blocks of 2 pixels; ours begin at a free place, between pixels too; kornia has none",
}


def jitter(**changes):
    as_it_is = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    return A.ColorJitter(**as_it_is | changes, p=1)


def albumentations_transforms():
    """{type: function of one image}"""
    areas = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_NEAREST}
    transforms = {
        "gaussian_blur": A.GaussianBlur(blur_limit=(TAPS, TAPS), sigma_limit=(SIGMA, SIGMA), p=1),
        "motion_blur": A.MotionBlur(
            blur_limit=(LENGTH, LENGTH), allow_shifted=False, direction_range=(0, 0), p=1
        ),
        "gaussian_noise": A.GaussNoise(std_range=(DEVIATION / 255, DEVIATION / 255), p=1),
        "jpeg_compression": A.ImageCompression(quality_range=(SETTING, SETTING), p=1),
        "color_saturation": jitter(saturation=(CHROMA, CHROMA)),
        "contrast": jitter(contrast=(CONTRAST, CONTRAST)),
        "brightness": A.RandomBrightnessContrast((SHIFT / 255, SHIFT / 255), (0, 0), p=1),
        "pixelation": A.Downscale(scale_range=(1 / SIDE, 1 / SIDE), interpolation_pair=areas, p=1),
    }
    return {
        name: lambda image, apply=apply: apply(image=image)["image"]
        for name, apply in transforms.items()
    }


def kornia_functions():
    """{type: function of a batch}"""

    def motion_blur(images):
        angle = 360 * torch.rand(len(images), device=images.device)
        return kornia.filters.motion_blur(
            images, LENGTH, angle, torch.zeros_like(angle), "replicate", "bilinear"
        )

    def each(images, value):
        return torch.full((len(images),), value, device=images.device)

    return {
        "gaussian_blur": lambda x: kornia.filters.gaussian_blur2d(
            x, TAPS, each(x, SIGMA)[:, None].expand(-1, 2)
        ),
        "motion_blur": motion_blur,
        "gaussian_noise": lambda x: x + DEVIATION / 255 * torch.randn_like(x),
        "jpeg_compression": lambda x: kornia.enhance.jpeg_codec_differentiable(
            x, each(x, float(SETTING))
        ),
        "color_saturation": lambda x: adjust_saturation(x, each(x, CHROMA)),
        "contrast": lambda x: adjust_contrast_with_mean_subtraction(x, each(x, CONTRAST)),
        "brightness": lambda x: adjust_brightness(x, each(x, SHIFT / 255)),
    }


def opencv_functions():
    """{type: function of one image}"""
    random, grey_levels = np.random.default_rng(0), np.arange(256.0)
    shifted = (grey_levels + SHIFT).clip(0, 255).astype(np.uint8)

    def motion_blur(image):
        angle, centre = random.uniform(0, 2 * np.pi), np.array([LENGTH // 2] * 2)
        reach = LENGTH // 2 * np.array([np.cos(angle), np.sin(angle)])
        ends = [(256 * (centre + sign * reach)).round().astype(int).tolist() for sign in (-1, 1)]
        kernel = cv2.line(
            np.zeros((LENGTH, LENGTH), np.uint8), *ends, 255, 1, cv2.LINE_AA, shift=8
        ).astype(np.float32)
        return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)

    def gaussian_noise(image):
        noise = random.standard_normal(image.shape, np.float32)
        return (image + DEVIATION * noise).round().clip(0, 255).astype(np.uint8)

    def jpeg_compression(image):
        blue_first = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        coded = cv2.imencode(".jpg", blue_first, (cv2.IMWRITE_JPEG_QUALITY, SETTING))[1]
        return cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def color_saturation(image):
        grey = cv2.merge([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)] * 3)
        return cv2.addWeighted(image, CHROMA, grey, 1 - CHROMA, 0)

    def contrast(image):
        mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
        return cv2.LUT(
            image, (mean + CONTRAST * (grey_levels - mean)).round().clip(0, 255).astype(np.uint8)
        )

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
