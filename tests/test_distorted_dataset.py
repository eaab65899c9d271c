import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from distorted_dataset import DISTORTION_TYPES, DistortedImageDataset, apply_distortion
from distortions.registry import DISTORTIONS, quality_of
from references.sources import References


def blank(count):
    """References whose pixels do not matter."""
    images, names = (
        torch.full((count, 3, 8, 8), 128, dtype=torch.uint8),
        tuple(map(str, range(count))),
    )
    return References(images, names, names, np.arange(count), "blank")


def test_500_references_by_5_and_the_pristine_give_3000_images():
    dataset = DistortedImageDataset(blank(500), distortions_per_image=5)
    assert len(dataset) == 3000
    assert (dataset.labels.type == 8).sum() == 500 and (dataset.labels.quality == 100).sum() == 500


@settings(deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(0, 2**62),
    st.integers(0, 50),
)
def test_types_are_dealt_evenly(references, variants, types, seed, epoch):
    dataset = DistortedImageDataset(blank(references), tuple(DISTORTIONS)[:types], variants, seed)
    dataset.set_epoch(epoch)
    dealt = dataset.labels.steps[:, 0].view(references, variants + 1)[:, 1:]
    counts = torch.bincount(dealt.flatten(), minlength=types)
    assert counts.max() - counts.min() <= 1
    assert all(len(row.unique()) == min(variants, types) for row in dealt)


def test_labels_follow_from_type_and_level(dataset):
    labels = dataset.labels
    for i, name in enumerate(DISTORTION_TYPES):
        inside = labels.type == i
        assert torch.allclose(labels.quality[inside], quality_of(name, labels.level[inside]))
        assert set(labels.direction[inside].tolist()) == (
            {-1, 1} if DISTORTIONS[name].directions else {0}
        )
    distorted = labels.type < 8
    assert labels.level[distorted].min() >= 0.2 and labels.level[distorted].max() < 1
    assert (labels.level[~distorted] == 0).all() and (labels.variant[~distorted] == 0).all()


def test_direction_says_nothing_about_the_level():
    labels = DistortedImageDataset(blank(2000), ("brightness",), 1).labels
    down, up = (labels.level[labels.direction == sign].mean() for sign in (-1, 1))
    assert abs(down - up) < 0.05


def test_pristine_images_are_the_references(dataset):
    pristine = torch.nonzero(dataset.labels.type == 8)[:, 0]
    assert torch.equal(dataset.images(pristine), dataset.references.images)


def test_an_image_is_what_its_label_says(crops):
    dataset = DistortedImageDataset(crops, ("brightness", "contrast"), 2, seed=4)
    for i in range(12):
        item = dataset[i]
        if item.type == "pristine":
            continue
        array = crops.images[item.reference].permute(1, 2, 0).numpy()
        expected, quality = apply_distortion(array, item.type, item.level, item.direction)
        assert np.array_equal(
            item.image.permute(1, 2, 0).numpy(), expected
        ) and item.quality == pytest.approx(quality)


def test_images_are_the_same_for_any_batch_size_and_order(dataset):
    everything = torch.cat([images for images, _ in dataset.batches(torch.arange(200), 64)])
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    for images, indices in dataset.batches(order, 7):
        assert torch.equal(images, everything[indices])


def test_redistort_changes_every_epoch_and_returns_to_it(crops):
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


def test_seed_and_part_change_the_draws(crops):
    digests = {
        DistortedImageDataset(crops, seed=seed, part=part).digest()
        for seed in (0, 1)
        for part in ("train", "val")
    }
    assert len(digests) == 4


def test_compose_multiplies_qualities_and_names_the_costliest(crops):
    dataset = DistortedImageDataset(crops, tuple(DISTORTIONS), 5, compose=3)
    labels, seen = dataset.labels, set()
    for i in range(300):
        steps = [
            (t, level)
            for t, level in zip(labels.steps[i].tolist(), labels.step_level[i].tolist())
            if t >= 0
        ]
        seen.add(len(steps))
        assert len({t for t, _ in steps}) == len(steps)
        singles = [quality_of(dataset.types[t], level) for t, level in steps]
        assert labels.quality[i].item() == pytest.approx(
            100 * np.prod([q / 100 for q in singles]), rel=1e-5
        )
        if steps:
            assert labels.type[i] == steps[int(np.argmin(singles))][0]
    assert seen == {0, 1, 2, 3}


