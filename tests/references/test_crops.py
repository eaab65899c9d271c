"""Crops of photographs at their own scale."""

import numpy as np
import pytest
import torch
from PIL import Image

import distorted_dataset
import train_with_distortions as script
from distorted_dataset import DistortedImageDataset, _orient
from distortions.registry import DISTORTIONS
from references.crops import MIN_CHROMA, MIN_TEXTURE, Crops, PhotographsInMemory, describe_window
from references.packed import pixel_digest
from references.photos import load_photo
from references.sizes import NativeCrops, choose_crop
from references.sources import ALL, load_test_references, load_training_references
from tests.helpers import distort_all, write_images
from utils.images import to_nchw

SIDE = 32
CROPS = NativeCrops(working_size=120, per_reference=3)


@pytest.fixture(scope="module")
def folder(module_folder):
    """Write 12 images of noise of 150×140 pixels, and one that is too small."""
    write_images(module_folder, 12, size=(150, 140))
    Image.new("RGB", (31, 99)).save(module_folder / "small.png")
    return module_folder


def load(folder, cache_dir=None, train=ALL, val=3, crops=CROPS):
    return load_training_references(
        str(folder), train, val, SIDE, "none", 0, cache_dir=cache_dir, crops=crops
    )


def load_test(folder, count=99, seed=0, cache_dir=None, part="held_out", crops=CROPS):
    references, _ = load_test_references(
        str(folder), count, SIDE, "none", 0, seed, cache_dir=cache_dir, part=part, crops=crops
    )
    return references


def half_flat(photographs=3):
    """Return photographs whose left half is grey and whose right half is colourful noise."""
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (photographs, 100, 200, 3), dtype=np.uint8)
    arrays[:, :, :100] = 128
    return PhotographsInMemory(list(arrays))


def crops_of(photographs, count, side=SIDE):
    rows = torch.arange(count) % len(photographs.sizes)
    return Crops(photographs, rows, keys=torch.arange(count), side=side)


def is_inside(window, array):
    """Tell whether a window's pixels stand somewhere in an array, unchanged."""
    side = len(window)
    places = np.lib.stride_tricks.sliding_window_view(array, (side, side, 3))
    return bool((places == window).all((3, 4, 5)).any())


def test_a_crop_is_a_piece_of_its_photograph():
    photo = np.asarray(load_photo(0).crop((0, 0, 90, 80)))

    crops = crops_of(PhotographsInMemory([photo]), 5, side=64)

    for window in crops[torch.arange(5)].numpy():
        assert is_inside(window, photo)


def test_crops_of_a_photograph_differ():
    crops = crops_of(half_flat(1), 20)

    pixels = crops[torch.arange(20)].flatten(1)

    assert len(pixels.unique(dim=0)) == 20


def test_flat_windows_are_avoided():
    crops = crops_of(half_flat(), 300)

    described = [describe_window(window) for window in crops[torch.arange(300)].numpy()]

    is_ordinary = [texture >= MIN_TEXTURE and chroma >= MIN_CHROMA for texture, chroma in described]
    assert np.mean(is_ordinary) > 0.95


def test_a_flat_photograph_is_cropped_too():
    flat = PhotographsInMemory([np.full((60, 60, 3), 200, np.uint8)])

    assert torch.equal(crops_of(flat, 2)[0], torch.full((SIDE, SIDE, 3), 200, dtype=torch.uint8))


def test_a_photograph_of_the_crops_size_is_taken_whole():
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    crops = crops_of(PhotographsInMemory([pixels]), 2)

    assert np.array_equal(crops[1], pixels)


def test_a_crop_depends_on_its_key_alone():
    crops = crops_of(half_flat(), 9)

    assert torch.equal(crops[torch.tensor([7, 2])], torch.stack([crops[7], crops[2]]))
    assert torch.equal(crops[3:][0], crops[3])


def test_places_reach_every_edge():
    """The first and the last place of each axis are drawn."""
    ramp = np.arange(SIDE + 3, dtype=np.uint8)
    texture = np.random.default_rng(0).integers(0, 256, (SIDE + 3, SIDE + 3), dtype=np.uint8)
    photo = np.stack([*np.meshgrid(ramp, ramp), texture], axis=-1)
    crops = crops_of(PhotographsInMemory([photo]), 200)

    corners = crops[torch.arange(200)][:, 0, 0, :2].unique(dim=0)

    assert len(corners) == 16


