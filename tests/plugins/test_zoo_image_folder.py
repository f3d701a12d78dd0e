"""Images in a folder for each class."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from micronet.errors import DataError, OptionError


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


def test_what_it_tells_of_itself_is_what_it_loads(create, tmp_path):
    for split in ("train", "test"):
        draw(tmp_path, split, ["dog", "cat", "owl"])
    data = create("dataset", "image_folder", root=str(tmp_path), size=16)
    train, _ = data.load()
    assert tuple(train[0][0].shape) == data.contents.shape
    assert {int(label) for _, label in train} == set(range(data.contents.classes))
    assert list(data.contents.labels) == train.classes == ["cat", "dog", "owl"]


@pytest.mark.parametrize("root", ["~nosuchuser/x", "a\0b", "x" * 5000])
def test_a_root_of_any_shape_is_refused_in_words(create, root):
    with pytest.raises(OptionError, match=r"root .*(can't be read: |must hold .* is no folder)"):
        create("dataset", "image_folder", root=root)


@pytest.fixture
def wide(tmp_path):
    """The folder of one class, whose images are a red, a green and a blue square in a row."""
    pixels = np.zeros((20, 60, 3), np.uint8)
    for channel in range(3):
        pixels[:, 20 * channel : 20 * (channel + 1), channel] = 255
    for split in ("train", "test"):
        (tmp_path / split / "flag").mkdir(parents=True)
        for number in range(2):
            Image.fromarray(pixels).save(tmp_path / split / "flag" / f"{number}.png")
    return tmp_path


def test_by_default_images_are_normalised_cropped_and_flipped_as_imagenets(create, wide):
    train, test = create("dataset", "image_folder", root=str(wide), size=16).load()
    tail = [
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    image = Image.open(wide / "train" / "flag" / "0.png")
    crop = transforms.Compose([transforms.Resize(18), transforms.CenterCrop(16), *tail])
    assert torch.equal(test[0][0], crop(image))
    at_random = transforms.Compose(
        [transforms.RandomResizedCrop(16), transforms.RandomHorizontalFlip(), *tail]
    )
    for seed in range(4):
        torch.manual_seed(seed)
        expected = at_random(image)
        torch.manual_seed(seed)
        assert torch.equal(train[0][0], expected)


def test_whole_images_stay_as_they_are_without_random_changes(create, wide):
    options = {"resize": "stretch", "augment": [], "mean": None, "std": None}
    data = create("dataset", "image_folder", root=str(wide), size=12, **options)
    for split in data.load():
        image, _ = split[0]
        assert image[:, 6, [0, 6, 11]].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
        assert torch.equal(split[0][0], image)
    assert (data.contents.mean, data.contents.std) == ((0, 0, 0), (1, 1, 1))


def test_a_flip_alone_swaps_left_and_right_in_training_only(create, wide):
    options = {"resize": "stretch", "augment": ["flip"], "mean": None, "std": None}
    train, test = create("dataset", "image_folder", root=str(wide), size=12, **options).load()
    torch.manual_seed(0)
    assert {int(train[0][0][0, 6, 0]) for _ in range(16)} == {0, 1}
    assert {int(test[0][0][0, 6, 0]) for _ in range(16)} == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": None}, "mean and std need each other"),
        ({"std": [0.2, 0.2]}, "std must be a list of 3 float or null"),
        ({"std": [0.2, 0.2, -1.0]}, "std must hold numbers above 0"),
        ({"resize": "pad"}, "resize must be one of 'crop', 'stretch', got 'pad'"),
        ({"augment": ["rotate"]}, "augment must be a list of"),
        ({"augment": "flip"}, "augment must be a list of"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(create, wide, options, message):
    with pytest.raises(OptionError, match=message):
        create("dataset", "image_folder", root=str(wide), **options)
