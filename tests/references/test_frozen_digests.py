"""The digests of references and of draws are those that commit 97e7408 gave.

They tell which references a run has, what their pixels are, and what is drawn for each image. A
run's folder names them, and resuming and testing refuse other data, so they may never change.

The bundled photographs are decoded by Pillow's libjpeg and shrunk by Pillow. Another version may
give other bytes, and then their pixels' digests differ with no fault of ours. So what is drawn
for photographs is held by their names as well, and the tests of their pixels are skipped where
Pillow alone gives other bytes than it gave when the digests were written.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import distorted_dataset
from distorted_dataset import DistortedImageDataset
from distortions.registry import select_types
from references import sources
from references.photos import PHOTOS, load_photo
from references.sources import load_test_references, load_training_references
from utils.rng import SPLITS

DATA_SEED = 3
TEST_SEED = 4
ALL_TYPES = select_types("all")
CASES = {
    "defaults": {},
    "compose_3": {"compose": 3},
    "all_types": {"types": ALL_TYPES},
    "flip_cutmix": {"flip": True, "cutmix": True},
    "fixed": {"redistort": False, "distortions_per_image": 3},
    "everything": {
        "types": ALL_TYPES,
        "compose": 3,
        "flip": True,
        "cutmix": True,
        "seed": 2**32 - 1,
    },
}

# Of each source's splits: a digest of the references' names, and one of their pixels' digests.
REFERENCES = """
unsplit    train  c80350d230eb0d71  9bed2ddd34156c8c
unsplit    val    7c4d905864e80ca9  35b5d7d42a18d1fd
unsplit    test   f0e4f910899eb787  d9fb8e53781f8f26
split      train  290fb7b1e4a5ee42  ee36b0bd3bb20392
split      val    9276ba5443d15e96  8a2f0ec484d0a230
split      test   d172f313dddfb345  f470bae7c041239b
cifar10    train  ff890623ea1afb02  63808a2ef9598dd7
cifar10    val    a54f10bb888caccb  38ee653f614ca388
cifar10    test   a87838ba80574301  5699f5091a790618
photos_32  train  fa8a5941b578e188  c454d3d0e9d023ab
photos_32  val    0fbe76f5b4f8378e  e20c1c78bf3564c3
photos_32  test   579b7bf856525371  4dbb4e37cddea9f6
photos_96  train  fa8a5941b578e188  9495c202441abab0
photos_96  val    0fbe76f5b4f8378e  9f16051d14c3135d
photos_96  test   579b7bf856525371  d11889134b3b36cb
"""

# DistortedImageDataset.digest() of each case over the folder `unsplit`, at epochs 0, 1 and 7.
FOLDER_DATASETS = """
defaults     train  fa0d561b5934a02c  0f2aac45526b55f6  ce53fa17bfa524ad
defaults     val    be0fda001a117190  018c6358a87a26b0  aca4c1f1380b094b
defaults     test   9651d6ee208441b0  d699955df03c0cce  7f2a5ae42bd83f89
compose_3    train  0a59324842839a06  37d187f9f4169bc7  36da689b1722d638
compose_3    val    004b34bc6b666647  1cff3d3415462e3f  ddf7dd9e978e9571
compose_3    test   3e44ee84bec28248  a6d497361044ea03  8e29bbda118a4e7b
all_types    train  28eca71672adcc36  687d7f91ef9136e8  20b212594af81c8f
all_types    val    dfedc88268b1c8ae  9c3fe4d0c801c1a5  44486678277fc30e
all_types    test   81d52958bcfc0dac  fe07540382e6075e  27e87b2b48a5f551
flip_cutmix  train  31095ac9cbedc0b9  88463ab0947d8552  32a946b03a4fc206
flip_cutmix  val    9f5a3636b7f53b70  66e613234b6d968d  f7bf183ca0b14ff2
flip_cutmix  test   056549c1a5f37907  6fa43f80033bf926  a7f1128eceb76616
fixed        train  dd99678a103f126a  dd99678a103f126a  dd99678a103f126a
fixed        val    fbef6483fb88049a  fbef6483fb88049a  fbef6483fb88049a
fixed        test   b1ff5dbe0243482d  b1ff5dbe0243482d  b1ff5dbe0243482d
everything   train  ef6f7b48724e652a  b573f285c3e843e5  7de1389cc5b9754f
everything   val    d7cbbab6729c5850  98d9a412b4a4fa38  7267b75fe61ead61
everything   test   d9e46f933f392c98  c7b366a90ddf4913  ba698c9969823276
"""

# The same over photographs, with their names in place of their pixels' digests.
PHOTO_DRAWS = """
defaults     train  e14d53dfd0e22863  068619039c16216e  85f04c4790cbeeb1
defaults     val    8bf1af390f0fde12  f9be29967e9f997f  0a8ad2335317f1ac
defaults     test   2fb94b36e85d41e9  0c8a5ace374c41b0  cc6f4c2ed3739832
compose_3    train  3f4f71c2721b54e7  a8cb1dbac29a093a  06dd4826b166f01d
compose_3    val    d6f0f3531dc238f3  6f75680895542ad6  292c7fce759e82c5
compose_3    test   dfa78d16bd63912c  af6296c3f33b640d  0359793668123ea5
all_types    train  b56c7dabb133ff5f  147220e4f6e83726  33679ea4a2640356
all_types    val    d345e69325bda557  420466495de68323  8d7bb88c0aa95800
all_types    test   066670400399004a  7a63491d3c20c3cc  154dd7b0a3ffeae7
flip_cutmix  train  53f80a116551ce35  2d8fef46d7a6ca62  1b69f828a7e7f101
flip_cutmix  val    a006d15b0f8999ca  2c128aae67ab6265  23d88ef5aa36e489
flip_cutmix  test   e045b5982ec083eb  c0f9de8a7b1fd1e6  c74bd9c5c6209c53
fixed        train  0451bab52e26a69f  0451bab52e26a69f  0451bab52e26a69f
fixed        val    8b257a393037b581  8b257a393037b581  8b257a393037b581
fixed        test   e8da8740ea2e0d51  e8da8740ea2e0d51  e8da8740ea2e0d51
everything   train  0a876f1066e27161  233dd10038701bea  234839ef0d026fcb
everything   val    7a8c41601630dd64  ead78d0e53b3ce06  b67d4ac630701a21
everything   test   1988e82783375079  85e21448de5827b0  5289a95f4819a6cd
"""

# Over photographs of 32 pixels at epoch 0, of 32 pixels at epoch 7, of 96 pixels at epoch 1. Some
# crops of 32 pixels show a flat sky, so that types are dealt anew, and those digests are of the
# first version that does so.
PHOTO_DATASETS = """
defaults     train  9c0da436ba333020  3cfec81cd1fbad35  ed835c20f1e69947
defaults     val    646d204505caa4ef  4ca9c005bc16403d  b5960423dc2fd4a0
defaults     test   9282c73bd6d454bb  6610d469af9cbef7  d2d1fba84231a217
compose_3    train  add8b7c417ed528c  ed18f2bf291ddddd  afd53fa73fc3bc05
compose_3    val    5596ed1af716b02c  0766f579d4a83c13  68e3d214c83862c2
compose_3    test   84b8ce31662b4bde  ad70a3f15b076ac1  0fc1f5a831aa34ac
all_types    train  c7d39961722a0a65  9e0615dd1e8b3d09  329d47b8aa54b861
all_types    val    d2231d879daa151d  936c063920a1c5a4  f1c91dcf6cf8a48c
all_types    test   2f708c2637c2f947  abc7e0b89cc42a7e  7096846c879d7758
flip_cutmix  train  ef03389d76d868c9  11c1599bff570e91  e18779b756219e8b
flip_cutmix  val    89fb34e64188b671  a5ecef0014d99d6a  1a29fe223b459b62
flip_cutmix  test   cd6b5e47aebfd974  d593549525e49b54  f29431d6cd48b45e
fixed        train  14356bd9ea246047  14356bd9ea246047  4c1d2bbe75cf56c8
fixed        val    105da24b156edb08  105da24b156edb08  50025f1e10bb4af9
fixed        test   881a08e5b153b6fd  881a08e5b153b6fd  691ea28b4fd479f0
everything   train  bb73e9b9ba4f0dba  fde1e0f7885b5262  a28ec43ba67cf4bc
everything   val    2c6fd1d087bb539d  28cc9d21fe20d7ee  1b3c95c63aab0e8a
everything   test   180de592de7593f5  cdb4a366927d2f3e  f7f907fd67aeacd8
"""

# Of the photographs as Pillow alone decodes and shrinks them.
PILLOW = "76d9eeb1c8e2bef6"


def read_table(text):
    """Return {(first, second word): the other words of a line}."""
    rows = [line.split() for line in text.strip().splitlines()]
    return {(row[0], row[1]): row[2:] for row in rows}


def parametrize(table, columns):
    """Run a test once for each row of a table."""
    rows = [(*key, values) for key, values in read_table(table).items()]
    names = [f"{first}-{second}" for first, second, _ in rows]
    return pytest.mark.parametrize(columns, rows, ids=names)


def write_image(path, seed, width=32):
    """Save noise from numpy's old generator, whose numbers are the same in every version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (32, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_folders(root):
    """Write `unsplit`, with copies and a broken file, and `split`, whose parts share images."""
    for i in range(40):
        write_image(root / "unsplit" / str(i % 3) / f"{i:02d}.png", i, width=32 if i % 4 else 48)
    for name in ("copy.png", "another.png"):
        write_image(root / "unsplit" / name, 5)
    (root / "unsplit" / "broken.png").write_bytes(b"no image")
    for i in range(30):
        write_image(root / "split" / "train" / f"{i:02d}.png", i)
    for i in range(20, 40):
        write_image(root / "split" / "test" / f"{i:02d}.png", i)