def test_training_crops_are_new_in_every_image_and_epoch(folder):
    train, _ = load(folder)
    dataset = DistortedImageDataset(train, distortions_per_image=2, recrop=True)
    pristine = torch.nonzero(dataset.labels.variant == 0)[:, 0]

    first = dataset.images(pristine)
    dataset.set_epoch(1)
    second = dataset.images(pristine)

    pixels = torch.cat([first, second]).flatten(1)
    assert len(pixels.unique(dim=0)) == len(pixels)


def test_any_training_image_is_made_again_alone(folder):
    train, _ = load(folder)
    dataset = DistortedImageDataset(train, recrop=True, flip=True, cutmix=True)
    images = dataset.images(torch.arange(len(dataset)))

    for i in (0, 7, len(dataset) - 1):
        assert torch.equal(dataset[i].image, images[i])


def test_validation_crops_are_fixed(folder):
    _, val = load(folder)
    dataset = DistortedImageDataset(val, split="val", redistort=False)
    before = dataset.images(torch.arange(len(dataset)))

    dataset.set_epoch(5)

    assert torch.equal(dataset.images(torch.arange(len(dataset))), before)
    assert torch.equal(before[0].permute(1, 2, 0), val.images[0])


def test_crops_of_a_photograph_are_in_one_split(folder):
    train, val = load(folder)
    test = load_test(folder)
    digests = [set(references.digests) for references in (train, val, test)]

    assert not digests[0] & digests[1]
    assert not (digests[0] | digests[1]) & digests[2]
    assert len(train) == CROPS.per_reference * len(digests[0])
    assert len(np.unique(val.photographs)) == 3


def test_fixed_crops_depend_on_the_photograph_alone(folder):
    """However many others are tested, and in whichever order."""
    every = load_test(folder)
    few = load_test(folder, count=1, seed=3)
    place = every.names.index(few.names[0])

    assert torch.equal(few.images[0], every.images[place])


def test_a_packed_folder_gives_the_same_crops(folder, tmp_path, capsys):
    from_memory = load(folder)
    lines = capsys.readouterr().out
    from_cache = load(folder, tmp_path)

    assert "1 .png (31×99 is smaller than 32×32)" in lines
    for memory, cache in zip(from_memory, from_cache):
        assert cache.names == memory.names
        assert cache.digests == memory.digests
        assert torch.equal(cache.images[torch.arange(9)], memory.images[torch.arange(9)])
        digests = [DistortedImageDataset(part, recrop=True).digest() for part in (memory, cache)]
        assert digests[0] == digests[1]


def test_one_cache_serves_every_image_size(folder, tmp_path):
    load(folder, tmp_path)
    load_training_references(str(folder), 3, 3, 64, "none", 0, cache_dir=tmp_path, crops=CROPS)

    (cache,) = tmp_path.iterdir()
    assert cache.name.startswith("120px_photographs_")


def test_a_damaged_cache_of_photographs_is_named(folder, tmp_path):
    load(folder, tmp_path)
    (cache,) = tmp_path.iterdir()
    pixels = bytearray((cache / "images").read_bytes())
    for i in range(0, len(pixels), 1000):
        pixels[i] ^= 1
    (cache / "images").write_bytes(pixels)

    with pytest.raises(ValueError, match="is damaged; delete it"):
        load(folder, tmp_path)


def test_large_photographs_are_shrunk_first(folder):
    _, val = load(folder)

    assert val.images.photographs.sizes.tolist() == [[120, 129]] * 3


def test_digests_tell_the_size_of_crops(folder):
    small, _ = load(folder)
    large, _ = load_training_references(str(folder), ALL, 3, 48, "none", 0, crops=CROPS)

    assert DistortedImageDataset(small).digest() != DistortedImageDataset(large).digest()


def test_the_bundled_photographs_are_cropped_too():
    train, val = load_training_references("photos", 10, 4, 96, "none", 0, crops=NativeCrops())

    assert (len(train), len(val)) == (10, 4)
    assert len(np.unique(train.photographs)) == 4
    assert len(set(train.digests) | set(val.digests)) == 5


def test_all_is_refused_where_there_is_no_end():
    with pytest.raises(ValueError, match="--train_samples all is for a folder of images"):
        load_training_references("photos", ALL, 4, 96, "none", 0, crops=NativeCrops())


@pytest.mark.parametrize(
    ("source", "side", "crop"),
    (("cifar10", 32, "whole"), ("photos", 32, "native"), ("photos", 128, "whole")),
)
def test_the_crop_follows_from_the_size(source, side, crop):
    assert choose_crop(source, side)[0] == crop


