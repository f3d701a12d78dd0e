"""Every code block and command line of the README and the documentation does what it says.

A page is followed from its top, in one folder. A paragraph that begins with a file's name tells
what the block after it is; pages that a page links to have left their files. Fences say what a
block is: `console` and `sh` are commands with what they print, `python` runs, `yaml` without a name
is a part of a recipe, `text` is what was printed before; without a language it is none of these.
"""

import re
import shutil
import sys

import pytest
from page import blocks, linked, needs_quickstart, pages
from PIL import Image
from reader import NOT_FOLLOWED, Reader

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def reader(tmp_path, monkeypatch, forked_micronet):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Reader(tmp_path, forked_micronet)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("page", pages())
def test_a_page_does_what_it_says(page, reader, request):
    if needs_quickstart(page):
        quickstart = request.getfixturevalue("quickstart")
        shutil.copytree(quickstart.run, reader.folder / "runs" / "quickstart")
        reader.known["micronet run quickstart"] = quickstart.stdout + quickstart.stderr
    _photographs(reader.folder / "photos")
    for other in linked(page):
        for block in blocks(other):
            if block.file:
                reader.keep(block)
    for block in blocks(page):
        reader.follow(block)


def test_each_line_that_is_not_run_is_in_a_page():
    lines = [
        line.removeprefix("$ ")
        for page in pages()
        for block in blocks(page)
        if block.language in ("console", "sh")
        for line in block.text.splitlines()
    ]
    unused = [
        pattern
        for pattern in NOT_FOLLOWED
        if not any(re.fullmatch(pattern, line) for line in lines)
    ]
    assert unused == []


def _photographs(folder):
    for split, count in (("train", 16), ("test", 4)):
        for label, colour in (("cat", (200, 80, 40)), ("dog", (40, 80, 200))):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                shade = tuple(min(255, part + index) for part in colour)
                Image.new("RGB", (80, 72), shade).save(folder / split / label / f"{index}.png")
