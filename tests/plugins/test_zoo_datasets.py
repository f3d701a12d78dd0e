"""The data sets that come with micronet."""

import numpy as np
import pytest
import torch
from PIL import Image

from micronet.errors import DataError, OptionError


@pytest.fixture(scope="module")
def digits(create):
    return create("dataset", "digits").load()


def test_digits_come_in_a_training_and_a_test_set_of_fixed_sizes(digits):
    assert [len(split) for split in digits] == [1437, 360]


def test_a_digit_is_a_normalised_colour_image_with_its_label(digits):
    for split in digits:
        image, label = split[0]
        assert image.shape == (3, 32, 32)
        assert image.dtype == torch.float32
        assert image.min() >= -1
        assert image.max() <= 1
        assert torch.equal(image[0], image[2])
        assert int(label) in range(10)


def test_both_sets_hold_every_digit_in_the_same_share(digits):
    shares = [
        np.bincount([int(label) for _, label in split], minlength=10) / len(split)
        for split in digits
    ]
    assert np.abs(shares[0] - shares[1]).max() < 0.005


def test_no_test_digit_is_in_the_training_set(digits):
    train, test = ({image.numpy().tobytes() for image, _ in split} for split in digits)
    assert not train & test


def test_the_split_is_the_same_every_time(create, digits):
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 (the legacy state is what must not matter)
    again = create("dataset", "digits").load()
    for old, new in zip(digits, again, strict=True):
        assert torch.equal(old.tensors[0], new.tensors[0])
        assert torch.equal(old.tensors[1], new.tensors[1])


def draw(root, split, classes, count=2):
    for index, name in enumerate(classes):
        (root / split / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((20 + number, 30, 3), 40 * index, np.uint8)
            Image.fromarray(pixels).save(root / split / name / f"{number}.png")


@pytest.mark.parametrize("second", ["test", "val"])
def test_images_in_folders_become_squares_with_the_folders_position_as_label(
    create, tmp_path, second
):
    draw(tmp_path, "train", ["cat", "dog"])
    draw(tmp_path, second, ["cat", "dog"], count=1)
    train, test = create("dataset", "image_folder", root=str(tmp_path), size=16).load()
    assert (len(train), len(test)) == (4, 2)
    assert [label for _, label in train] == [0, 0, 1, 1]
    for split in (train, test):
        assert split[0][0].shape == (3, 16, 16)
        assert split[0][0].dtype == torch.float32
    assert torch.equal(test[1][0], test[1][0])


@pytest.mark.parametrize("present", [[], ["train"], ["test"]], ids=str)
def test_a_missing_folder_is_named(create, tmp_path, present):
    for split in present:
        draw(tmp_path, split, ["cat"])
    with pytest.raises(OptionError, match=r"root must hold a folder 'train'.*does not"):
        create("dataset", "image_folder", root=str(tmp_path))


@pytest.mark.parametrize(
    ("train", "test"), [(["cat", "dog"], ["cat"]), (["cat"], ["cat", "dog"])], ids=str
)
def test_classes_that_only_one_set_has_are_named(create, tmp_path, train, test):
    draw(tmp_path, "train", train)
    draw(tmp_path, "test", test)
    with pytest.raises(DataError, match="differ in the class 'dog'"):
        create("dataset", "image_folder", root=str(tmp_path)).load()


def test_a_class_without_images_is_refused_in_words(create, tmp_path):
    draw(tmp_path, "train", ["cat"])
    draw(tmp_path, "test", ["cat"], count=0)
    with pytest.raises(DataError, match="can't be read"):
        create("dataset", "image_folder", root=str(tmp_path)).load()


def test_the_folder_must_be_given(create):
    with pytest.raises(OptionError, match="needs the option 'root'"):
        create("dataset", "image_folder")


@pytest.mark.timeout(60)
def test_cifar10_without_a_network_says_where_to_put_which_file(create, tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz") as caught:
        create("dataset", "cifar10", root=str(tmp_path / "data")).load()
    assert str(tmp_path / "data") in str(caught.value)


def test_cifar10_in_a_place_that_is_a_file_is_refused_in_words(create, tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(DataError, match="CIFAR-10 is not in"):
        create("dataset", "cifar10", root=str(tmp_path / "data")).load()


def test_what_a_data_set_tells_of_itself_is_what_it_loads(create, digits, tmp_path):
    for split in ("train", "test"):
        draw(tmp_path, split, ["cat", "dog", "owl"])
    folder = create("dataset", "image_folder", root=str(tmp_path), size=16)
    for told, (train, _) in (
        (create("dataset", "digits").contents, digits),
        (folder.contents, folder.load()),
    ):
        labels = {int(label) for _, label in train}
        assert tuple(train[0][0].shape) == told.shape
        assert labels == set(range(told.classes))


@pytest.mark.parametrize("root", ["~nosuchuser/x", "a\0b", "x" * 5000])
def test_a_root_of_any_shape_is_refused_in_words(create, root):
    with pytest.raises(OptionError, match=r"root .*(can't be read: |is no folder\.)"):
        create("dataset", "image_folder", root=root)
    with pytest.raises(DataError, match=r"^CIFAR-10 is not in "):
        create("dataset", "cifar10", root=root).load()
