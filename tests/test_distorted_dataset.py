"""Labels and images of an epoch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from distorted_dataset import DISTORTION_TYPES, DistortedImageDataset, apply_distortion
from distortions.registry import DISTORTIONS, quality_of
from references.sources import References

PRISTINE = len(DISTORTION_TYPES)  # the label of pristine images


def noise(count):
    """Return references that every distortion changes; nothing else about them matters."""
    names = tuple(map(str, range(count)))
    images = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8)
    return References(images, names, names, np.arange(count), "noise")


def blank(count):
    """Return flat references, of which noise is all that is seen."""
    names = tuple(map(str, range(count)))
    images = torch.full((count, 8, 8, 3), 128, dtype=torch.uint8)
    return References(images, names, names, np.arange(count), "blank")


def indices_of(dataset, main_type):
    """Return the indices of a type's images."""
    return torch.nonzero(dataset.labels.main_type == main_type)[:, 0]


def to_pixels(images):
    """Return (B, H, W, 3) of images (B, 3, H, W)."""
    return images.permute(0, 2, 3, 1)


def test_500_references_by_5_and_pristine_are_3000():
    dataset = DistortedImageDataset(noise(500), distortions_per_image=5)

    assert len(dataset) == 3000
    assert len(indices_of(dataset, PRISTINE)) == 500
    assert (dataset.labels.quality == 100).sum() == 500


@settings(deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(0, 2**62),
    st.integers(0, 50),
)
def test_types_are_dealt_evenly(references, variants, types, seed, epoch):
    dataset = DistortedImageDataset(noise(references), tuple(DISTORTIONS)[:types], variants, seed)
    dataset.set_epoch(epoch)

    dealt = dataset.labels.type[:, 0].view(references, variants + 1)[:, 1:]

    counts = torch.bincount(dealt.flatten(), minlength=types)
    assert counts.max() - counts.min() <= 1
    assert all(len(row.unique()) == min(variants, types) for row in dealt)


def test_quality_follows_from_type_and_level(dataset):
    labels = dataset.labels

    for i, name in enumerate(DISTORTION_TYPES):
        inside = labels.main_type == i
        expected = quality_of(name, labels.main_level[inside])
        assert torch.allclose(labels.quality[inside], expected)


def test_directions_are_those_of_the_type(dataset):
    labels = dataset.labels

    for i, name in enumerate(DISTORTION_TYPES):
        directions = set(labels.main_direction[labels.main_type == i].tolist())
        assert directions == ({-1, 1} if DISTORTIONS[name].directions else {0})


def test_levels_are_from_02_to_1_and_0_where_pristine(dataset):
    labels = dataset.labels
    is_distorted = labels.main_type < PRISTINE

    assert labels.main_level[is_distorted].min() >= 0.2
    assert labels.main_level[is_distorted].max() < 1
    assert (labels.main_level[~is_distorted] == 0).all()
    assert (labels.variant[~is_distorted] == 0).all()


def test_direction_says_nothing_about_the_level():
    labels = DistortedImageDataset(noise(2000), ("brightness",), 1).labels

    down = labels.main_level[labels.main_direction == -1].mean()
    up = labels.main_level[labels.main_direction == 1].mean()

    assert abs(down - up) < 0.05


def test_pristine_images_are_the_references(dataset):
    images = dataset.images(indices_of(dataset, PRISTINE))

    assert torch.equal(to_pixels(images), dataset.references.images)


def test_an_image_is_what_its_label_says(crops):
    dataset = DistortedImageDataset(crops, ("brightness", "contrast"), 2, seed=4)

    for i in range(12):
        item = dataset[i]
        if item.type == "pristine":
            continue
        array = crops.images[item.reference].numpy()
        expected, quality = apply_distortion(array, item.type, item.level, item.direction)
        assert np.array_equal(item.image.permute(1, 2, 0).numpy(), expected)
        assert item.quality == pytest.approx(quality)


def test_batch_size_and_order_change_no_image(dataset):
    everything = torch.cat([images for images, _ in dataset.batches(torch.arange(200), 64)])
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))

    for images, indices in dataset.batches(order, 7):
        assert torch.equal(images, everything[indices])


def test_redistort_draws_anew_and_an_epoch_comes_back(crops):
    dataset = DistortedImageDataset(crops)
    first = dataset.digest()

    dataset.set_epoch(1)
    second = dataset.digest()
    dataset.set_epoch(0)

    assert first == dataset.digest() != second


def test_no_redistort_keeps_the_first_draw(crops):
    dataset = DistortedImageDataset(crops, redistort=False)
    first = dataset.digest()

    dataset.set_epoch(7)

    assert dataset.digest() == first


def test_seed_and_split_change_the_draws(crops):
    digests = set()
    for seed in (0, 1):
        for split in ("train", "val"):
            digests.add(DistortedImageDataset(crops, seed=seed, split=split).digest())

    assert len(digests) == 4