@pytest.mark.parametrize(("side", "crop"), ((69, "native"), (70, "whole")))
def test_a_folders_crop_follows_from_its_median_size(folder, side, crop):
    assert choose_crop(str(folder), side)[0] == crop


MARGIN = 16


def cut(surroundings, places):
    """Return what lies at each image's place."""
    pairs = zip(surroundings, places.tolist())
    return torch.stack([x[top : top + SIDE, left : left + SIDE] for x, (top, left) in pairs])


@pytest.mark.parametrize("size", ((100, 200), (SIDE, SIDE), (40, 33)))
def test_surroundings_hold_the_crop(size):
    """Also where the photograph is too small for them."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    crops = crops_of(PhotographsInMemory([pixels]), 40)
    indices = torch.arange(40)

    surroundings, places = crops.draw_with_margin(indices, crops.keys, MARGIN)

    assert surroundings.shape == (40, SIDE + MARGIN, SIDE + MARGIN, 3)
    assert torch.equal(cut(surroundings, places), crops[indices])


def test_every_second_crop_begins_where_blocks_of_16_do():
    """But for those at the photograph's edges; a random place is at a block once in 72 times."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    crops = crops_of(PhotographsInMemory([pixels]), 400)

    _, places = crops.draw_with_margin(torch.arange(400), crops.keys, MARGIN)

    share = (places % MARGIN == 0).all(1).double().mean()
    assert 0.4 < share < 0.6
    assert len(places.unique(dim=0)) > 100


def ramps(height, width):
    """Return photographs of one whose red is the row of each pixel, and whose green the column."""
    rows, columns = np.mgrid[:height, :width]
    return PhotographsInMemory([np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)])


def slopes(surroundings):
    """Return (B, 2): how many rows, and columns, of its photograph each image's pixel spans."""
    images = surroundings.double()
    down = (images[:, -1, 0, 0] - images[:, 0, 0, 0]) / (images.shape[1] - 1)
    across = (images[:, 0, -1, 1] - images[:, 0, 0, 1]) / (images.shape[2] - 1)
    return torch.stack([down, across], dim=1)


def test_windows_are_shrunk_by_factors_up_to_the_smallest_scale():
    crops = crops_of(ramps(250, 240), 200)

    surroundings, places = crops.draw_with_margin(torch.arange(200), crops.keys, MARGIN, 0.5)

    spans = slopes(surroundings)
    assert torch.allclose(spans[:, 0], spans[:, 1], atol=0.03)  # no image is stretched
    assert 0.97 < spans.min() < 1.05
    assert 1.95 < spans.max() < 2.03
    assert places.min() >= 0
    assert places.max() <= MARGIN


def test_a_window_is_no_larger_than_its_photograph():
    crops = crops_of(ramps(SIDE + MARGIN + 4, 240), 50)

    surroundings, _ = crops.draw_with_margin(torch.arange(50), crops.keys, MARGIN, 0.5)

    assert slopes(surroundings)[:, 1].max() <= (SIDE + MARGIN + 4) / SIDE + 0.03


@pytest.mark.parametrize("name", [name for name, entry in DISTORTIONS.items() if entry.in_places])
def test_what_changes_some_places_changes_the_crop(folder, name):
    """Drawn in what lies around the crop, many of these places would be cut away."""
    train, _ = load(folder)
    dataset = DistortedImageDataset(train, (name,), 20, flip=True, cutmix=True, recrop=True)
    indices = torch.arange(len(dataset))
    starting_images, places = dataset._starting_images(indices, "cpu")

    before = to_nchw(dataset._cut(starting_images, places))
    is_equal = (dataset.images(indices) == before).flatten(1).all(1)

    assert torch.equal(is_equal, dataset.labels.variant == 0)


def test_scales_are_of_training_alone(folder):
    train, val = load(folder)

    training = DistortedImageDataset(train, recrop=True, smallest_scale=0.5)
    validation = DistortedImageDataset(val, split="val", smallest_scale=0.5)

    assert training.digest() != DistortedImageDataset(train, recrop=True).digest()
    assert validation.digest() == DistortedImageDataset(val, split="val").digest()


def test_an_undistorted_image_is_its_crop(folder):
    """Whatever its orientation: a flipped crop has flipped surroundings."""
    _, val = load(folder)
    dataset = DistortedImageDataset(val, split="val", redistort=False, flip=True)
    pristine = torch.nonzero(dataset.labels.variant == 0)[:, 0]

    images = dataset.images(pristine).permute(0, 2, 3, 1)

    expected = _orient(val.images[dataset.labels.reference[pristine]], orientations(dataset))
    assert len(orientations(dataset).unique()) > 3
    assert torch.equal(images, expected)