def test_compose_applies_the_steps_in_order(crops):
    dataset = DistortedImageDataset(
        crops, ("brightness", "contrast", "color_saturation"), 3, compose=3
    )
    labels = dataset.labels
    i = int(torch.nonzero((labels.steps >= 0).all(1))[0])
    array = crops.images[labels.reference[i]].permute(1, 2, 0).numpy()
    for step in range(3):
        what = (
            dataset.types[labels.steps[i, step]],
            labels.step_level[i, step].item(),
            labels.step_direction[i, step].item(),
        )
        array, _ = apply_distortion(array, *what)
    assert np.array_equal(dataset[i].image.permute(1, 2, 0).numpy(), array)


def test_show_gives_a_figure_and_bad_indices_raise(dataset):
    assert isinstance(dataset.show(1), Figure)
    with pytest.raises(IndexError, match="image 1440 of 1440"):
        dataset[1440]


def test_turn_shows_the_references_in_all_eight_ways(crops):
    dataset = DistortedImageDataset(crops, flip=True)
    pristine = torch.nonzero(dataset.labels.type == 8)[:, 0]
    seen = set()
    for image, reference in zip(dataset.images(pristine), crops.images):
        ways = [
            torch.rot90(turned, k, (1, 2))
            for turned in (reference, reference.flip(2))
            for k in range(4)
        ]
        seen |= {way for way, turned in enumerate(ways) if torch.equal(turned, image)}
        assert any(torch.equal(turned, image) for turned in ways)
    assert seen == set(range(8))
    assert not DistortedImageDataset(crops).labels.orientation.any()


def test_free_draws_differ_between_images_and_epochs_and_come_back():
    dataset = DistortedImageDataset(blank(20), ("gaussian_noise",), 2)
    noisy = torch.nonzero(dataset.labels.type == 0)[:, 0]
    first = dataset.images(noisy)
    dataset.set_epoch(1)
    patterns = torch.cat([first, dataset.images(noisy)]).flatten(1).double()
    assert torch.corrcoef(patterns).fill_diagonal_(0).abs().max() < 0.5
    dataset.set_epoch(0)
    assert torch.equal(dataset.images(noisy), first)


def test_digest_tells_types_apart():
    digests = {
        DistortedImageDataset(blank(9), ("gaussian_blur", other)).digest()
        for other in ("rain", "motion_blur")
    }
    assert len(digests) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_to_within_a_grey_level(crops):
    dataset = DistortedImageDataset(crops, tuple(DISTORTIONS), 5, flip=True, cutmix=True)
    indices = torch.arange(len(dataset))
    difference = (dataset.images(indices, "cuda").cpu().int() - dataset.images(indices).int()).abs()
    assert difference.max() <= 1
    assert difference[dataset.labels.variant == 0].max() == 0  # turned and joined alone


def test_join_replaces_one_side_of_every_second_image(crops):
    dataset = DistortedImageDataset(crops, cutmix=True)
    labels, pristine = dataset.labels, torch.nonzero(dataset.labels.type == 8)[:, 0]
    images, joined = dataset.images(pristine), labels.cutmix_width[pristine] > 0
    assert 0.3 < joined.float().mean() < 0.7
    for i, image in zip(pristine.tolist(), images):
        width = int(np.ceil(labels.cutmix_width[i].item() * image.shape[2]))
        assert width == 0 or 0.25 * image.shape[2] <= width <= 0.75 * image.shape[2] + 1
        expected = crops.images[labels.reference[i]].clone()
        expected[:, :, :width] = crops.images[labels.neighbour[i], :, :, :width]
        assert torch.equal(image, expected)


def test_turning_and_joining_change_no_other_draw(crops):
    plain, changed = (
        DistortedImageDataset(crops).labels,
        DistortedImageDataset(crops, flip=True, cutmix=True).labels,
    )
    for name in ("key", "steps", "step_level", "step_direction", "quality"):
        assert torch.equal(getattr(plain, name), getattr(changed, name))