def test_composed_qualities_are_multiplied(crops):
    """The type that costs most names the image."""
    dataset = DistortedImageDataset(crops, tuple(DISTORTIONS), 5, compose=3)
    labels = dataset.labels

    step_counts = set()
    for i in range(300):
        is_step = labels.type[i] >= 0
        types = labels.type[i][is_step].tolist()
        levels = labels.level[i][is_step].tolist()
        singles = [quality_of(dataset.types[t], level) for t, level in zip(types, levels)]
        expected = 100 * np.prod([quality / 100 for quality in singles])
        step_counts.add(len(types))
        assert len(set(types)) == len(types)
        assert labels.quality[i].item() == pytest.approx(expected, rel=1e-5)
        if types:
            assert labels.main_type[i] == types[int(np.argmin(singles))]
    assert step_counts == {0, 1, 2, 3}


def test_composed_steps_are_applied_in_order(crops):
    types = ("brightness", "contrast", "color_saturation")
    dataset = DistortedImageDataset(crops, types, 3, compose=3)
    labels = dataset.labels
    i = int(torch.nonzero((labels.type >= 0).all(1))[0])

    array = crops.images[labels.reference[i]].numpy()
    for step in range(3):
        name = types[labels.type[i, step]]
        level = labels.level[i, step].item()
        array, _ = apply_distortion(array, name, level, labels.direction[i, step].item())

    assert np.array_equal(dataset[i].image.permute(1, 2, 0).numpy(), array)


def test_show_gives_a_figure(dataset):
    assert isinstance(dataset.show(1), Figure)


def test_an_index_beyond_the_end_is_refused(dataset):
    with pytest.raises(IndexError, match="image 1440 of 1440"):
        dataset[1440]


def test_flip_shows_references_in_all_eight_orientations(crops):
    dataset = DistortedImageDataset(crops, flip=True)
    images = to_pixels(dataset.images(indices_of(dataset, PRISTINE)))

    seen = set()
    for image, reference in zip(images, crops.images):
        orientations = []
        for mirrored in (reference, reference.flip(1)):
            orientations += [torch.rot90(mirrored, k, (0, 1)) for k in range(4)]
        matches = [torch.equal(orientation, image) for orientation in orientations]
        assert any(matches)
        seen.add(matches.index(True))

    assert seen == set(range(8))


def test_without_flip_no_reference_is_flipped(crops):
    assert not DistortedImageDataset(crops).labels.orientation.any()


def test_random_numbers_differ_between_images_and_epochs():
    dataset = DistortedImageDataset(blank(20), ("gaussian_noise",), 2)
    noisy = indices_of(dataset, 0)

    first = dataset.images(noisy)
    dataset.set_epoch(1)
    patterns = torch.cat([first, dataset.images(noisy)]).flatten(1).double()
    dataset.set_epoch(0)

    assert torch.corrcoef(patterns).fill_diagonal_(0).abs().max() < 0.5
    assert torch.equal(dataset.images(noisy), first)


def test_the_digest_tells_types_apart():
    digests = set()
    for other in ("rain", "motion_blur"):
        digests.add(DistortedImageDataset(noise(9), ("gaussian_blur", other)).digest())

    assert len(digests) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_to_within_a_grey_level(crops):
    dataset = DistortedImageDataset(crops, tuple(DISTORTIONS), 5, flip=True, cutmix=True)
    indices = torch.arange(len(dataset))

    on_gpu = dataset.images(indices, "cuda").cpu().int()
    difference = (on_gpu - dataset.images(indices).int()).abs()

    assert difference.max() <= 1
    assert difference[dataset.labels.variant == 0].max() == 0  # flipped and mixed alone


def test_cutmix_replaces_one_side_of_every_second_image(crops):
    dataset = DistortedImageDataset(crops, cutmix=True)
    labels = dataset.labels
    pristine = indices_of(dataset, PRISTINE)
    side = crops.images.shape[2]

    assert 0.3 < (labels.cutmix_width[pristine] > 0).float().mean() < 0.7
    for i, image in zip(pristine.tolist(), to_pixels(dataset.images(pristine))):
        width = int(np.ceil(labels.cutmix_width[i].item() * side))
        expected = crops.images[labels.reference[i]].clone()
        expected[:, :width] = crops.images[labels.neighbour[i], :, :width]
        assert width == 0 or 0.25 * side <= width <= 0.75 * side + 1
        assert torch.equal(image, expected)


def test_only_distortion_tells_type_and_direction_of_a_single_step(crops):
    labels = DistortedImageDataset(crops, distortions_per_image=30, compose=2).labels
    is_single = (labels.type >= 0).sum(1) == 1

    assert 0 < is_single.double().mean() < 1
    assert (labels.only_distortion[~is_single] == -1).all()
    pairs = torch.stack([labels.main_type, labels.main_direction], dim=1)[is_single]
    numbers = labels.only_distortion[is_single]
    assert (numbers >= 0).all()
    assert len(numbers.unique()) == len(pairs.unique(dim=0))
    assert len(numbers.unique()) == len(torch.column_stack([numbers, pairs]).unique(dim=0))


def test_flip_and_cutmix_change_no_other_draw(crops):
    plain = DistortedImageDataset(crops).labels
    changed = DistortedImageDataset(crops, flip=True, cutmix=True).labels

    for name in ("key", "type", "level", "direction", "quality"):
        assert torch.equal(getattr(plain, name), getattr(changed, name))
