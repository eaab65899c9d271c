"""The README's first figure says what a run says of the photograph."""

from docs.scored_photo import TYPES, describe, draw
from references.photos import PHOTOS, load_photo
from tests.models.test_quality_map import make_run


def test_each_version_has_its_score():
    run = make_run()

    axes = draw(run).axes

    titles = [axis.get_title() for axis in axes]
    assert len(titles) == 1 + len(TYPES)
    assert titles[0].startswith("as it is: true 100\nscore ")
    assert titles[1].startswith("jpeg compression: true 52\nscore ")
    shown = [axis.images[0].get_array() for axis in axes]
    for title, image in zip(titles, shown):
        assert title.endswith(describe(run, image.data))
    assert all((image != shown[0]).any() for image in shown[1:])


def test_the_photograph_is_one_of_the_bundled():
    photos = [i for i, (_, path) in enumerate(PHOTOS) if path.endswith("coffee.png")]

    assert [load_photo(i).size for i in photos] == [(600, 400)]
