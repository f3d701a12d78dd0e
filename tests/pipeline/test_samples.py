"""What a sample does wrong, anywhere in the data and in any step, is said with its index."""

import pickle
import sys

import attrs
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from micronet.errors import DataError
from micronet.pipeline.data import checked_sets, with_classes
from micronet.pipeline.samples import Samples
from micronet.training.loop import read

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
    (IMAGE, "must give (image, label), got a tensor of float32 at index 7."),
    ((IMAGE, 1, 2), "must give (image, label), got a tuple of 3 at index 7."),
    ((IMAGE.int(), 1), "must give (float tensor, label), got a tensor of int32 at index 7."),
    ((IMAGE[:1], 1), "must give images of one shape, got [3, 4, 4] and [1, 4, 4] at index 7."),
    ((IMAGE.double(), 1), "must give images of one type, got float32 and float64 at index 7."),
    ((IMAGE, 4), "gives the label 4 at index 7, and the model has 4 classes: 0 to 3."),
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
            (torch.tensor([1]), "tensor([1])"),
            (np.array([1]), "an object of type ndarray"),
        ]
    ),
]


def _sets(data):
    return with_classes(checked_sets((data, data), "shop:data"), 4)


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
        checked_sets((Unsized(None), []), "shop:data")


def test_test_images_of_another_type_are_refused():
    with pytest.raises(DataError, match="one type, got float32 for training and float16 for the"):
        checked_sets(([(IMAGE, 0)] * 2, [(IMAGE.half(), 0)] * 2), "shop:data")


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
    assert attrs.asdict(copy, recurse=False)["classes"] == 4
