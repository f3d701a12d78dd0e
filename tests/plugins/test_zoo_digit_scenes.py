"""The composed scenes of digits: boxes, masks, and where they come from."""

import pickle

import numpy as np
import pytest
import torch

from micronet.errors import OptionError


def scenes(create, **options):
    return create("dataset", "digit_scenes", train=60, test=40, **options).load()


@pytest.fixture(scope="module")
def boxed(create):
    return scenes(create)


@pytest.fixture(scope="module")
def masked(create):
    return scenes(create, targets="segmentation")


def test_a_scene_has_one_to_four_boxes_within_it_and_labels_from_one(boxed):
    for part in boxed:
        counts = set()
        for image, target in part:
            assert (image.shape, image.dtype) == ((3, 96, 96), torch.float32)
            assert 0 <= image.min() < image.max() <= 1
            boxes, labels = target["boxes"], target["labels"]
            assert (boxes.dtype, labels.dtype) == (torch.float32, torch.int64)
            assert boxes.shape == (len(labels), 4)
            assert boxes.min() >= 0
            assert boxes.max() <= 96
            assert ((boxes[:, 2:] - boxes[:, :2]) >= 3).all()
            assert set(labels.tolist()) <= set(range(1, 11))
            counts.add(len(labels))
        assert counts == {1, 2, 3, 4}


def test_boxes_are_tight_around_what_the_masks_of_the_same_scenes_show(boxed, masked):
    for (image, target), (same, mask) in zip(boxed[1], masked[1], strict=True):
        assert torch.equal(image, same)
        assert (mask.shape, mask.dtype) == ((96, 96), torch.int64)
        outside = mask.clone()
        for box, label in zip(target["boxes"].int().tolist(), target["labels"], strict=True):
            x1, y1, x2, y2 = box
            ink = mask[y1:y2, x1:x2]
            assert set(ink.unique().tolist()) <= {0, int(label)}
            for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]):
                assert edge.any()
            outside[y1:y2, x1:x2] = 0
        assert not outside.any()


def test_every_digit_occurs(masked):
    seen = {label for _, mask in masked[0] for label in mask.unique().tolist()}
    assert seen == set(range(11))


def test_scenes_come_from_the_seed_and_their_number_alone(create, boxed):
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 (the legacy state is what must not matter)
    again = pickle.loads(pickle.dumps(scenes(create)[0]))
    image, target = again[41]
    assert torch.equal(image, boxed[0][41][0])
    assert torch.equal(target["boxes"], boxed[0][41][1]["boxes"])
    assert torch.equal(image, create("dataset", "digit_scenes", train=42).load()[0][41][0])
    assert not torch.equal(image, scenes(create, seed=1)[0][41][0])
    assert not torch.equal(image, boxed[0][40][0])


def test_training_and_test_share_no_digit_and_no_part_of_a_photograph(create):
    train, test = scenes(create)
    known = {digit.tobytes() for digit in train.digits}
    assert not known & {digit.tobytes() for digit in test.digits}
    for left, right in zip(train.photographs, test.photographs, strict=True):
        assert left.shape[2] + right.shape[2] == 640


@pytest.mark.parametrize("size", [64, 192])
def test_scenes_have_the_size_that_is_asked_for(create, size):
    for part in scenes(create, size=size, targets="segmentation"):
        image, mask = part[0]
        assert image.shape == (3, size, size)
        assert mask.shape == (size, size)


def test_it_ends_where_it_says(boxed):
    assert (len(boxed[0]), len(boxed[1])) == (60, 40)
    with pytest.raises(IndexError):
        boxed[0][60]


def test_what_it_tells_of_itself(create):
    contents = create("dataset", "digit_scenes", size=64).contents
    assert (contents.shape, contents.classes) == ((3, 64, 64), 11)
    assert contents.labels[:2] == ("background", "0")


def test_a_view_that_does_not_exist_is_refused(create):
    with pytest.raises(OptionError, match="targets must be one of 'detection', 'segmentation'"):
        create("dataset", "digit_scenes", targets="keypoints")
