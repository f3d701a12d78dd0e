"""The README's Python and YAML do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
CI = (Path(__file__).parent.parent / ".ci" / "run").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_training_loop_of_the_readme_ends_with_a_working_engine(tmp_path):
    loop = next(block for block in blocks("python") if "optimizer.step()" in block)
    done = subprocess.run(
        [sys.executable, "-c", loop], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *classes, size_bytes = re.findall(r"\d+", done.stdout)
    assert len(classes) == 5
    assert int(size_bytes) == (tmp_path / "engine" / "model.onnx").stat().st_size


def test_the_readme_shows_the_shipped_quickstart():
    from micronet.recipe_file import read

    (shown,) = blocks("yaml")
    recipe, source = read("quickstart")
    assert len(recipe.steps) == len(yaml.safe_load(shown)["steps"])
    assert shown.splitlines() == [
        line for line in _text_of(source.name).splitlines() if not line.startswith("#")
    ]


def test_ci_runs_the_readme_s_test_command():
    (command,) = [block.strip() for block in blocks("sh") if "tox" in block]
    assert command in CI


def _text_of(name: str) -> str:
    import micronet.recipes

    return (Path(next(iter(micronet.recipes.__path__))) / f"{name}.yaml").read_text("utf-8")
