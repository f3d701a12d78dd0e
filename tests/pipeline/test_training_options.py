"""What a train step can be asked for, in runs of a user's small project."""

import json

import pytest
import torch
from safetensors.torch import load_file

OPTIONS = {
    "an average": {"average": 0.9},
    "large gradients cut": {"clip": 0.5},
    "gradients of three batches": {"accumulate": 3},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},
    "the best epoch": {"keep": "best", "average": 0.9},
    "an early end": {"patience": 1, "lr": 1e-9},
    "groups": {"parameters": {"0.*": {"lr": 1e-3}, "*.bias": {"lr": 1e-2, "weight_decay": 0.1}}},
    "a warm-up": {"schedule": "step", "warmup": 0.2},
    "sgd": {"optimizer": "sgd", "schedule": "constant"},
}
TRAIN = {"epochs": 4, "batch_size": 32, "lr": 1e-2}
DISTILLED = (
    {"train": TRAIN},
    {"prune": {"pruner": "normal", "percent": 0.6}},
)
LOSSES = """
import torch
from torch import nn

import tiny


def smooth(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)


def rows(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def broken(outputs, targets):
    return outputs["logits"]


def images_alone():
    train, test = tiny.data()
    return [image for image, _ in train], test


def no_module():
    return 3


def of_three_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
"""


def trained(project, number=1):
    return load_file(project.out / "steps" / f"{number:02d}-train.safetensors")


def told(project, *arguments):
    done = project.run(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_changes_the_weights_and_a_killed_training_goes_on_to_the_same(
    make_project, tmp_path, options
):
    plain, whole, killed = (make_project(tmp_path / name) for name in ("plain", "whole", "killed"))
    plain.write_recipe({"train": TRAIN})
    for project in (whole, killed):
        project.write_recipe({"train": {**TRAIN, **options}})
    for project in (plain, whole):
        done = project.run()
        assert done.returncode == 0, done.stderr
    stopped = killed.run(MISHAP="killed", MISHAP_AT="after 01-train.epoch.pt 1")
    assert stopped.returncode == -9, stopped.stderr
    assert killed.run().returncode == 0
    assert killed.weights() == whole.weights()
    assert killed.rows() == whole.rows()
    assert plain.weights() != whole.weights()


def test_the_curve_of_a_training_is_kept(project):
    project.write_recipe({"train": TRAIN}, {"prune": {"pruner": "normal"}})
    assert project.run().returncode == 0
    first, second = project.rows()
    points = first["curve"]
    assert [point["epoch"] for point in points] == [1, 2, 3, 4]
    assert points[-1]["train_loss"] < points[0]["train_loss"]
    assert points[-1]["accuracy"] == first["accuracy"]
    assert 0 <= points[-1]["lr"] < points[1]["lr"] <= 1e-2
    assert second["curve"] == []


def test_early_stopping_stops_early_by_images_that_are_not_trained_on(project):
    project.write_recipe({"train": {**TRAIN, "epochs": 50, "patience": 2, "lr": 1e-12}})
    done = project.run(COUNT_IN=str(project.folder / "read"))
    assert done.returncode == 0, done.stderr
    assert len(project.rows()[0]["curve"]) == 3
    # Of 256 training images, 25 are held out and read once an epoch; drop_last leaves 224.
    assert (project.folder / "read").stat().st_size < 4 * 256


def test_the_best_epoch_is_kept(make_project, tmp_path):
    project = make_project(tmp_path / "best")
    step = {**TRAIN, "lr": 0.3, "epochs": 6, "keep": "best", "schedule": "constant"}
    project.write_recipe({"train": step})
    assert project.run().returncode == 0
    (row,) = project.rows()
    accuracies = [point["accuracy"] for point in row["curve"]]
    best = accuracies.index(max(accuracies)) + 1
    shorter = make_project(tmp_path / "shorter")
    shorter.write_recipe({"train": {**step, "epochs": best}})
    assert shorter.run().returncode == 0
    assert shorter.weights() == project.weights()


def test_parameters_of_a_group_have_their_own_rate(project):
    still = {"parameters": {"0.*": {"lr": 1e-30}}}
    project.write_recipe({"train": {**TRAIN, **still}})
    assert project.run().returncode == 0
    weights = trained(project)
    project.write_recipe({"train": {**TRAIN, **still, "epochs": 1}})
    assert project.run("--fresh").returncode == 0
    assert torch.equal(trained(project)["0.weight"], weights["0.weight"])
    assert not torch.equal(trained(project)["4.weight"], weights["4.weight"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"parameters": {"o.*": {"lr": 1}}}, "parameters names none that is trained: 'o.*'."),
        ({"parameters": {"4": {"lr": 1}}}, "Did you mean '4.*'?"),
        ({"parameters": {"4.*": {"rate": 1}}}, "parameters.4.* must be a mapping of lr and"),
        ({"parameters": {"4.*": {"lr": -1}}}, "parameters.4.*: lr must be above 0, got -1."),
        ({"schedule": "cosin"}, "schedule must be one of"),
        ({"warmup": 1.5}, "warmup must be between 0 and 0.9, got 1.5."),
        ({"precision": "int8"}, "precision must be one of"),
        ({"loss": "cross_entropy"}, "loss must be package.module:callable, got 'cross_entropy'."),
        ({"loss": "losses:smoth"}, "losses has no callable 'smoth'. Did you mean 'smooth'?"),
        ({"loss": "losses:rows"}, "The loss must give a scalar tensor, got"),
        ({"loss": "losses:broken"}, "The loss fails: IndexError"),
        ({"teacher": "float"}, "the float model can't be its own teacher"),
        ({"teacher": "flaot"}, "'flaot' is no teacher. Did you mean 'float'?"),
        ({"features": ["0"]}, "features are the teacher's, and there is no teacher."),
        (
            {"teacher": "losses:of_three_classes"},
            "The model must give outputs as its teacher does",
        ),
    ],
)
def test_bad_options_are_told_before_any_training(project, options, sentence):
    (project.folder / "losses.py").write_text(LOSSES)
    project.write_recipe({"train": {**TRAIN, **options}})
    for command in ("validate", "run"):
        extra = ("--out", "out") if command == "run" else ()
        done = project.micronet(command, "tiny.yaml", *extra)
        assert done.returncode == 2, done.stderr
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    assert not (project.out / "steps").exists()


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        ("losses:of_three_classes", "The model must give outputs as its teacher does"),
        ("losses:no_module", "losses:no_module must return a torch.nn.Module, got 3."),
        ("losses:smooth", "losses:smooth fails: TypeError"),
    ],
)
def test_a_teacher_of_a_late_step_is_looked_at_before_the_first(project, teacher, sentence):
    (project.folder / "losses.py").write_text(LOSSES)
    project.write_recipe(*DISTILLED, {"train": {**TRAIN, "teacher": teacher}})
    assert sentence in told(project)
    assert not (project.out / "steps").exists()


