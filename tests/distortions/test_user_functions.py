"""What a user's own distortion may do, return and raise, and the one line that says it may not."""

import asyncio
import builtins
import functools
import random
import re

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from distortions.apply import distort
from distortions.registry import DISTORTIONS, distortion, per_image
from tests.helpers import distort_all
from utils.errors import Failed, UserError

TABLE = {"parameter": "share", "levels": (0, 0.1, 0.2, 0.3, 0.4, 0.5)}
IMAGES = (torch.arange(3 * 12 * 10 * 3) % 256).byte().view(3, 12, 10, 3)
NAMED = r"distortion 'snow' \(tests/distortions/test_user_functions.py, line \d+\)"


@pytest.fixture(autouse=True)
def restored_registry():
    """Forget what a test registers."""
    before = dict(DISTORTIONS)
    yield
    DISTORTIONS.clear()
    DISTORTIONS.update(before)


def register(body, single, table=False, dtype="float32"):
    """Register snow, which does body(images, rng), with a table or without, in either form."""

    def snow_by_level(images, level, direction, rng):
        return body(images, rng)

    def snow_by_table(images, parameter, rng):
        return body(images, rng)

    snow = snow_by_table if table else snow_by_level
    snow.__name__ = "snow"
    decorate = distortion(worst_quality=50, dtype=dtype, **(TABLE if table else {}))
    return decorate(per_image(snow) if single else snow)


def message_of(body, single, table=False, dtype="float32", kind=UserError):
    """Return the one line that a distortion's error is."""
    register(body, single, table, dtype)
    with pytest.raises(kind) as caught:
        distort_all("snow", IMAGES, 0.5)
    message = str(caught.value)
    assert re.match(NAMED, message), message
    assert "\n" not in message
    assert len(message) < 700
    return message


# What a function of one (H, W, 3) image returns, and the words that refuse it.
WRONG_IMAGES = {
    "forgotten return": (lambda x: None, "returned None, .*uint8 .*`return image`"),
    "grey": (lambda x: x[:, :, 0], r"shape \(12, 10\), .*dstack"),
    "grey of one channel": (lambda x: x[:, :, :1], r"\(12, 10, 1\), .*dstack"),
    "four channels": (lambda x: x[:, :, [0, 1, 2, 0]], r"\(12, 10, 4\), .*`image\[:, :, :3\]`"),
    "channels first": (lambda x: x.transpose(2, 0, 1), r"\(3, 12, 10\), .*transpose\(1, 2, 0\)"),
    "turned": (lambda x: x.transpose(1, 0, 2), r"\(10, 12, 3\), .*size that came"),
    "smaller": (lambda x: x[1:], r"\(11, 10, 3\), .*size that came"),
    "a batch": (lambda x: x[None], r"shape \(1, 12, 10, 3\)"),
    "scalar": (lambda x: x[0, 0, 0], "returned an object of type uint8"),
    "empty": (lambda x: x[:0], r"shape \(0, 10, 3\)"),
    "list": (lambda x: x.tolist(), "returned an object of type list"),
    "tuple": (lambda x: (x, 1), "object of type tuple, .*return the image alone"),
    "dict of albumentations": (lambda x: {"image": x}, "object of type dict, .*'image' alone"),
    "grey PIL": (lambda x: Image.fromarray(x).convert("L"), r"mode L, .*convert\('RGB'\)"),
    "RGBA PIL": (lambda x: Image.fromarray(x).convert("RGBA"), "mode RGBA"),
    "resized PIL": (lambda x: Image.fromarray(x).resize((4, 4)), r"shape \(4, 4, 3\)"),
    "tensor, channels first": (lambda x: torch.from_numpy(x).permute(2, 0, 1), r"\(3, 12, 10\)"),
    "sparse tensor": (lambda x: torch.from_numpy(x).to_sparse(), "tensor of uint8 .*sparse_coo"),
    "tensor of float32": (lambda x: torch.from_numpy(x) / 255, r"of float32 .*\.byte\(\)"),
    "tensor of bfloat16": (lambda x: torch.from_numpy(x).bfloat16(), "tensor of bfloat16"),
    "tensor without data": (lambda x: torch.from_numpy(x).to("meta"), "tensor of uint8 .* on meta"),
    "UMat": (lambda x: cv2.UMat(x), "object of type UMat"),
    "failed imread": (lambda x: cv2.imread("no.png"), "None, .*as of a failed cv2.imread"),
    "path": (lambda x: "snow.png", "object of type str"),
    "class": (lambda x: np.ndarray, "object of type type"),
    "NotImplemented": (lambda x: NotImplemented, "NotImplementedType"),
    "floats in 0–1": (lambda x: x / 255, r"of float64 .*\(255 \* image\).round\(\).clip"),
    "floats in 0–255": (lambda x: x * 1.0, r"0–255 by `image.round\(\).clip\(0, 255\).astype"),
    "float16": (lambda x: x.astype(np.float16), "array of float16"),
    "nan": (lambda x: x * np.nan, "array of float64"),
    "bool": (lambda x: x > 9, "array of bool"),
    "int64": (lambda x: x.astype(int), "array of int64 .*astype"),
    "int8": (lambda x: x.astype(np.int8), "array of int8"),
    "uint16": (lambda x: x.astype(np.uint16), "array of uint16"),
    "objects": (lambda x: x.astype(object), "array of object"),
    "text": (lambda x: x.astype(str), "array of <U3"),
}


