"""Filters for a batch in which each image has a kernel of its own."""

import cv2
import torch
import torch.nn.functional as F

OPENCV_PIXELS = 48**2  # from here on a CPU filters plane by plane; below, the calls would cost more than the work
BORDERS = {"replicate": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}  # a mode of F.pad: OpenCV's


def filter_each(images, kernels, border):
    """Image i of images (B, C, H, W) correlated with kernel i of kernels (B, 1, h, w), of odd sides; border is one of
    BORDERS."""
    if images.device.type == "cpu" and images[0, 0].numel() >= OPENCV_PIXELS:
        return _filter_planes(images, kernels, border)
    channels, (above, beside) = images.shape[1], (side // 2 for side in kernels.shape[2:])
    planes = F.pad(images, (beside, beside, above, above), mode=border).flatten(0, 1)[None]
    with torch.autocast(images.device.type, enabled=False):  # the caller may train in bfloat16
        filtered = F.conv2d(planes, kernels.repeat_interleave(channels, dim=0), groups=planes.shape[1])
    return filtered.view(images.shape)


def _filter_planes(images, kernels, border):
    filtered = torch.empty_like(images)
    for image, kernel, output in zip(images.numpy(), kernels[:, 0].numpy(), filtered.numpy()):
        for plane, into in zip(image, output):
            cv2.filter2D(plane, -1, kernel, dst=into, borderType=BORDERS[border])
    return filtered
