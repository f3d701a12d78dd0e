"""Images with masks in folders."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from micronet.errors import DataError, OptionError

LABELS = np.array([[0, 1, 2, 255]] * 8, np.uint8).repeat(4, 0).repeat(4, 1)


def palette(labels):
    image = Image.fromarray(labels, "L")
    image = image.convert("P")
    image.putdata(labels.flatten().tolist())
    return image


def draw(root, labels=LABELS, *, names=("b", "a"), suffix=".png", make=Image.fromarray):
    """Images whose green is ten times the label; gives the options that name the folders."""
    options = {"classes": 3}
    for part in ("train", "test"):
        for kind in ("images", "masks"):
            folder = root / part / kind
            folder.mkdir(parents=True)
            options[f"{part}_{kind}"] = str(folder)
            for name in names:
                if kind == "masks":
                    (folder / name).parent.mkdir(exist_ok=True)
                    make(labels).save(folder / f"{name}{suffix}")
                else:
                    (folder / name).parent.mkdir(exist_ok=True)
                    pixels = np.zeros((*LABELS.shape, 3), np.uint8)
                    pixels[..., 1] = LABELS // 2 * 10
                    Image.fromarray(pixels).save(folder / f"{name}.bmp")
    return options


@pytest.mark.parametrize("make", [Image.fromarray, palette], ids=["grey", "palette"])
def test_an_image_comes_with_the_mask_of_its_stem(create, tmp_path, make):
    options = draw(tmp_path, make=make)
    train, test = create("dataset", "segmentation_folder", size=16, **options).load()
    for part in (train, test):
        assert len(part) == 2
        image, mask = part[0]
        assert (image.shape, image.dtype) == ((3, 16, 16), torch.float32)
        assert (mask.shape, mask.dtype) == ((16, 16), torch.int64)
        assert mask.unique().tolist() == [0, 1, 2, 255]


def test_files_in_folders_of_their_own_pair_by_their_suffixes(create, tmp_path):
    options = draw(tmp_path, names=("city/one", "city/two"), suffix="_labels.png")
    data = create(
        "dataset",
        "segmentation_folder",
        image_suffix=".bmp",
        mask_suffix="_labels.png",
        size=[8, 16],
        **options,
    )
    image, mask = data.load()[0][1]
    assert image.shape == (3, *mask.shape) == (3, 8, 16)
    assert data.contents.shape == (3, 8, 16)


@pytest.mark.parametrize("mean", [None, [0.5, 0.5, 0.5]], ids=str)
def test_statistics_are_as_told(create, tmp_path, mean):
    std = mean and [0.25, 0.25, 0.25]
    data = create("dataset", "segmentation_folder", mean=mean, std=std, size=16, **draw(tmp_path))
    image, _ = data.load()[0][0]
    lowest, highest = (0.0, 1270 % 256 / 255)
    if mean:
        lowest, highest = (lowest - 0.5) / 0.25, (highest - 0.5) / 0.25
    assert image.min().item() == pytest.approx(lowest)
    assert image[1, :, -1].max().item() == pytest.approx(highest)
    assert data.contents.mean == tuple(mean or [0, 0, 0])


def test_random_changes_move_the_mask_with_the_image_and_spare_the_test(create, tmp_path):
    data = create(
        "dataset",
        "segmentation_folder",
        augment=["crop", "flip"],
        mean=None,
        std=None,
        size=32,
        **draw(tmp_path),
    )
    train, test = data.load()
    torch.manual_seed(0)
    lefts = set()
    for _ in range(8):
        image, mask = train[0]
        inside = torch.isin(mask, torch.tensor([0, 2])) & (image[1] * 255 % 10 < 0.1)
        green = (image[1] * 255).round()
        assert (green[inside] == mask[inside] // 2 * 10).all()
        assert inside.float().mean() > 0.1
        lefts.add(tuple(mask[0].tolist()))
    assert len(lefts) > 4
    assert torch.equal(test[0][1], test[0][1])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda masks: (masks / "a.png").unlink(), r"image .*a\.bmp has no mask; .*a\.png is not"),
        (
            lambda masks: Image.fromarray(LABELS[:9]).save(masks / "a.png"),
            r"a\.png has \[9, 16\] pixels \(height, width\), and its image a\.bmp has \[32, 16\]",
        ),
        (
            lambda masks: Image.fromarray(LABELS + np.uint8(5)).save(masks / "a.png"),
            r"a\.png holds the number 5; allowed are 0 to 2 .* 255",
        ),
        (
            lambda masks: Image.fromarray(np.zeros((32, 16, 3), np.uint8)).save(masks / "a.png"),
            r"a\.png is of Pillow's mode RGB",
        ),
        (lambda masks: (masks / "a.png").write_text("no"), r"mask .*a\.png can't be read: Unid"),
        (
            lambda masks: (masks.parent / "images" / "a.bmp").write_text("no"),
            r"image .*a\.bmp can't be read: Unid",
        ),
        (
            lambda masks: Image.new("RGB", (16, 32)).save(masks.parent / "images" / "a.png"),
            r"a\.bmp and .*a\.png have one mask",
        ),
    ],
    ids=["missing", "size", "label", "colour", "mask", "image", "twice"],
)
def test_what_is_wrong_is_named_with_its_file(create, tmp_path, break_it, message):
    options = draw(tmp_path)
    break_it(tmp_path / "train" / "masks")
    with pytest.raises(DataError, match=message):
        create("dataset", "segmentation_folder", **options).load()[0][0]


def test_a_folder_without_images_is_named(create, tmp_path):
    options = draw(tmp_path, names=())
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'train' / 'images'} holds no")):
        create("dataset", "segmentation_folder", **options).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_masks": "nowhere"}, "test_masks must be a folder, and 'nowhere' is none"),
        ({"labels": ["sky"]}, "labels must name the 3 classes, got 1"),
        ({"size": [0, 8]}, r"size must be at least 1, got \[0, 8\]"),
        ({"mean": None}, "mean and std need each other"),
        ({"std": [1.0, 0.0, 1.0]}, r"std must hold numbers above 0, got \[1.0, 0.0, 1.0\]"),
        ({"augment": ["twirl"]}, "augment must be a list of 'crop' | 'flip' | 'colour'"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(create, tmp_path, options, message):
    with pytest.raises(OptionError, match=message.replace("|", r"\|")):
        create("dataset", "segmentation_folder", **{**draw(tmp_path), **options})