@pytest.mark.parametrize("table", (False, True), ids=("level", "table"))
@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_a_wrong_image_is_refused_in_one_line(case, table):
    change, words = WRONG_IMAGES[case]

    message = message_of(lambda image, rng: change(image), single=True, table=table)

    assert re.search(words, message), message
    assert "expected an array of uint8 and shape (12, 10, 3); " in message


def test_images_of_different_sizes_are_refused():
    heights = iter((12, 11, 10))

    message = message_of(lambda image, rng: image[: next(heights)], single=True)

    assert "returned an array of uint8 and shape (11, 10, 3)" in message


# What a function of a batch returns, of float32 or of uint8 images.
WRONG_BATCHES = {
    "forgotten return": (lambda x: None, "returned None, .*`return images`"),
    "numpy": (lambda x: x.numpy(), "returned an array of .*put @per_image"),
    "list": (lambda x: list(x), "object of type list, .*one tensor"),
    "tuple": (lambda x: (x, x), "object of type tuple"),
    "one image": (lambda x: x[0], r"shape \(12, 10, 3\), .*needs @per_image"),
    "grey": (lambda x: x[..., 0], r"shape \(3, 12, 10\), .*images\[..., None\]"),
    "grey of one channel": (lambda x: x[..., :1], r"\(3, 12, 10, 1\), .*repeat\(1, 1, 1, 3\)"),
    "four channels": (lambda x: x[..., [0, 1, 2, 0]], r"\(3, 12, 10, 4\), .*images\[..., :3\]"),
    "channels first": (lambda x: x.permute(0, 3, 1, 2), r"\(3, 3, 12, 10\), .*permute\(0, 2, 3"),
    "fewer images": (lambda x: x[1:], r"shape \(2, 12, 10, 3\)"),
    "smaller": (lambda x: x[:, 1:], r"\(3, 11, 10, 3\), .*size that came"),
    "resized in place": (lambda x: x.resize_(3, 2, 2, 3), r"shape \(3, 2, 2, 3\), expected .*12"),
    "sparse": (lambda x: x.to_sparse(), "sparse_coo, expected .*to_dense"),
    "another device": (lambda x: x.to("meta"), r"on meta, expected .*\.to\(images.device\)"),
    "nested": (lambda x: torch.nested.nested_tensor([x[0]]), "returned a nested tensor of"),
    "scalar": (lambda x: torch.tensor(5), r"shape \(\)"),
    "iterator": (iter, "object of type generator|iterator"),
    "complex": (lambda x: x * 1j, "tensor of complex64"),
    "bool": (lambda x: x > 0, "tensor of bool"),
    "int64": (lambda x: x.long(), "tensor of int64"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("dtype", ("float32", "uint8"))
@pytest.mark.parametrize("table", (False, True), ids=("level", "table"))
@pytest.mark.parametrize("case", WRONG_BATCHES)
def test_a_wrong_batch_is_refused_in_one_line(case, table, dtype):
    change, words = WRONG_BATCHES[case]

    message = message_of(lambda images, rng: change(images), False, table, dtype)

    assert re.search(words, message), message
    assert f"expected a tensor of {dtype} and shape (3, 12, 10, 3)" in message


@pytest.mark.parametrize(
    "dtype, change, words",
    (
        ("uint8", lambda x: x / 255, r"tensor of float32 .*round\(\).clamp\(0, 255\).byte\(\)"),
        ("float32", lambda x: (255 * x).byte(), "tensor of uint8 .*divide bytes by 255"),
        ("float32", lambda x: 255 * x, "values of 0 to 255, expected 0–1; divide bytes by 255"),
        ("float32", lambda x: x * torch.nan, "not finite .* where level is 0.5"),
        ("float32", lambda x: x.index_fill(0, torch.tensor(1), torch.inf), "not finite"),
        ("float32", lambda x: torch.where(x > 0.5, -torch.inf, x), "not finite"),
        ("float32", lambda x: x.double() * 1e300, "not finite"),
    ),
)
def test_wrong_values_of_a_batch_are_refused(dtype, change, words):
    message = message_of(lambda images, rng: change(images), single=False, dtype=dtype)

    assert re.search(words, message), message


def test_the_level_that_went_wrong_is_named():
    @distortion(worst_quality=50, **TABLE)
    def snow(images, share, rng):
        return images / (share - 0.2)

    with pytest.raises(UserError, match="not finite .* where share is 0.2;"):
        distort_all("snow", torch.zeros_like(IMAGES), torch.tensor([0.1, 0.4, 1.0]))


# What is odd, but harmless: each gives the image that came.
RIGHT_IMAGES = {
    "the input": lambda x: x,
    "a view": lambda x: x[:],
    "twice mirrored": lambda x: x[::-1].copy()[::-1],
    "negative strides": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "Fortran's order": np.asfortranarray,
    "read-only": lambda x: np.broadcast_to(x, x.shape),
    "PIL": Image.fromarray,
    "tensor": torch.from_numpy,
    "masked": lambda x: np.ma.masked_array(x, x > 9),
    "memory map": lambda x: x.view(np.memmap),
}


@pytest.mark.parametrize("table", (False, True), ids=("level", "table"))
@pytest.mark.parametrize("case", RIGHT_IMAGES)
def test_odd_forms_of_an_image_are_taken(case, table):
    register(lambda image, rng: RIGHT_IMAGES[case](image), single=True, table=table)

    assert torch.equal(distort_all("snow", IMAGES, 0.5), IMAGES)


RIGHT_BATCHES = {
    "the input": lambda x: x,
    "a view": lambda x: x[:],
    "not contiguous": lambda x: x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    "with a gradient": lambda x: x * torch.ones(1, requires_grad=x.is_floating_point()).to(x),
    "of a subclass": lambda x: x.as_subclass(type("Picture", (torch.Tensor,), {})),
    "float64": lambda x: x.double() if x.is_floating_point() else x,
}


@pytest.mark.parametrize("dtype", ("float32", "uint8"))
@pytest.mark.parametrize("case", RIGHT_BATCHES)
def test_odd_forms_of_a_batch_are_taken(case, dtype):
    register(lambda images, rng: RIGHT_BATCHES[case](images), single=False, dtype=dtype)

    assert torch.equal(distort_all("snow", IMAGES, 0.5), IMAGES)


def test_half_precision_is_taken_for_large_images():
    """The sum of its values is beyond what float16 holds."""
    register(lambda images, rng: images.half(), single=False)
    images = torch.full((1, 256, 256, 3), 255, dtype=torch.uint8)

    assert torch.equal(distort_all("snow", images, 0.5), images)


def test_a_tensor_made_for_inference_is_taken():
    register(lambda images, rng: torch.inference_mode()(torch.flip)(images, (1,)), single=False)

    assert torch.equal(distort_all("snow", IMAGES, 0.5), IMAGES.flip(1))


def test_overshoot_is_clipped():
    register(lambda images, rng: 3 * images - 1, single=False)

    assert distort_all("snow", IMAGES, 0.5).float().std() > 90


@pytest.mark.parametrize("single, dtype", ((True, "uint8"), (False, "float32"), (False, "uint8")))
def test_a_function_that_writes_into_its_input_spoils_nothing(single, dtype):
    def darken(images, level, direction, rng):
        images *= 0
        if not single:
            level *= 0
            rng.keys *= 0
        return images

    darken.__name__ = "snow"
    distortion(worst_quality=50, dtype=dtype)(per_image(darken) if single else darken)
    before = IMAGES.clone()
    level = torch.full((3,), 0.5)
    keys = torch.arange(3)
    label = torch.zeros(3, dtype=torch.int64)

    output = distort(IMAGES, ("snow",), label, level, torch.ones(3), keys)

    assert output.max() == 0
    assert torch.equal(IMAGES, before)
    assert level.tolist() == [0.5, 0.5, 0.5]
    assert keys.tolist() == [0, 1, 2]


def test_a_buffer_that_is_returned_each_time_is_copied():
    buffer = np.empty((12, 10, 3), np.uint8)

    def into_buffer(image, rng):
        return np.subtract(255, image, out=buffer)

    register(into_buffer, single=True)

    assert torch.equal(distort_all("snow", IMAGES, 0.5), 255 - IMAGES)


def test_what_a_function_keeps_is_its_own():
    kept = []

    def keep(image, rng):
        kept.append(image)
        return image

    register(keep, single=True)
    output = distort_all("snow", IMAGES, 0.5)
    for image in kept:
        image[:] = 0

    assert torch.equal(output, IMAGES)


class Wordless(Exception):
    """Cannot be printed."""

    def __str__(self):
        raise ValueError


def raise_wordless():
    raise Wordless


PROBLEMS = {
    "KeyError": lambda x: {}["flake"],
    "ZeroDivisionError": lambda x: 1 / 0,
    "UserError": lambda x: distortion(worst_quality=500)(len),
    "FileNotFoundError": lambda x: Image.open("texture/snow.png"),
    "RecursionError": lambda x: PROBLEMS["RecursionError"](x),
    "cv2.error: OpenCV": lambda x: cv2.GaussianBlur(x, "big", 0),
    "SystemExit": lambda x: exit(0),
    "StopIteration": lambda x: next(iter(())),
    "AssertionError": lambda x: builtins.exec("assert False"),
    "AttributeError": lambda x: x.no_such_attribute,
    "NameError": lambda x: no_such_name,  # noqa: F821
    "Wordless": lambda x: raise_wordless(),
    "UnicodeDecodeError": lambda x: b"\xff".decode(),
}


@pytest.mark.parametrize("single, dtype", ((True, "uint8"), (False, "float32"), (False, "uint8")))
@pytest.mark.parametrize("name", PROBLEMS)
def test_whatever_a_function_raises_names_it(name, single, dtype):
    """Its class is Failed, whose traceback a script writes to a file."""
    body = PROBLEMS[name]

    message = message_of(lambda images, rng: body(images), single, dtype=dtype, kind=Failed)

    assert f" raised {name}" in message
    assert re.search(r", in line \d+; correct it there$", message), message


@pytest.mark.parametrize("single", (True, False))
@pytest.mark.parametrize("problem", (MemoryError, torch.OutOfMemoryError, KeyboardInterrupt))
def test_lack_of_memory_and_interrupts_pass(problem, single):
    """The training says what to do when memory is short."""

    def body(images, rng):
        raise problem

    register(body, single)

    with pytest.raises(problem):
        distort_all("snow", IMAGES, 0.5)


def test_a_missing_texture_is_named():
    message = message_of(lambda image, rng: Image.open("texture/snow.png"), single=True)

    assert "'texture/snow.png' (relative to the folder where Python was started)" in message


def test_gradients_that_a_function_switches_off_come_back():
    register(lambda images, rng: torch.set_grad_enabled(False) and None or images, single=False)

    distort_all("snow", IMAGES, 0.5)

    assert torch.is_grad_enabled()


RANDOM_NUMBERS = {
    "numpy": lambda: np.random.rand(),
    "a generator of numpy": lambda: np.random.default_rng().random(),
    "torch": lambda: torch.rand(()).item(),
    "Python": lambda: random.random(),
}


@pytest.mark.parametrize("single", (True, False))
@pytest.mark.parametrize("source", RANDOM_NUMBERS)
def test_random_numbers_of_another_source_are_warned_of(source, single, capsys):
    """Once, and the image is made all the same."""
    draw = RANDOM_NUMBERS[source]
    offset = 200 if single else 200 / 255

    def shift(images, rng):
        # One of each channel: chance does not make three alike.
        offsets = [offset * draw() for _ in range(3)]
        moved = images + (np.array(offsets) if single else torch.tensor(offsets))
        return moved.clip(0, 255).astype(np.uint8) if single else moved

    register(shift, single)
    for _ in range(2):
        distort_all("snow", IMAGES, 0.5)

    warning = capsys.readouterr().err
    assert re.match(rf"warning: {NAMED} made other pixels .* draw all .* from rng", warning)
    assert warning.count("\n") == 1


def test_a_function_that_looks_at_other_images_is_warned_of(capsys):
    register(lambda images, rng: images.mean(0, keepdim=True).expand_as(images), single=False)
    images = photo_like(20)

    distort_all("snow", images, 0.5)

    assert "use nothing of other images" in capsys.readouterr().err


def photo_like(count):
    return (torch.rand(count, 1, 1, 1) * 255).byte().expand(-1, 9, 9, 3).contiguous()


@pytest.mark.parametrize("single", (True, False))
def test_random_numbers_of_rng_give_no_warning(single, capsys):
    def grain(images, rng):
        noise = rng.normal_like(images)
        return (images + 20 * noise).clip(0, 255).astype(np.uint8) if single else images + noise

    register(grain, single)
    distort_all("snow", IMAGES, 0.5)

    assert capsys.readouterr().err == ""


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(),
    st.lists(st.integers()),
    st.dictionaries(st.text(max_size=3), st.integers()),
    arrays.arrays(
        st.one_of(arrays.scalar_dtypes(), st.just(np.dtype(np.uint8))),
        st.one_of(arrays.array_shapes(max_dims=5, max_side=4), st.just((12, 10, 3))),
    ),
)


def as_tensor(value):
    try:
        return torch.from_numpy(value)
    except (TypeError, ValueError):
        return value


@settings(max_examples=150, deadline=None)
@given(ANYTHING, st.booleans(), st.sampled_from(("float32", "uint8")), st.booleans())
def test_whatever_is_returned_is_used_or_refused_by_name(value, single, dtype, tensor):
    if tensor and isinstance(value, np.ndarray):
        value = as_tensor(value if single else np.broadcast_to(value, (3, *value.shape)).copy())
    register(lambda images, rng: value, single, dtype=dtype)

    try:
        output = distort_all("snow", IMAGES, 0.5)
    except UserError as problem:
        assert re.match(f"{NAMED} returned ", str(problem))
        assert "\n" not in str(problem)
    else:
        assert output.dtype == torch.uint8
        assert output.shape == IMAGES.shape


async def async_snow(image, level, direction, rng):
    return await asyncio.sleep(0)


def generator_snow(image, level, direction, rng):
    yield image


def snow(image, level, direction, rng):
    return image


class Snow:
    def __call__(self, image, level, direction, rng):
        return image

    def fall(self, image, level, direction, rng):
        return image


def rename(function, name):
    copy = functools.wraps(function)(lambda *arguments: function(*arguments))
    copy.__name__ = name
    return copy


WRONG_FUNCTIONS = {
    "one argument": (lambda: named("image"), r"takes \(image\), expected .*\(images, level, "),
    "no rng": (lambda: named("image, level, direction"), "write `def snow"),
    "five arguments": (lambda: named("image, level, direction, rng, x"), r"takes \(image, level,"),
    "by keyword": (lambda: named("image, *, level, direction, rng"), r"takes \(image, \*"),
    "another order": (lambda: named("image, rng, level, direction"), "expected the order"),
    "method": (lambda: Snow.fall, "takes .*outside of a class"),
    "lambda": (lambda: lambda image, level, direction, rng: image, "has no name.* `def name"),
    "class": (lambda: Snow, "is no function"),
    "instance": (lambda: Snow(), "distortion of type Snow .*has no name"),
    "partial": (lambda: functools.partial(snow), "distortion of type partial .*has no name"),
    "builtin": (lambda: len, r"distortion 'len' \(no Python source\) takes"),
    "number": (lambda: 3, "distortion of type int .*is no function"),
    "generator": (lambda: generator_snow, "is a generator, .*`yield` by `return`"),
    "coroutine": (lambda: async_snow, "is async"),
    "pristine": (lambda: rename(snow, "pristine"), "'pristine', which is taken, .*rename"),
    "all": (lambda: rename(snow, "all"), "'all', which is taken"),
    "default": (lambda: rename(snow, "default"), "'default', which is taken"),
    "kadid": (lambda: rename(snow, "kadid"), "'kadid', which is taken"),
    "KADID's": (lambda: rename(snow, "kadid_snow"), "whose beginning is that of KADID-10k's"),
    "auto": (lambda: rename(snow, "auto"), "'auto', which is taken"),
    "comma": (lambda: rename(snow, "snow,rain"), "has the name 'snow,rain', .*without"),
    "space": (lambda: rename(snow, "wet snow"), "has the name 'wet snow'"),
    "default eight": (lambda: rename(snow, "contrast"), "one of the default eight, .*rename"),
}


def named(arguments):
    """Return a function of this name and these arguments."""
    names: dict = {}
    exec(f"def snow({arguments}): return image", names)
    return names["snow"]


@pytest.mark.parametrize("single", (False, True))
@pytest.mark.parametrize("case", WRONG_FUNCTIONS)
def test_what_cannot_be_registered_is_refused(case, single):
    make, words = WRONG_FUNCTIONS[case]
    function = make()
    before = dict(DISTORTIONS)
    if single:
        words = words.replace("images, level", "image, level")

    with pytest.raises(UserError, match=words) as caught:
        distortion(worst_quality=50)(per_image(function) if single else function)

    assert "\n" not in str(caught.value)
    assert before == DISTORTIONS


def test_a_table_changes_what_a_function_takes():
    with pytest.raises(UserError, match=r"expected \(images, parameter, rng\), because it has a"):
        distortion(worst_quality=50, **TABLE)(named("image, level, direction, rng"))
    with pytest.raises(UserError, match=r"expected \(images, level, direction, rng\)"):
        distortion(worst_quality=50)(named("image, share, rng"))


@pytest.mark.parametrize(
    "arguments", ("a, b, c, d", "*all", "image, level, direction, rng, strength=2", "x, *rest")
)
def test_other_names_and_defaults_are_taken(arguments):
    function = named(arguments)

    assert distortion(worst_quality=50)(function) is function


def test_per_image_may_stand_there_twice():
    distortion(worst_quality=50)(per_image(per_image(snow)))

    assert torch.equal(distort_all("snow", IMAGES, 0.5), IMAGES)


def test_an_object_with_a_name_is_taken():
    falling = Snow()
    falling.__name__ = "snow"
    distortion(worst_quality=50)(per_image(falling))

    assert torch.equal(distort_all("snow", IMAGES, 0.5), IMAGES)


def test_bound_and_static_methods_are_taken():
    distortion(worst_quality=50, dtype="uint8")(Snow().fall)
    distortion(worst_quality=50, dtype="uint8")(staticmethod(snow))

    assert torch.equal(distort_all("fall", IMAGES, 0.5), IMAGES)
    assert torch.equal(distort_all("snow", IMAGES, 0.5), IMAGES)


def test_a_decorator_with_other_arguments_is_taken():
    def only_level(function):
        @functools.wraps(function)
        def call(images, level, direction, rng):
            return function(images, level)

        return call

    @distortion(worst_quality=50)
    @only_level
    def snow(images, level):
        return images

    assert torch.equal(distort_all("snow", IMAGES, 0.5), IMAGES)


def test_registering_again_replaces_it():
    """As a cell of a notebook does that is run again. Its place among the types stays."""
    register(lambda images, rng: images, single=False)
    names = list(DISTORTIONS)
    register(lambda images, rng: 1 - images, single=False)

    assert list(DISTORTIONS) == names
    assert torch.equal(distort_all("snow", IMAGES, 0.5), 255 - IMAGES)


WRONG_ARGUMENTS = {
    "quality −20": ({"worst_quality": -20}, "worst_quality=-20, expected a number from 0 to 100"),
    "quality 120": ({"worst_quality": 120}, "worst_quality=120, "),
    "quality nan": ({"worst_quality": float("nan")}, "worst_quality=nan, "),
    "quality text": ({"worst_quality": "45"}, "worst_quality='45', "),
    "quality None": ({"worst_quality": None}, "worst_quality=None, "),
    "quality True": ({"worst_quality": True}, "worst_quality=True, "),
    "short": ({"levels": (0, 1, 2)}, r"levels=\(0, 1, 2\), expected 6 numbers, at the levels"),
    "nan": ({"levels": (0, 1, 2, 3, 4, float("nan"))}, "levels=.*nan"),
    "texts": ({"levels": ("0",) * 6}, "levels=.*'0'"),
    "text": ({"levels": "012345"}, "levels='012345'"),
    "number": ({"levels": 5}, "levels=5"),
    "None": ({"levels": None}, "levels=None"),
    "set": ({"levels": {0, 1, 2, 3, 4, 5}}, "levels={0"),
    "two-dimensional": ({"levels": np.zeros((6, 2))}, "levels="),
    "one direction": ({"levels": {"low": (0,) * 6}}, r"directions \('low',\), expected two"),
    "three directions": ({"levels": dict.fromkeys("abc", (0,) * 6)}, "expected two different"),
    "no direction": ({"levels": {}}, r"directions \(\), expected two"),
    "short direction": ({"levels": {"low": (0,) * 6, "high": (0,)}}, r"levels=\(0,\)"),
    "number as name": ({"levels": {-1: (0,) * 6, 1: (0,) * 6}}, r"directions \(-1, 1\)"),
    "plain text": ({"parameter": "", "levels": (), "directions": "left"}, "directions 'left'"),
    "empty name": ({"parameter": "", "levels": (), "directions": ("", "right")}, "'right'"),
    "twice": ({"parameter": "", "levels": (), "directions": ("up", "up")}, "'up', 'up'"),
    "directions None": ({"parameter": "", "levels": (), "directions": None}, "directions None"),
    "directions and a table": ({"directions": ("a", "b")}, "levels={'a': .*, 'b': .*}"),
    "directions twice": (
        {"directions": ("a", "b"), "levels": {"c": (0,) * 6, "d": (0,) * 6}},
        "beside those of its levels",
    ),
    "parameter alone": ({"levels": ()}, "parameter='share' without levels="),
    "levels alone": ({"parameter": ""}, "levels= without parameter="),
    "parameter 3": ({"parameter": 3}, "parameter=3, expected a text"),
    "dtype float64": ({"dtype": "float64"}, "dtype='float64', expected 'float32'"),
    "dtype of torch": ({"dtype": torch.uint8}, "dtype=torch.uint8, expected"),
}


@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_a_wrong_argument_is_refused_at_registration(case):
    changes, words = WRONG_ARGUMENTS[case]

    with pytest.raises(UserError, match=f"^{NAMED} has .*{words}") as caught:

        @distortion(**{"worst_quality": 50, **TABLE, **changes})
        def snow(images, share, rng):
            return images

    assert "\n" not in str(caught.value)
    assert "snow" not in DISTORTIONS


@pytest.mark.parametrize("kind", (list, np.array, torch.tensor))
def test_any_sequence_of_numbers_is_a_table(kind):
    levels = kind([0, 0.5, 0.5, 0.25, 0, 1])

    @distortion(worst_quality=np.float32(50), parameter="share", levels=levels, dtype="uint8")
    def snow(images, share, rng):
        return (255 * share).byte().expand_as(images)

    assert DISTORTIONS["snow"].tables == ((0, 0.5, 0.5, 0.25, 0, 1),)
    assert distort_all("snow", IMAGES, 0.6).unique().tolist() == [63]


def test_parentheses_that_were_forgotten_are_told():
    with pytest.raises(UserError, match=rf"^{NAMED}: write @distortion\(worst_quality=50\)"):

        @distortion
        def snow(images, level, direction, rng):
            return images


def test_decorators_in_the_wrong_order_are_told():
    with pytest.raises(UserError, match=rf"^{NAMED}: write @distortion\(…\) above @per_image"):

        @per_image
        @distortion(worst_quality=50)
        def snow(image, level, direction, rng):
            return image

    assert "snow" not in DISTORTIONS


def test_a_cell_of_a_notebook_is_called_so():
    names = {"distortion": distortion}
    text = "@distortion(worst_quality=50)\ndef snow(images, level, direction, rng): pass\n"
    exec(compile(text, "/tmp/ipykernel_17/42.py", "exec"), names)

    with pytest.raises(UserError, match=r"'snow' \(a cell of the notebook, line 1\) returned None"):
        distort_all("snow", IMAGES, 0.5)
