"""Recipes whose task is another than one class for each image, from data to a measured engine."""

import json

import pytest

OWN = """
import attrs
import tiny  # makes the mishaps that the environment asks for
import torch
from torch import nn
from micronet.techniques import Figure, Metric, Task


class Scenes(torch.utils.data.Dataset):
    \"\"\"Noise with a bright square at a place of its own: its mask, box, place or sort.\"\"\"

    def __init__(self, count, seed, kind, spoilt=None):
        self.count, self.seed, self.kind, self.spoilt = count, seed, kind, spoilt

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(self.seed * 1000 + index)
        image = torch.randn(3, 32, 32, generator=generator) * 0.3
        left, top = (8 * torch.randint(0, 3, (2,), generator=generator)).tolist()
        image[:, top : top + 16, left : left + 16] += 1.5
        if self.kind == "mask":
            mask = torch.zeros(32, 32, dtype=torch.int64)
            mask[top : top + 16, left : left + 16] = 1
            if index == self.spoilt:
                mask[0, 0] = 7
            return image, mask
        if self.kind == "place":
            return image, [left / 32, top / 32]
        if self.kind == "sorts":
            return image, [left > 0, top > 0, left > 8]
        box = torch.tensor([[left, top, left + 16, top + 16]], dtype=torch.float32)
        return image, {"boxes": box, "labels": torch.tensor([1])}


def scenes(kind, spoilt=None):
    return Scenes(96, 0, kind, spoilt), Scenes(32, 1, kind)


def blocks(*widths):
    return nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for before, after, stride in widths
        )
    )


def masker():
    return nn.Sequential(blocks((3, 12, 1), (12, 12, 1)), nn.Conv2d(12, 2, 1))


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = masker()

    def forward(self, x):
        return {"out": self.inner(x)}


def outer():
    return Outer()


def vector(outputs):
    body = blocks((3, 12, 2), (12, 16, 2), (16, 16, 2))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(16 * 16, outputs))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = blocks((3, 16, 2), (16, 16, 2), (16, 16, 2))
        self.deeper = blocks((16, 16, 2))
        self.head8, self.head16 = nn.Conv2d(16, 6, 1), nn.Conv2d(16, 6, 1)

    def forward(self, x):
        x = self.body(x)
        return self.head8(x), self.head16(self.deeper(x))


def detector():
    return Detector()


@attrs.frozen(kw_only=True)
class Place(Task):
    \"\"\"Where the square is.\"\"\"

    radius: float = 0.1

    @property
    def figures(self):
        return (Figure("hits", "Hits"),)

    def loss(self, outputs, targets):
        return ((outputs - targets) ** 2).mean()

    def metric(self):
        return Hits(self.radius)

    def agreement(self, outputs, others):
        return ((outputs - others).abs().amax(1) < self.radius).double()

    def check_target(self, target, image):
        return torch.tensor(target)

    def fitted(self, outputs):
        return self


class Hits(Metric):
    def __init__(self, radius):
        self.radius, self.hits, self.images = radius, 0, 0

    def update(self, outputs, targets):
        self.hits += int(((outputs - targets).abs().amax(1) < self.radius).sum())
        self.images += len(targets)

    def compute(self):
        return {"hits": self.hits / self.images}
"""

STEPS = (
    {"train": {"epochs": 6, "batch_size": 16, "lr": 1e-2}},
    {"prune": {"pruner": "normal", "percent": 0.2}},
    {"train": {"epochs": 3, "batch_size": 16, "lr": 5e-3}},
    {"quantize": {"quantizer": "iao"}},
    {"calibrate": {"batches": 2, "batch_size": 16}},
    "fuse",
    {"deploy": {"min_parity": 0.95}},
)


@pytest.fixture
def own(project):
    (project.folder / "own.py").write_text(OWN, "utf-8")
    return project


def recipe(project, task, model, kind, *steps, **data):
    named = {"name": "own:scenes", "kind": kind, **data}
    project.write_recipe(*(steps or STEPS), model=model, data=named, task=task)


MEASURED = {
    "masks": ("segmentation", "own:masker", "mask", "mean_iou", 0.9),
    "masks in a dict": ("segmentation", "own:outer", "mask", "mean_iou", 0.9),
    "boxes": ({"name": "detection", "strides": [8, 16]}, "own:detector", "box", "ap50", 0.8),
    "several classes": (
        {"name": "classification", "labels": "several"},
        {"name": "own:vector", "outputs": 3},
        "sorts",
        "mean_ap",
        0.9,
    ),
    "own": ("own:Place", {"name": "own:vector", "outputs": 2}, "place", "hits", 0.5),
}


