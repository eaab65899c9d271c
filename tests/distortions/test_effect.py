"""No label claims a distortion that changes nothing of its image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distorted_dataset import DistortedImageDataset
from distortions.effect import describe_ineffective, measure_change, takes_effect
from distortions.registry import DISTORTION_TYPES, select_types
from references.sources import References
from tests.helpers import photo_pieces
from utils.errors import UserError

ALL = select_types("all")
BLURS = ("gaussian_blur", "motion_blur", "pixelation")


def flat(value, count=4, side=32):
    return torch.full((count, side, side, 3), value, dtype=torch.uint8)


def scenes(side=32):
    """Return pieces of the bundled photographs that are no flat sky."""
    pieces = photo_pieces(side, side)
    slopes = pieces.float().diff(dim=2).abs().mean((1, 2, 3))
    return pieces[slopes > 5]


def grey(images):
    return images.float().mean(-1, keepdim=True).round().byte().expand_as(images).contiguous()


def references_of(images):
    names = tuple(map(str, range(len(images))))
    return References(images, names, names, np.arange(len(images)), "images")


def ineffective(images, types=ALL):
    """Return {(type, direction −1 or +1)} that do not change the first image."""
    effective = takes_effect(images[:1], types)[0]
    places = (~effective).nonzero().tolist()
    return {(types[t], (-1, 1)[d]) for t, d in places}


def both(*names):
    return {(name, direction) for name in names for direction in (-1, 1)}


# Nothing of these shows on flat images, whatever their colour.
SMOOTH = both("color_saturation", "contrast", "jpeg_compression", *BLURS)
UNCHANGED = {  # images: the pairs of type and direction, of the default eight, that do nothing
    "grey": (grey(scenes()), both("color_saturation")),
    "flat": (flat(123), SMOOTH),
    "white": (flat(255), SMOOTH | {("brightness", 1)}),
    "black": (flat(0), SMOOTH | {("brightness", -1)}),
    "nearly white": (flat(250), SMOOTH | {("brightness", 1)}),
    "nearly black": (flat(4), SMOOTH | {("brightness", -1)}),
    "photographs": (scenes(64), set()),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_what_changes_nothing_is_known(case):
    images, expected = UNCHANGED[case]

    assert ineffective(images, DISTORTION_TYPES) == expected


def assert_all_distorted_images_differ(dataset):
    """Each image with a type differs from the reference that it starts from."""
    indices = torch.arange(len(dataset))
    images = dataset.images(indices)
    starts, _ = dataset._starting_images(indices, "cpu")
    starts = starts.permute(0, 3, 1, 2)
    change = (images.int() - starts.int()).abs().float().mean((1, 2, 3))
    is_distorted = (dataset.labels.type >= 0).any(1)
    assert (change[is_distorted] > 0).all()
    assert (change[~is_distorted] == 0).all()
    assert (dataset.labels.quality[~is_distorted] == 100).all()


def mixed_images():
    """Return photographs, grey ones, flat, white and black images, and some nearly so."""
    photos = scenes()
    speck = flat(255, 1)
    speck[0, 3, 4] = 0
    sets = [photos[:4], grey(photos[4:8]), flat(128, 2), flat(255, 2), flat(0, 2), flat(250, 1)]
    return torch.cat([*sets, flat(3, 1), speck])


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 50),
    compose=st.integers(1, 3),
    variants=st.integers(1, 9),
    types=st.lists(st.sampled_from(DISTORTION_TYPES), min_size=2, max_size=8, unique=True),
)
def test_no_label_claims_what_is_not_there(seed, epoch, compose, variants, types):
    references = references_of(mixed_images())
    dataset = DistortedImageDataset(references, tuple(types), variants, seed, compose=compose)

    dataset.set_epoch(epoch)

    labels = dataset.labels
    rows, steps = (labels.type >= 0).nonzero(as_tuple=True)
    types_of_steps = labels.type[rows, steps]
    direction = (labels.direction[rows, steps] > 0).long()
    assert dataset.effective[labels.reference[rows], types_of_steps, direction].all()
    # Where several steps may undo each other, the law is one for each step.
    if compose == 1:
        assert_all_distorted_images_differ(dataset)


def test_grey_references_get_no_change_of_saturation():
    images = grey(scenes())

    dataset = DistortedImageDataset(references_of(images), distortions_per_image=7)

    counts = torch.bincount(dataset.labels.main_type, minlength=9).tolist()
    assert counts[DISTORTION_TYPES.index("color_saturation")] == 0
    assert sum(counts[:8]) == 7 * len(images)  # none is lost
    types = dataset.labels.type.view(len(images), 8)[:, 1:]
    assert all(len(row.unique()) == 7 for row in types)  # and none is dealt twice


def test_a_type_is_turned_to_the_direction_that_shows():
    references = references_of(flat(255, 30))

    dataset = DistortedImageDataset(references, ("brightness",), 4)

    is_distorted = dataset.labels.variant > 0
    assert (dataset.labels.main_direction[is_distorted] == -1).all()


def test_what_nothing_changes_stays_pristine():
    images = torch.cat([flat(128, 3), scenes()])

    dataset = DistortedImageDataset(references_of(images), ("gaussian_blur", "contrast"), 4)

    of_flat = dataset.labels.reference < 3
    assert (dataset.labels.quality[of_flat] == 100).all()
    assert (dataset.labels.main_type[of_flat] == 2).all()
    assert "3 stay pristine" in dataset.describe_ineffective()


def test_types_that_change_no_reference_are_refused():
    with pytest.raises(UserError, match="none of the distortions color_saturation changes any"):
        DistortedImageDataset(references_of(grey(scenes())), ("color_saturation",))


def test_the_draws_of_other_references_do_not_change():
    """Labels of references on which everything takes effect are those without any grey one."""
    photos = scenes()
    some_grey = photos.clone()
    some_grey[3:5] = grey(photos[3:5])

    without = DistortedImageDataset(references_of(photos), compose=3).labels
    beside_grey = DistortedImageDataset(references_of(some_grey), compose=3).labels

    is_same = (beside_grey.reference < 3) | (beside_grey.reference >= 5)
    for name in ("type", "level", "direction", "key"):
        assert torch.equal(getattr(without, name)[is_same], getattr(beside_grey, name)[is_same])


def test_an_answer_does_not_depend_on_the_other_images():
    images = mixed_images()

    together = takes_effect(images, ALL)
    alone = torch.cat([takes_effect(image[None], ALL) for image in images])

    assert torch.equal(together, alone)


def test_the_line_counts_references_by_type_and_direction():
    images = torch.cat([grey(scenes()[:5]), flat(255, 2)])
    types = ("color_saturation", "brightness", "gaussian_noise")

    line = describe_ineffective(takes_effect(images, types), types)

    assert line == (
        "too little to see, so others are dealt: color_saturation 7, brightness (bright) 2 "
        "of 7 references; no image gets color_saturation: the images are without what it changes, "
        "or it changes nothing (python distorted_dataset.py shows it)"
    )


def test_an_ordinary_line_is_empty():
    images = scenes(64)

    assert describe_ineffective(takes_effect(images, DISTORTION_TYPES), DISTORTION_TYPES) == ""


@pytest.mark.parametrize("name", DISTORTION_TYPES)
def test_the_least_level_changes_what_gets_it(name):
    """Whatever takes effect by this measure is changed by the lowest level too."""
    images = mixed_images()
    for d, direction in enumerate((-1, 1)):
        rows = takes_effect(images, (name,))[:, 0, d]

        shift, texture = measure_change(images[rows], name, 0.2, direction)
        assert (shift + texture > 0).all()
