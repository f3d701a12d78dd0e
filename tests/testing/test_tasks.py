"""The contracts of tasks: ours keep them, and a broken one is told which it breaks."""

import attrs
import pytest
import torch

from micronet.registry import create
from micronet.techniques import Figure, Metric, Task
from micronet.testing import ContractError, check_task

NOISE = torch.Generator().manual_seed(0)
IMAGES = [torch.rand(3, 16, 16, generator=NOISE) for _ in range(4)]


def noise(*shape):
    return torch.randn(*shape, generator=NOISE)


def boxes(place):
    return {
        "boxes": torch.tensor([[0.0, 0, 8, 8], [4, 4, 12.0 + place, 12]]),
        "labels": torch.tensor([1, 2]),
    }


def maps():
    return tuple(noise(4, 4 + 3, 64 // stride, 64 // stride) for stride in (8, 16, 32))


TASKS = {
    "classes": ("classification", {}, [0, 1, 2, 6], noise(4, 7)),
    "several classes": (
        "classification",
        {"labels": "several"},
        [[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 0]],
        noise(4, 3),
    ),
    "masks": (
        "segmentation",
        {},
        list(torch.randint(0, 5, (4, 16, 16), generator=NOISE)),
        noise(4, 5, 16, 16),
    ),
    "masks of torchvision": (
        "segmentation",
        {},
        list(torch.randint(0, 5, (4, 16, 16), generator=NOISE)),
        {"out": noise(4, 5, 8, 8), "aux": noise(4, 5, 8, 8)},
    ),
    "boxes": (
        "detection",
        {},
        [boxes(place) for place in range(4)],
        [{**boxes(place + 1), "scores": torch.tensor([0.9, 0.5])} for place in range(4)],
    ),
    "maps": ("detection", {}, [boxes(place) for place in range(4)], maps()),
    "numbers": ("regression", {}, [0.0, 1.0, 2.0, 3.5], noise(4, 1)),
    "maps of numbers": ("regression", {}, list(noise(4, 1, 8, 8)), noise(4, 1, 8, 8)),
}


@pytest.mark.parametrize(("name", "options", "targets", "outputs"), TASKS.values(), ids=TASKS)
def test_our_tasks_keep_them(name, options, targets, outputs):
    task = create("task", name, **options)
    check_task(task, list(zip(IMAGES, targets, strict=True)), outputs)


@attrs.frozen(kw_only=True)
class Brightness(Task):
    """How bright an image is: a number."""

    @property
    def figures(self):
        return (Figure("error", "Error", higher_is_better=False, fraction=False),)

    def loss(self, outputs, targets):
        return ((outputs[:, 0] - targets) ** 2).mean()

    def metric(self):
        return Difference()

    def agreement(self, outputs, others):
        return ((outputs[:, 0] - others[:, 0]).abs() < 0.1).double()

    def check_target(self, target, image):
        create("task", "regression").check_target(target, image)
        return torch.tensor(float(target))

    def fitted(self, outputs):
        return self


class Difference(Metric):
    def __init__(self):
        self.total, self.count = 0.0, 0

    def update(self, outputs, targets):
        self.total += float((outputs[:, 0] - targets).abs().sum())
        self.count += len(targets)

    def compute(self):
        return {"error": self.total / self.count}


class LastBatch(Difference):
    def update(self, outputs, targets):
        self.total, self.count = float((outputs[:, 0] - targets).abs().sum()), len(targets)


class Wrong(Difference):
    def compute(self):
        return {"mistake": 0.0}


class ForgetsBatches(Brightness):
    def metric(self):
        return LastBatch()


class MisnamesFigures(Brightness):
    def metric(self):
        return Wrong()


class HasNoGradient(Brightness):
    def loss(self, outputs, targets):
        return (outputs.detach()[:, 0] - targets).abs().mean().requires_grad_()


class AgreesOneWay(Brightness):
    def agreement(self, outputs, others):
        return (outputs[:, 0] <= others[:, 0]).double()


class TakesAnything(Brightness):
    def check_target(self, target, image):
        return torch.tensor(float(target) if isinstance(target, float) else 0.0)


class SeesNoNaN(Brightness):
    def first_unreadable(self, outputs):
        return None


BROKEN = {
    ForgetsBatches: "adds_batches_up",
    MisnamesFigures: "measures_its_figures",
    HasNoGradient: "has_a_loss_with_a_gradient",
    AgreesOneWay: "agrees_with_itself",
    TakesAnything: "refuses_what_is_no_target",
    SeesNoNaN: "finds_outputs_that_are_no_numbers",
}
SAMPLES = list(zip(IMAGES, (0.0, 1.0, 2.0, 3.0), strict=True))


def test_one_of_a_users_own_keeps_them():
    check_task(Brightness(), SAMPLES, noise(4, 1))


@pytest.mark.parametrize(("cls", "contract"), BROKEN.items(), ids=BROKEN.values())
def test_a_broken_one_is_told_what_it_breaks(cls, contract):
    with pytest.raises(ContractError) as told:
        check_task(cls(), SAMPLES, noise(4, 1))
    assert f"breaks the contract {contract}." in str(told.value)
