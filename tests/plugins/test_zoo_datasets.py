"""The data sets that come with micronet."""

import numpy as np
import pytest
import torch

from micronet.errors import DataError


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


@pytest.mark.timeout(60)
def test_cifar10_without_a_network_says_where_to_put_which_file(create, tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz") as caught:
        create("dataset", "cifar10", root=str(tmp_path / "data")).load()
    assert str(tmp_path / "data") in str(caught.value)


def test_cifar10_in_a_place_that_is_a_file_is_refused_in_words(create, tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(DataError, match="CIFAR-10 is not in"):
        create("dataset", "cifar10", root=str(tmp_path / "data")).load()


def test_what_a_data_set_tells_of_itself_is_what_it_loads(create, digits):
    contents = create("dataset", "digits").contents
    image, _ = digits[0][0]
    assert tuple(image.shape) == contents.shape
    assert {int(label) for _, label in digits[0]} == set(range(contents.classes))
    assert contents.labels == tuple("0123456789")
    assert image.min().item() == -contents.mean[0] / contents.std[0]


@pytest.mark.parametrize("root", ["~nosuchuser/x", "a\0b", "x" * 5000])
def test_a_root_of_any_shape_is_refused_in_words(create, root):
    with pytest.raises(DataError, match=r"^CIFAR-10 is not in "):
        create("dataset", "cifar10", root=root).load()
