import cv2
import numpy as np
import pytest
import torch

from filters import filter_each

BORDERS = {"replicate": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("height, width", ((8, 9), (32, 32), (33, 8), (131, 20)))
@pytest.mark.parametrize("rows, columns", ((9, 9), (15, 1), (1, 15)))
def test_each_image_is_filtered_by_its_own_kernel_as_opencv_does(border, height, width, rows, columns):
    images, kernels = torch.rand(3, 2, height, width), torch.rand(3, 1, rows, columns)
    filtered = filter_each(images, kernels, border)
    for image, kernel, planes in zip(images.numpy(), kernels[:, 0].numpy(), filtered.numpy()):
        expected = [cv2.filter2D(plane, -1, kernel, borderType=BORDERS[border]) for plane in image]
        assert np.abs(planes - expected).max() < 1e-4