def orientations(dataset):
    return dataset.labels.orientation[dataset.labels.variant == 0]


def test_blur_takes_in_what_lies_around_a_crop(folder):
    """A crop of a blurred photograph is no blurred crop: they differ at the edges alone."""
    _, val = load(folder)
    dataset = DistortedImageDataset(val, ("gaussian_blur",), 1, split="val", redistort=False)
    index = torch.nonzero(dataset.labels.variant == 1)[:1, 0]
    crop = val.images[dataset.labels.reference[index]]

    image = dataset.images(index).permute(0, 2, 3, 1)

    alone = distort_all("gaussian_blur", crop, dataset.labels.level[index, 0])
    differs = (image.int() - alone.int()).abs().amax(-1)[0] > 1
    assert differs[0].any() or differs[-1].any()
    assert not differs[8:-8, 8:-8].any()


def test_all_needs_more_than_validation_takes(folder):
    with pytest.raises(ValueError, match="--val_samples 50 leaves no reference to train on"):
        load(folder, val=50)


def test_crops_larger_than_shrunk_photographs_are_refused_before_any_is_read():
    flags = "--experiment_name any --crop native --image_size 600 --references nowhere"
    args = script.parse_args(flags.split())

    with pytest.raises(ValueError, match="--image_size 600 is larger than --working_size 512"):
        script.resolve_crops(args, "nowhere")


def shown_reference(flags, folder):
    """Return what the example figure shows of a folder, and the words for it."""
    args = distorted_dataset.parse_args(f"--image_size {SIDE} {flags}".split())
    references, words = distorted_dataset.load_reference(args, str(folder))
    return references.images[0].numpy(), words


def test_the_example_figure_shows_the_crops_of_training(folder):
    """Images of 150×140 pixels are cropped at 32×32 where nothing else is said."""
    reference, words = shown_reference("--working_size 120", folder)

    assert words == "a crop at its own scale"
    assert (reference == load_test(folder, count=1, part="all").images[0].numpy()).all()


def test_the_example_figure_shows_whole_scenes_where_asked(folder):
    reference, words = shown_reference("--crop whole", folder)

    assert words == "a whole scene"
    whole = load_test(folder, count=1, part="all", crops=None)
    assert (reference == whole.images[0].numpy()).all()


def test_the_example_figures_own_size_fits_the_working_size(folder):
    args = distorted_dataset.parse_args("--crop native --working_size 100".split())

    references, _ = distorted_dataset.load_reference(args, str(folder))

    assert references.images.shape[1:3] == (100, 100)


def test_the_example_figure_refuses_what_training_refuses(folder):
    with pytest.raises(ValueError, match="--image_size 32 is larger than --working_size 24"):
        shown_reference("--crop native --working_size 24", folder)


def test_the_line_says_who_chose_the_crop(capsys):
    flags = ["--experiment_name=any", "--image_size=32", "--references=nowhere"]
    for typed, reason in (("--preset=photographs", "--preset"), ("--crop=native", "--crop")):
        script.resolve_crops(script.parse_args([*flags, typed]), "nowhere")

        assert f"(as {reason} says)" in capsys.readouterr().out


def test_cifar10_is_not_cropped(monkeypatch):
    with pytest.raises(
        ValueError, match="crops at their own scale are of photographs, and CIFAR-10"
    ):
        load("cifar10", train=3)


def test_a_crop_larger_than_the_bundled_photographs_is_refused():
    with pytest.raises(ValueError, match="--image_size 300 is larger than the bundled"):
        load_training_references("photos", 4, 2, 300, "none", 0, crops=NativeCrops())


def test_a_folder_that_holds_no_image_is_not_cropped(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")

    assert choose_crop(str(tmp_path), 32) == ("whole", "no image could be opened")


def test_a_crop_is_of_the_photograph_that_its_digest_names(folder):
    """So that crops of one photograph are resampled together, and are known when they return."""
    train, _ = load(folder)
    photographs = train.images.photographs
    sizes = photographs.sizes.tolist()

    for i in range(len(train)):
        row = int(train.photographs[i])
        height, width = sizes[row]
        array = photographs.window(row, 0, 0, max(height, width))
        assert pixel_digest(array) == train.digests[i]
        assert is_inside(train.images[i].numpy(), array)
