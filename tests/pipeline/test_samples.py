"""What a sample does wrong, anywhere in the data and in any step, is said with its index."""

import pickle
import sys
from itertools import product

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from micronet import registry
from micronet.errors import DataError, RunError
from micronet.pipeline.data import checked_sets, fitted_task, for_task
from micronet.pipeline.samples import Samples
from micronet.registry import create
from micronet.training.evaluation import read

TASK = create("task", "classification")
IMAGE = torch.zeros(3, 4, 4)


class Spoilt:
    """Ten samples of four classes, one of which is another's, or raises."""

    def __init__(self, sample, index=7):
        self.sample, self.index = sample, index

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index != self.index:
            return IMAGE, index % 4
        if isinstance(self.sample, BaseException):
            raise self.sample
        return self.sample


class Unsized(Spoilt):
    def __len__(self):
        return sys.exit(0)


SPOILT = [
    (StopIteration(), "gives no image 7: StopIteration."),
    (SystemExit(0), "gives no image 7: SystemExit: 0."),
    (GeneratorExit(), "gives no image 7: GeneratorExit."),
    (DataError("It rained.\nAll day."), "gives no image 7: DataError: It rained."),
    (IMAGE, "must give (image, target), got a tensor of float32 [3, 4, 4] at index 7."),
    ((IMAGE, 1, 2), "must give (image, target), got a tuple of 3 at index 7."),
    ((IMAGE.int(), 1), "got a tensor of int32 [3, 4, 4] at index 7. Give image.float()."),
    ((IMAGE.byte(), 1), "got a tensor of uint8 [3, 4, 4] at index 7. Give image.float() / 255."),
    ((IMAGE.numpy(), 1), "Give torch.from_numpy(image).float(), with the channels first."),
    (
        (Image.new("RGB", (4, 4)), 1),
        "ToTensor() of torchvision.transforms makes tensors of images.",
    ),
    ((IMAGE[:1], 1), "must give images of one shape, got [3, 4, 4] and [1, 4, 4] at index 7."),
    ((IMAGE.double(), 1), "must give images of one type, got float32 and float64 at index 7."),
    ((IMAGE, 4), "must give labels below 4, the model's number of classes, got 4 at index 7."),
    *(
        ((IMAGE, label), f"as the label, got {shown} at index 7.")
        for label, shown in [
            (-1, "-1"),
            (-100, "-100"),
            (1.5, "1.5"),
            (1.0, "1.0"),
            (True, "True"),
            ("1", "'1'"),
            (None, "an object of type NoneType"),
            (np.float32(1), "np.float32(1.0)"),
            (np.bool_(True), "np.True_"),
            (torch.tensor(1.5), "tensor(1.5000)"),
            (torch.tensor(True), "tensor(True)"),
            (torch.tensor([1]), "a tensor of int64 [1]"),
            (np.array([1]), "an ndarray of int64 [1]"),
        ]
    ),
]


def _sets(data):
    task = create("task", "classification", classes=4)
    return for_task(checked_sets((data, data), "shop:data", task), task)


@pytest.mark.parametrize(("sample", "sentence"), SPOILT, ids=range(len(SPOILT)))
def test_every_fault_of_a_late_sample_is_a_sentence_with_its_index(sample, sentence):
    train_set, _ = _sets(Spoilt(sample))
    with pytest.raises(DataError) as told:
        list(read(DataLoader(train_set, 3)))
    assert str(told.value).startswith("The training set of shop:data ")
    assert str(told.value).endswith(sentence)


def test_interrupts_pass():
    train_set, _ = _sets(Spoilt(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        train_set[7]


def test_a_length_that_ends_the_program_is_told():
    with pytest.raises(DataError, match="The training set of shop:data has no length: SystemExit"):
        checked_sets((Unsized(None), []), "shop:data", TASK)


def test_test_images_of_another_type_are_refused():
    with pytest.raises(DataError, match="one type, got float32 for training and float16 for the"):
        checked_sets(([(IMAGE, 0)] * 2, [(IMAGE.half(), 0)] * 2), "shop:data", TASK)


@pytest.mark.parametrize(
    "label", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor(3).byte()]
)
def test_honest_labels_of_any_kind_become_numbers(label):
    train_set, _ = _sets([(IMAGE, 0), [IMAGE, label]])
    _, labels = next(iter(DataLoader(train_set, 2)))
    assert labels.tolist() == [0, 3]


def test_sets_travel_to_workers_that_are_spawned():
    train_set, _ = _sets([(IMAGE, 0), (IMAGE, 1)])
    copy = pickle.loads(pickle.dumps(train_set))
    assert isinstance(copy, Samples)
    assert len(copy) == 2
    assert torch.equal(copy[1][0], IMAGE)
    assert attrs.asdict(copy, recurse=False)["task"].classes == 4


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes(how(content))


DAMAGE = {
    "cut off": (lambda content: content[: len(content) // 2], "OSError: "),
    "no image": (lambda _: b"<html>", "UnidentifiedImageError: cannot identify image file"),
    "empty": (lambda _: b"", "UnidentifiedImageError: cannot identify image file"),
}


@pytest.mark.parametrize(("how", "reason"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_of_a_folder_is_named_by_its_path(tmp_path, how, reason, workers):
    noise = torch.Generator().manual_seed(0)
    for split, kind, number in product(("train", "test"), "ab", range(3)):
        pixels = torch.randint(256, (64, 64, 3), generator=noise, dtype=torch.uint8).numpy()
        (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / split / kind / f"{number}.jpg")
    damage(tmp_path / "train" / "b" / "1.jpg", how)
    data = registry.create("dataset", "image_folder", root=str(tmp_path), size=32)
    train_set, _ = checked_sets(data.load(), "image_folder", TASK)
    with pytest.raises(DataError) as told:
        list(read(DataLoader(train_set, 2, num_workers=workers)))
    file = tmp_path / "train" / "b" / "1.jpg"
    assert f"The training set of image_folder gives no image 4 ({file}): {reason}" in str(
        told.value
    )
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("mishap", ["killed", "interrupted"])
def test_a_worker_that_ends_is_told_as_such(project, mishap):
    project.write_recipe({"train": {"workers": 1, "batch_size": 8}})
    done = project.run(MISHAP=mishap, MISHAP_AT="image 100")
    assert done.returncode == 2, done.stderr
    assert "A process that loads data may have been killed for lack of memory: " in done.stderr
    assert "Traceback" not in done.stderr


def test_images_of_another_precision_than_the_models_are_told():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    with pytest.raises(RunError, match=r"model m fails on images of float64 \[2, 3, 4, 4\]: "):
        fitted_task(TASK, model, "m", (IMAGE.double().expand(2, 3, 4, 4),))
