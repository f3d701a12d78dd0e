"""A run that was killed, anywhere, goes on as if nothing had happened."""

import itertools
import random
import time

import pytest

KILLS = 100


@pytest.mark.parametrize(
    "moment",
    [
        "after recipe.yaml 1",
        "image 400",  # in the second epoch
        "within 01-train.epoch.pt 2",
        "after 01-train.epoch.pt 1",
        "after 01-train.safetensors 1",  # its record is not written yet
        "within 02-prune.json 1",
        "after 03-train.json 1",
        "before 05-train.packed.safetensors 1",
        "after 06-fuse.json 1",  # results.json is not written yet
    ],
)
def test_a_killed_run_started_again_ends_with_the_same_bits(project, whole_run, moment):
    killed = project.run(MISHAP="killed", MISHAP_AT=moment)
    assert killed.returncode == -9, killed.stderr

    resumed = project.run()

    assert resumed.returncode == 0, resumed.stderr
    assert project.weights() == whole_run.weights()
    assert project.rows() == whole_run.rows()
    assert project.files() == whole_run.files()


@pytest.mark.parametrize("moment", ["before artifact.json 1", "after 07-onnxruntime 1"])
def test_a_run_killed_while_deploying_deploys_the_same_when_started_again(
    project, whole_deployed_run, moment
):
    project.write_longer_recipe("deploy")
    killed = project.run(MISHAP="killed", MISHAP_AT=moment)
    assert killed.returncode == -9, killed.stderr

    resumed = project.run()

    assert resumed.returncode == 0, resumed.stderr
    assert project.weights() == whole_deployed_run.weights()
    assert project.rows() == whole_deployed_run.rows()
    assert project.files() == whole_deployed_run.files()


def test_a_run_killed_again_and_again_ends_with_the_same_bits(project, whole_run):
    for moment in ("image 300", "image 300", "after 02-prune.safetensors 1", "image 300"):
        killed = project.run(MISHAP="killed", MISHAP_AT=moment)
        assert killed.returncode == -9, killed.stderr

    assert project.run().returncode == 0

    assert project.weights() == whole_run.weights()
    assert project.rows() == whole_run.rows()


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_hundred_kills_at_random_moments_change_no_bit(
    make_project, whole_deployed_run, tmp_path
):
    def new_project():
        project = make_project(tmp_path / str(next(numbers)))
        project.write_longer_recipe("deploy")
        return project

    chance, numbers = random.Random(0), itertools.count()
    start = time.monotonic()
    assert new_project().run().returncode == 0
    duration = time.monotonic() - start
    kills = runs = 0
    while kills < KILLS:
        project, status = new_project(), -9
        while status == -9:
            result = project.run(KILLED_AFTER=str(chance.uniform(0, duration)))
            status = result.returncode
            kills += status == -9
        assert status == 0, result.stderr
        assert project.weights() == whole_deployed_run.weights()
        assert project.rows() == whole_deployed_run.rows()
        assert project.files() == whole_deployed_run.files()
        runs += 1
    print(f"{kills} kills, {runs} runs, all with the same bits")


def test_the_same_recipe_in_another_folder_ends_with_the_same_bits(project, whole_run):
    assert project.run().returncode == 0

    assert project.weights() == whole_run.weights()
    assert project.rows() == whole_run.rows()


def test_another_seed_ends_with_other_bits(project, whole_run):
    assert project.run("--set", "seed=1").returncode == 0

    assert project.weights() != whole_run.weights()


def test_a_started_run_repeats_no_finished_epoch(project):
    project.write_recipe({"train": {"epochs": 4, "batch_size": 32}})
    counted = project.folder / "images_read"
    project.run(MISHAP="killed", MISHAP_AT="after 01-train.epoch.pt 3")

    assert project.run(COUNT_IN=str(counted)).returncode == 0

    one_epoch = 256
    assert one_epoch <= counted.stat().st_size < 2 * one_epoch


def test_a_finished_run_started_again_reads_no_epoch_and_prints_its_results(project, whole_run):
    before = {path: path.stat().st_mtime_ns for path in (whole_run.out / "steps").iterdir()}
    counted = project.folder / "images_read"

    again = whole_run.run("--json", COUNT_IN=str(counted))

    assert again.returncode == 0, again.stderr
    assert again.stdout == (whole_run.out / "results.json").read_text("utf-8")
    assert again.stderr.count("done before") == 6
    assert len(counted.read_bytes()) < 10, "only a look at the first images"
    assert {path: path.stat().st_mtime_ns for path in (whole_run.out / "steps").iterdir()} == before
