"""What a user's code prints, or does to stderr, changes nothing about a run's results."""

import json

import pytest

NOISY = """
import os, subprocess
import tiny

def model():
    print("noise")
    os.write(1, b"noise by its number\\n")
    subprocess.run(["echo", "noise by another process"])
    return tiny.model()

def data():
    {last_words}
    return tiny.data()
"""
FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"


@pytest.mark.parametrize("last_words", ["print('noise')", FULL], ids=["noise", "full stderr"])
def test_json_on_stdout_is_the_results_alone(project, last_words):
    (project.folder / "noisy.py").write_text(NOISY.format(last_words=last_words), "utf-8")
    steps = [{"train": {"epochs": 1, "batch_size": 32}}]
    project.write_recipe(*steps, model="noisy:model", data="noisy:data")

    result = project.run("--json")

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((project.out / "results.json").read_text())
    if last_words != FULL:
        assert "noise by another process" in result.stderr
