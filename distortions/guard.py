"""Call a distortion that a user wrote, and say in one line what it must not do or return."""

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from utils.errors import Failed, UserError, describe_exception

PROJECT = Path(__file__).resolve().parent.parent
LONGEST_PROBLEM = 300  # characters of an exception's message: OpenCV's are pages
BRIGHTEST_MEAN = 4.0  # of an image in 0–1: beyond it nearly all is white, and bytes were returned


def describe(function: Any) -> str:
    """Name a distortion and its place: distortion 'snow' (distortions/extra.py, line 94)."""
    name = getattr(function, "__name__", None)
    title = f"distortion {name!r}" if name else f"a distortion of type {type(function).__name__}"
    code = code_of(function)
    if code is None:
        return f"{title} (no Python source)"
    return f"{title} ({show_path(code.co_filename)}, line {code.co_firstlineno})"


def code_of(function: Any) -> CodeType | None:
    """Return the code of a function, under its decorators, or None if it has none in Python."""
    inner = inspect.unwrap(function)
    inner = getattr(inner, "func", inner)  # of functools.partial
    inner = getattr(inner, "__func__", inner)  # of a method
    return getattr(inner, "__code__", None)


def show_path(filename: str) -> str:
    """Return a source file as a user knows it: from the project's folder, or a notebook's cell."""
    if "ipykernel_" in filename or filename.startswith("<ipython"):
        return "a cell of the notebook"
    path = Path(filename).resolve()
    for folder in (PROJECT, Path.cwd()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return filename


def call(function: Callable, *arguments: Any) -> Any:
    """Call a distortion, and raise Failed with its name and place for what it raises.

    Too little memory is not its fault: the training says what to do then.
    """
    try:
        # What it sets for gradients must not outlast it: a network may be trained around it.
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            return function(*arguments)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as problem:
        place = describe(function)
        if isinstance(problem, UserError) and str(problem).startswith(place):
            raise  # by @per_image, which calls the function under it by this one
        line = _raising_line(function, problem)
        raise Failed(
            f"{place} raised {_show_exception(problem)}{line}; correct it there"
        ) from problem


def _show_exception(problem):
    """Return an exception's type and message in one line of moderate length."""
    try:
        text = describe_exception(problem)
    except Exception:  # its own __str__ may be faulty
        text = type(problem).__name__
    if type(problem).__name__ == "error":  # of cv2, struct or zlib
        text = f"{type(problem).__module__}.{text}"
    if len(text) > LONGEST_PROBLEM:
        text = text[:LONGEST_PROBLEM] + "…"
    if isinstance(problem, FileNotFoundError) and not Path(str(problem.filename)).is_absolute():
        text += " (relative to the folder where Python was started)"
    return text


def _raising_line(function, problem):
    """Return the words that name the innermost line of the function's file in a traceback."""
    code = code_of(function)
    frames = traceback.extract_tb(problem.__traceback__)
    lines = [frame.lineno for frame in frames if code and frame.filename == code.co_filename]
    return f", in line {lines[-1]}" if lines else ""


def check_image(function: Callable, output: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return what a function of one image gave as (H, W, 3) uint8, or raise UserError.

    A PIL image of mode RGB and a tensor are taken too.
    """
    expected = f"an array of uint8 and shape {shape}"
    if _is_dense_bytes(output):
        output = output.cpu().numpy()
    elif isinstance(output, Image.Image) and output.mode == "RGB":
        output = np.asarray(output)
    if not isinstance(output, np.ndarray):
        _refuse(function, output, expected, _advise_on_type(output))
    if output.shape != shape:
        _refuse(function, output, expected, _advise_on_shape(output.shape, shape))
    if output.dtype != np.uint8:
        _refuse(function, output, expected, advise_on_values(output) or "return bytes")
    return np.asarray(output)


def advise_on_values(image: np.ndarray) -> str:
    """Say how to make bytes of an image's values, or return "" if that is not clear."""
    if image.dtype.kind not in "biuf" or image.size == 0:
        return ""
    if image.dtype == bool or (image.dtype.kind == "f" and image.max() <= 1):
        return "make bytes of 0–1 by `(255 * image).round().clip(0, 255).astype(np.uint8)`"
    return "make bytes of 0–255 by `image.round().clip(0, 255).astype(np.uint8)`"


def check_batch(
    function: Callable, output: Any, shape: tuple[int, ...], like: torch.Tensor, second: Any
) -> torch.Tensor:
    """Return what a function of a batch gave as a plain tensor, or raise UserError.

    shape: of the images that it got, and `like` has their dtype and device. second: its second
    argument (B, 1, 1, 1), to name the image that went wrong.
    """
    dtype = str(like.dtype).removeprefix("torch.")
    expected = f"a tensor of {dtype} and shape {shape}"
    if not isinstance(output, torch.Tensor):
        _refuse(function, output, expected, _advise_on_type(output, in_batch=True))
    if not _is_dense(output):
        _refuse(function, output, f"{expected}, dense", "convert it, by `.to_dense()` if sparse")
    if output.shape != shape:
        _refuse(function, output, expected, _advise_on_shape(output.shape, shape))
    if output.device != like.device:
        where = f"{expected} on {like.device}"
        advice = "keep to tensors on images.device, or end with `.to(images.device)`"
        _refuse(function, output, where, advice)
    output = output.detach().as_subclass(torch.Tensor)
    if like.dtype == torch.uint8:
        if output.dtype != torch.uint8:
            advice = "end it with `return images.round().clamp(0, 255).byte()`, values in 0–255"
            _refuse(function, output, expected, advice)
        return output
    if not output.is_floating_point():
        advice = "divide bytes by 255, or register the function with dtype='uint8'"
        _refuse(function, output, f"{expected}, of values in 0–1", advice)
    output = output.float()
    _check_values(function, output, second)
    return output


def _is_dense_bytes(output):
    """Tell whether numpy can take an object as a tensor of bytes."""
    is_bytes = isinstance(output, torch.Tensor) and output.dtype == torch.uint8
    return is_bytes and _is_dense(output) and not output.is_meta


def _is_dense(tensor):
    """Tell whether a tensor is plain numbers in memory."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested


def _check_values(function, images, second):
    """Raise UserError for images (B, H, W, 3) that are not finite, or hardly within 0–1."""
    means = images.flatten(1).mean(1)
    if (means.abs() <= BRIGHTEST_MEAN).all():  # false for nan too
        return
    is_finite = images.isfinite().flatten(1).all(1)
    if not is_finite.all():
        first = int((~is_finite).nonzero()[0])
        value = float(second[first]) if isinstance(second, torch.Tensor) else second
        names = list(inspect.signature(function).parameters)
        name = names[1] if len(names) > 1 else "its second argument"
        raise UserError(
            f"{describe(function)} returned values that are not finite (nan or inf) where {name} "
            f"is {value:.4g}; expected numbers in 0–1; look for a division by 0 or a root of a "
            "negative number"
        )
    raise UserError(
        f"{describe(function)} returned values of {images.min():.4g} to {images.max():.4g}, "
        "expected 0–1; divide bytes by 255, or end with `.clamp(0, 1)` if they are meant"
    )


def _refuse(function, output, expected, advice) -> NoReturn:
    returned = _show(output)
    raise UserError(f"{describe(function)} returned {returned}, expected {expected}; {advice}")


def _show(value):
    """Say what a returned object is."""
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        if value.is_nested:
            return f"a nested tensor of {dtype}"
        layout = "" if value.layout == torch.strided else f", {value.layout}"
        device = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"a tensor of {dtype} and shape {tuple(value.shape)}{layout}{device}"
    if isinstance(value, Image.Image):
        return f"a PIL image of mode {value.mode}"
    return f"an object of type {type(value).__name__}"


def _advise_on_type(output, in_batch=False):
    if output is None:
        name = "images" if in_batch else "image"
        return f"end it with `return {name}`, which must not be None, as of a failed cv2.imread"
    if isinstance(output, Image.Image) and not in_batch:
        return "end it with `return image.convert('RGB')`"
    if isinstance(output, torch.Tensor):
        return "make bytes of 0–255 by `image.round().clamp(0, 255).byte()`"
    if isinstance(output, dict) and "image" in output:
        return "return its value of 'image' alone"
    if in_batch and isinstance(output, np.ndarray | Image.Image):
        return "put @per_image between @distortion(…) and a function of one image"
    return "return the image alone" if not in_batch else "return one tensor of all images"


def _advise_on_shape(shape, expected):
    """Say how to get the expected shape, (H, W, 3) or (B, H, W, 3)."""
    shape = tuple(shape)
    *batch, height, width, _ = expected
    if not batch:
        advice = advise_on_image_shape(shape)
    elif len(shape) == 3 and shape[0] != batch[0]:
        advice = "keep the first dimension, of the images; a function of one image needs @per_image"
    else:
        advice = {
            (*batch, height, width): "repeat grey images by `images[..., None].repeat(1, 1, 1, 3)`",
            (*batch, height, width, 1): "repeat grey images by `images.repeat(1, 1, 1, 3)`",
            (*batch, height, width, 4): "leave out the fourth channel, by `images[..., :3]`",
            (*batch, 3, height, width): "move channels to the end, by `.permute(0, 2, 3, 1)`",
        }.get(shape, "")
    return advice or "give back the size that came, by cropping, padding or resizing"


def advise_on_image_shape(shape: tuple[int, ...]) -> str:
    """Say how to make (H, W, 3) of an array of this shape, or return "" if that is not clear."""
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        return "repeat a grey image for three channels, by `np.dstack([image] * 3)`"
    if len(shape) == 3 and shape[2] == 4:
        return "leave out the fourth channel, by `image[:, :, :3]`"
    if len(shape) == 3 and shape[0] == 3 != shape[2]:
        return "move channels to the end, by `image.transpose(1, 2, 0)`"
    return ""
