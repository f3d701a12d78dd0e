"""COCO's images and annotations."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from micronet.errors import DataError, OptionError

BLUE = (0, 0, 255)


def content():
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 9, "file_name": "wide.png", "width": 60, "height": 40},
            {"id": 4, "file_name": "folder/empty.png"},
        ],
        "categories": [
            {"id": 44, "name": "bottle", "supercategory": "kitchen"},
            {"id": 1, "name": "person", "supercategory": "person"},
        ],
        "annotations": [
            {
                "id": 7, "image_id": 9, "category_id": 44, "bbox": [10, 5, 20, 30.0],
                "iscrowd": 0, "area": 600, "segmentation": [],
            },
            {"id": 8, "image_id": 9, "category_id": 1, "bbox": [30, 0, 30, 40], "iscrowd": 1},
        ],
    }  # fmt: skip


def draw(root, train=None, test=None):
    """Gives the options that name the files; in the first image the first box is blue."""
    options = {}
    for part, given in (("train", train), ("test", test)):
        folder = root / part
        (folder / "folder").mkdir(parents=True)
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[5:35, 10:30] = BLUE
        Image.fromarray(pixels).save(folder / "wide.png")
        Image.new("RGB", (30, 50)).save(folder / "folder" / "empty.png")
        file = root / f"{part}.json"
        file.write_text(json.dumps(content() if given is None else given))
        options |= {f"{part}_images": str(folder), f"{part}_annotations": str(file)}
    return options


def test_boxes_and_labels_come_with_the_image_at_its_own_size(create, tmp_path):
    train, test = create("dataset", "coco", size=None, **draw(tmp_path)).load()
    image, target = train[0]
    assert (image.shape, image.dtype) == ((3, 40, 60), torch.float32)
    assert target["boxes"].tolist() == [[10, 5, 30, 35]]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [2]
    assert target["labels"].dtype == torch.int64
    assert test[0][1]["boxes"].tolist() == [[10, 5, 30, 35], [30, 0, 60, 40]]
    assert test[0][1]["labels"].tolist() == [2, 1]
    assert test[0][1]["iscrowd"].tolist() == [False, True]


def test_an_image_without_objects_has_no_boxes(create, tmp_path):
    image, target = create("dataset", "coco", size=32, **draw(tmp_path)).load()[0][1]
    assert image.shape == (3, 32, 32)
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)


def test_an_image_fits_a_square_and_its_boxes_move_along(create, tmp_path):
    image, target = create("dataset", "coco", size=30, **draw(tmp_path)).load()[0][0]
    assert target["boxes"].tolist() == [[5, 2.5, 15, 17.5]]
    assert image[2, 4:16, 6:14].min() > 0.9
    assert image[:, 20:].unique().tolist() == [pytest.approx(114 / 255)]


def test_random_changes_move_the_boxes_with_the_pixels(create, tmp_path):
    options = draw(tmp_path)
    train, test = create("dataset", "coco", size=None, augment=["crop", "flip"], **options).load()
    torch.manual_seed(0)
    places = set()
    for _ in range(12):
        image, target = train[0]
        inside = torch.zeros(image.shape[1:], dtype=torch.bool)
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            inside[y1:y2, x1:x2] = True
            places.add((x1, y1, x2, y2))
            assert torch.equal(image[2] > 0.5, inside)
    assert len(places) > 6
    assert torch.equal(test[0][0], test[0][0])


def test_what_it_tells_of_itself(create, tmp_path):
    options = draw(tmp_path)
    contents = create("dataset", "coco", size=64, **options).contents
    assert contents.shape == (3, 64, 64)
    assert contents.labels == ("background", "person", "bottle")
    assert contents.classes == 3
    assert create("dataset", "coco", size=None, **options).contents is None


def test_boxes_without_an_area_are_left_out_with_a_warning(create, tmp_path):
    wrong = content()
    wrong["annotations"][0]["bbox"] = [1, 2, 3, 0.0]
    data = create("dataset", "coco", size=None, **draw(tmp_path, train=wrong))
    with pytest.warns(UserWarning, match=r"train\.json: 1 boxes have no area .* annotation 7, "):
        train, _ = data.load()
    assert len(train[0][1]["boxes"]) == 0


def damaged(change):
    wrong = content()
    change(wrong)
    return wrong


def remove(key):
    return damaged(lambda wrong: wrong.pop(key))


def annotation(**changes):
    return damaged(lambda wrong: wrong["annotations"][0].update(changes))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([], r"train\.json must hold a mapping"),
        (remove("images"), r"train\.json lacks the list 'images'"),
        (damaged(lambda c: c.update(images=[])), r"train\.json holds no images"),
        (
            damaged(lambda c: c["images"][1].pop("file_name")),
            r"images\[1\]\.file_name: it lacks 'file_name'",
        ),
        (damaged(lambda c: c["images"][1].update(id=9)), r"two of the images have the id 9"),
        (damaged(lambda c: c["categories"][1].update(id=44)), "two of the categories .* id 44"),
        (annotation(bbox="big"), r"annotations\[0\]\.bbox: expected a list, got 'big'"),
        (annotation(bbox=[1, 2, 3]), r"annotation 7 must have a bbox of four finite numbers"),
        (annotation(bbox=[1, 2, 3, float("nan")]), r"annotation 7 must have a bbox of four fin"),
        (annotation(bbox=[1, 2, -3, 4]), r"annotation 7 has a bbox of negative size, \[1, 2, -3"),
        (annotation(image_id=3), r"annotation 7 is of the image 3, which is not there"),
        (annotation(category_id=3), r"annotation 7 is of the category 3, which is not there"),
        (
            damaged(lambda c: c["images"][0].update(file_name="gone.png")),
            r"image .*gone\.png of .*train\.json is not there",
        ),
        (
            damaged(lambda c: c["images"][1].update(file_name="x" * 5000)),
            r"image .*xxx of .*train\.json is not there",
        ),
        (
            damaged(lambda c: c["categories"][0].update(name="can")),
            r"must have the same categories .* got person, can and person, bottle",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_annotations_is_named(create, tmp_path, train, message):
    with pytest.raises(DataError, match=message):
        create("dataset", "coco", **draw(tmp_path, train=train)).load()


@pytest.mark.parametrize(
    "text", [b"{", b"\xff\xfe\x00", b"[" * 10**5], ids=["cut", "bytes", "deep"]
)
def test_a_file_that_is_no_json_is_named(create, tmp_path, text):
    options = draw(tmp_path)
    (tmp_path / "test.json").write_bytes(text)
    data = create("dataset", "coco", **options)
    for look in (data.load, lambda: data.contents):
        with pytest.raises(DataError, match=r"test\.json is no readable JSON file: "):
            look()


def test_a_box_outside_its_image_is_named_as_it_is_read(create, tmp_path):
    data = create("dataset", "coco", **draw(tmp_path, train=annotation(bbox=[70, 5, 5, 5])))
    with pytest.raises(DataError, match=r"\[70, 5, 75, 10\] .* annotation 7 lies outside .*wide"):
        data.load()[0][0]


def test_a_box_that_overshoots_is_cut_at_the_edge(create, tmp_path):
    options = draw(tmp_path, train=annotation(bbox=[50, 30, 10.4, 30]))
    train, _ = create("dataset", "coco", size=None, **options).load()
    assert train[0][1]["boxes"].tolist() == [[50, 30, 60, 40]]


def test_an_image_that_cannot_be_read_is_named(create, tmp_path):
    options = draw(tmp_path)
    (tmp_path / "train" / "wide.png").write_text("no")
    with pytest.raises(DataError, match=r"image .*wide\.png can't be read: Unidentified"):
        create("dataset", "coco", **options).load()[0][0]


@pytest.mark.parametrize("name", ["train_images", "test_annotations"])
def test_a_path_that_is_not_there_is_refused(create, tmp_path, name):
    with pytest.raises(OptionError, match=f"{name} must be a f.* and 'nowhere' is none"):
        create("dataset", "coco", **{**draw(tmp_path), name: "nowhere"})


def test_what_is_right_warns_of_nothing(create, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create("dataset", "coco", augment=["colour"], **draw(tmp_path)).load()[0][0]