@pytest.mark.parametrize(
    ("task", "model", "kind", "figure", "least"), MEASURED.values(), ids=MEASURED
)
def test_a_task_is_trained_pruned_quantized_and_measured_on_its_engine(
    own, task, model, kind, figure, least
):
    recipe(own, task, model, kind)
    done = own.run()
    assert done.returncode == 0, done.stderr
    results = json.loads((own.out / "results.json").read_text("utf-8"))
    trained, deployed = results["rows"][0], results["rows"][-1]
    assert trained["figures"][figure] > least
    assert deployed["figures"][figure] > trained["figures"][figure] - 0.1
    assert deployed["parity"] > 0.95
    main = results["figures"][0]
    assert deployed["loss"] == trained["figures"][main["name"]] - deployed[main["name"]]
    assert main["title"] in done.stdout
    assert "Acc " not in done.stdout
    evaluated = own.micronet(
        "eval",
        "out/deploy/07-onnxruntime",
        "--data",
        "own:scenes",
        "--set",
        f"kind={kind}",
        "--json",
    )
    if ":" in str(task) and isinstance(task, str):
        assert "--task own:Place" in evaluated.stderr
        evaluated = own.micronet(
            "eval",
            "out/deploy/07-onnxruntime",
            "--data",
            "own:scenes",
            "--set",
            f"kind={kind}",
            "--task",
            "own:Place",
            "--json",
        )
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["figures"] == deployed["figures"]


def test_where_less_is_better_the_loss_says_how_much_worse_it_became(own):
    recipe(
        own,
        "regression",
        {"name": "own:vector", "outputs": 2},
        "place",
        {"train": {"epochs": 4, "lr": 5e-3}},
        {"prune": {"pruner": "normal", "percent": 0.5}},
    )
    done = own.run("--json")
    assert done.returncode == 0, done.stderr
    trained, pruned = json.loads(done.stdout)["rows"]
    assert pruned["mean_absolute_error"] > trained["mean_absolute_error"]
    assert pruned["loss"] == pruned["mean_absolute_error"] - trained["mean_absolute_error"] > 0
    assert "MAE" in (own.out / "results.md").read_text("utf-8")
    assert "RMSE" in (own.out / "results.md").read_text("utf-8")


def test_a_killed_run_of_another_task_ends_as_one_that_was_never_stopped(own):
    recipe(own, "segmentation", "own:masker", "mask")
    assert own.run().returncode == 0
    whole, rows = own.weights(), own.rows()
    killed = own.run("--fresh", MISHAP="killed", MISHAP_AT="after 03-train.json 1")
    assert killed.returncode == -9
    assert own.run().returncode == 0
    assert own.weights() == whole
    assert own.rows() == rows


REFUSED = {
    "unknown": ("segmentatoin", "own:masker", "mask", {}, "Did you mean 'segmentation'?"),
    "option": (
        {"name": "segmentation", "ignore": 3},
        "own:masker",
        "mask",
        {},
        "has no option 'ignore'",
    ),
    "no task": ("own:masker", "own:masker", "mask", {}, "own:masker must be an attrs class"),
    "no such class": ("own:Plaice", "own:masker", "mask", {}, "Did you mean 'Place'?"),
    "outputs": (
        "segmentation",
        {"name": "own:vector", "outputs": 2},
        "mask",
        {},
        "must give logits [batch, classes, height, width], alone or as 'out', got [2, 2]",
    ),
    "targets": (
        "classification",
        {"name": "own:vector", "outputs": 2},
        "mask",
        {},
        "must give a class's number, 0 or more, as the label, got a tensor of int64 [32, 32]",
    ),
    "mask": (
        "segmentation",
        "own:masker",
        "mask",
        {"spoilt": 1},
        "or 255 for pixels to ignore, got 7 in a mask at index 1",
    ),
    "strides": (
        "detection",
        "own:detector",
        "box",
        {},
        "must give a map of 4 + classes channels for each of the strides [8, 16, 32]",
    ),
}


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize(("task", "model", "kind", "data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_a_task_is_told_before_any_work(
    own, command, task, model, kind, data, words
):
    recipe(own, task, model, kind, {"train": {"epochs": 500}}, **data)
    done = own.micronet(command, "tiny.yaml")
    assert done.returncode == 2, done.stderr
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
