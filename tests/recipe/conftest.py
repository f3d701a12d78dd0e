"""A recipe's file, in a folder of its own."""

from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes the recipe r.yaml into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        Path("r.yaml").write_text(text, encoding="utf-8")
        return "r.yaml"

    return write