def test_a_loss_of_the_users_own(make_project, tmp_path):
    own, task = make_project(tmp_path / "own"), make_project(tmp_path / "task")
    (own.folder / "losses.py").write_text(LOSSES)
    own.write_recipe({"train": {**TRAIN, "loss": "losses:smooth"}})
    smoothing = {"name": "classification", "label_smoothing": 0.1}
    task.write_recipe({"train": TRAIN}, task=smoothing)
    for project in (own, task):
        done = project.run()
        assert done.returncode == 0, done.stderr
    ours, theirs = trained(own), trained(task)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
    environment = json.loads((own.out / "environment.json").read_text())
    assert "losses:smooth" in environment["code"]


def test_a_teacher_needs_no_labels(project):
    (project.folder / "losses.py").write_text(LOSSES)
    assert project.run().returncode == 0
    weights = str(project.out / "steps" / "01-train.safetensors")
    student = {**TRAIN, "teacher": "float", "weight": 1.0, "temperature": 4.0}
    steps = ({"prune": {"pruner": "normal", "percent": 0.4}}, {"train": student})
    (project.folder / "tiny.yaml").rename(project.folder / "first.yaml")
    project.write_recipe(*steps, data="losses:images_alone", weights=weights)
    done = project.micronet("run", "tiny.yaml", "--out", "student")
    assert done.returncode == 0, done.stderr
    calibrated = ("calibrate", {"quantize": {"quantizer": "iao"}}, "calibrate")
    project.write_recipe(*steps[:1], *calibrated, data="losses:images_alone", weights=weights)
    done = project.micronet("run", "tiny.yaml", "--out", "calibrated")
    assert done.returncode == 0, done.stderr
    choosing = {"train": {**student, "keep": "best"}}
    project.write_recipe(*steps[:1], choosing, data="losses:images_alone", weights=weights)
    refused = project.micronet("run", "tiny.yaml", "--out", "choosing")
    assert refused.returncode == 2
    assert "so held-out images can choose no epoch" in refused.stderr
    project.write_recipe(*steps[:1], {"train": TRAIN}, data="losses:images_alone", weights=weights)
    refused = project.micronet("run", "tiny.yaml", "--out", "alone")
    assert refused.returncode == 2
    assert "only a teacher with weight: 1 can do without them" in refused.stderr


@pytest.mark.parametrize(
    "options",
    [
        {"teacher": "float"},
        {"teacher": "01-train", "weight": 0.5, "features": ["2", "6"]},
        {"teacher": "tiny:model", "temperature": 8.0},
    ],
    ids=["float", "a step with features", "a model of the user's own"],
)
def test_a_killed_distillation_goes_on_to_the_same_bits(make_project, tmp_path, options):
    plain, whole, killed = (make_project(tmp_path / name) for name in ("plain", "whole", "killed"))
    plain.write_recipe(*DISTILLED, {"train": TRAIN})
    for project in (whole, killed):
        project.write_recipe(*DISTILLED, {"train": {**TRAIN, **options}})
    for project in (plain, whole):
        done = project.run()
        assert done.returncode == 0, done.stderr
    stopped = killed.run(MISHAP="killed", MISHAP_AT="after 03-train.epoch.pt 2")
    assert stopped.returncode == -9, stopped.stderr
    assert killed.run().returncode == 0
    assert killed.weights() == whole.weights()
    assert not torch.equal(trained(plain, 3)["4.weight"], trained(whole, 3)["4.weight"])
