"""What goes wrong during a run is said in one sentence, and the run goes on once it is mended."""

import pytest

TRAIN = {"epochs": 2, "batch_size": 32}


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_finished_ones(project):
    project.write_recipe({"train": TRAIN}, {"train": {**TRAIN, "lr": 1e20, "optimizer": "sgd"}})

    result = project.run()

    assert result.returncode == 2
    assert "Step 02-train: The loss became " in result.stderr
    assert "Traceback" not in result.stderr
    assert [row["step"] for row in project.rows()] == ["01-train"]


def test_images_that_are_no_numbers_are_suspected_where_the_loss_is_none(project):
    project.write_recipe({"train": TRAIN}, data={"name": "tiny:data", "broken": True})

    result = project.run()

    assert result.returncode == 2
    assert "NaN in the data" in result.stderr
    assert not (project.out / "results.json").exists()


def test_calibration_with_images_that_are_no_numbers_is_refused(project):
    project.write_recipe(
        {"quantize": {"quantizer": "iao"}},
        "calibrate",
        data={"name": "tiny:data", "broken": True},
    )

    result = project.run()

    assert result.returncode == 2
    assert "NaN" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupted_run_says_so_and_goes_on(project, whole_run):
    interrupted = project.run(MISHAP="interrupted", MISHAP_AT="image 1000")

    assert interrupted.returncode == 130
    assert "Interrupted" in interrupted.stderr
    assert "the same command goes on" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    assert interrupted.stdout == ""

    resumed = project.run()
    assert "[1/6] train  done before" in resumed.stderr
    assert project.weights() == whole_run.weights()
    assert project.files() == whole_run.files()


@pytest.mark.parametrize(
    ("moment", "finished"),
    [("image 1", 0), ("image 1000", 2)],
    ids=["at the start", "while training"],
)
def test_a_run_whose_disk_is_full_says_so_and_goes_on(project, whole_run, moment, finished):
    _fill_the_disk_and_mend_it(project, whole_run, moment, finished)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_artifact_is_named_for_which_there_is_no_room(project, backend):
    project.write_recipe("evaluate", {"deploy": {"backend": backend}})
    full = project.run(MISHAP="disk full", MISHAP_AT="after results.md 2")
    assert full.returncode == 2, full.stderr
    assert f"micronet: Can't write out/deploy/02-{backend}" in full.stderr.splitlines()[-1]
    assert list((project.out / "deploy").iterdir()) == []


def test_a_run_whose_disk_is_full_while_it_deploys_says_so_and_goes_on(project, whole_deployed_run):
    project.write_longer_recipe("deploy")
    _fill_the_disk_and_mend_it(project, whole_deployed_run, "after results.md 6", finished=6)


def _fill_the_disk_and_mend_it(project, whole, moment, finished):
    full = project.run(MISHAP="disk full", MISHAP_AT=moment)

    assert full.returncode == 2, full.stderr
    sentence = full.stderr.splitlines()[-1]
    assert sentence.startswith("micronet: Can't write")
    assert "File too large" in sentence
    assert "Traceback" not in full.stderr
    assert not list(project.out.rglob(".*.tmp"))

    resumed = project.run()
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count("done before") == finished
    assert project.weights() == whole.weights()
    assert project.rows() == whole.rows()
    assert project.files() == whole.files()


def test_too_many_open_files_are_told_and_the_run_goes_on(project, whole_run):
    stopped = project.run(MISHAP="too many files", MISHAP_AT="image 1000")

    assert stopped.returncode == 2
    sentence = stopped.stderr.splitlines()[-1]
    assert sentence.startswith("micronet: Can't write out/steps/")
    assert "Too many open files; raise the limit of this process with ulimit -n." in sentence
    assert "Traceback" not in stopped.stderr

    assert project.run().returncode == 0
    assert project.weights() == whole_run.weights()
    assert project.files() == whole_run.files()
