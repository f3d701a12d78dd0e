"""What the README promises beyond its blocks."""

import re

import yaml
from page import ROOT, blocks

CI = (ROOT / ".ci" / "run").read_text("utf-8")


def of(language: str) -> list[str]:
    return [block.text for block in blocks("README.md") if block.language == language]


def test_the_readme_shows_the_shipped_quickstart():
    (shown,) = of("yaml")
    recipe = (ROOT / "micronet" / "recipe" / "shipped" / "quickstart.yaml").read_text("utf-8")
    assert len(yaml.safe_load(recipe)["steps"]) == len(yaml.safe_load(shown)["steps"])
    assert shown.splitlines() == [line for line in recipe.splitlines() if not re.match("#", line)]


def test_ci_and_contributors_run_the_readme_s_test_command():
    (command,) = [block.strip() for block in of("sh") if "tox" in block]
    assert command in CI
    assert command in [block.text.strip() for block in blocks("CONTRIBUTING.md")]