def cifar10_images(data_root, split):
    """Stand in for CIFAR-10: 40 images of noise a split."""
    generator = np.random.RandomState(SPLITS.index(split))
    return generator.randint(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def load_splits(source, side, cache_dir=None):
    """Load 24 references to train on, 6 to validate on and 6 to test on: {split: References}."""
    train, val = load_training_references(
        source,
        train_samples=24,
        val_samples=6,
        image_size=side,
        data_root="none",
        data_seed=DATA_SEED,
        cache_dir=cache_dir,
    )
    test, _ = load_test_references(
        source,
        count=6,
        image_size=side,
        data_root="none",
        data_seed=DATA_SEED,
        seed=TEST_SEED,
        exclude=train.digests + val.digests,
        cache_dir=cache_dir,
    )
    return {"train": train, "val": val, "test": test}


def digest(texts):
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:16]


def dataset_digest(references, case, split, epoch):
    dataset = DistortedImageDataset(references, split=split, **CASES[case])
    dataset.set_epoch(epoch)
    return dataset.digest()


@pytest.fixture(scope="module")
def folders(module_folder):
    write_folders(module_folder)
    return module_folder


@pytest.fixture(scope="module")
def references(folders):
    """Load every source into memory: {source: {split: References}}."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_load_cifar10", cifar10_images)
        return {
            "unsplit": load_splits(str(folders / "unsplit"), 32),
            "split": load_splits(str(folders / "split"), 32),
            "cifar10": load_splits("cifar10", 32),
            "photos_32": load_splits("photos", 32),
            "photos_96": load_splits("photos", 96),
        }


@pytest.fixture(scope="module")
def packed(folders):
    """Load the folders by a cache on disk."""
    return {
        name: load_splits(str(folders / name), 32, cache_dir=folders / "cache")
        for name in ("unsplit", "split")
    }


@pytest.fixture(scope="module")
def same_pillow():
    """Skip where Pillow gives other bytes of the photographs than when digests were written."""
    found = hashlib.sha256()
    for i in range(len(PHOTOS)):
        photo = load_photo(i)
        box = (0.5, 0.5, 257.3, 257.3)
        found.update(photo.tobytes())
        found.update(photo.resize((32, 32), Image.Resampling.LANCZOS, box=box).tobytes())
    if found.hexdigest()[:16] != PILLOW:
        pytest.skip("this Pillow decodes or shrinks the photographs to other bytes")


@parametrize(REFERENCES, "source, split, expected")
def test_the_same_references_are_taken(references, source, split, expected):
    assert digest(references[source][split].names) == expected[0]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("source", ["unsplit", "split", "cifar10"])
def test_pixel_digests_are_frozen(references, source, split):
    expected = read_table(REFERENCES)[source, split]

    assert digest(references[source][split].digests) == expected[1]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("source", ["unsplit", "split"])
def test_packed_references_have_the_same_digests(packed, source, split):
    expected = read_table(REFERENCES)[source, split]

    found = packed[source][split]

    assert [digest(found.names), digest(found.digests)] == expected


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("source", ["photos_32", "photos_96"])
def test_pixel_digests_of_photos_are_frozen(references, same_pillow, source, split):
    expected = read_table(REFERENCES)[source, split]

    assert digest(references[source][split].digests) == expected[1]


@pytest.mark.parametrize("is_packed", [False, True], ids=["in memory", "packed"])
@parametrize(FOLDER_DATASETS, "case, split, expected")
def test_datasets_of_a_folder_are_frozen(references, packed, is_packed, case, split, expected):
    found = (packed if is_packed else references)["unsplit"][split]

    digests = [dataset_digest(found, case, split, epoch) for epoch in (0, 1, 7)]

    assert digests == expected


@pytest.mark.parametrize("source", ["photos_32", "photos_96"])
@parametrize(PHOTO_DRAWS, "case, split, expected")
def test_draws_of_photos_are_frozen(references, monkeypatch, source, case, split, expected):
    """They hold with any version of Pillow: names stand where pixels' digests would.

    Types are dealt here as if every distortion took effect on every crop.
    """
    monkeypatch.setattr(distorted_dataset, "takes_effect", take_all_for_effective)
    photos = references[source][split]
    named = replace(photos, digests=photos.names)

    digests = [dataset_digest(named, case, split, epoch) for epoch in (0, 1, 7)]

    assert digests == expected


def take_all_for_effective(images, types):
    return torch.ones((len(images), len(types), 2), dtype=torch.bool)


@parametrize(PHOTO_DATASETS, "case, split, expected")
def test_datasets_of_photos_are_frozen(references, same_pillow, case, split, expected):
    small = references["photos_32"][split]
    large = references["photos_96"][split]

    digests = [
        dataset_digest(small, case, split, epoch=0),
        dataset_digest(small, case, split, epoch=7),
        dataset_digest(large, case, split, epoch=1),
    ]

    assert digests == expected
