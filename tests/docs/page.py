"""A page's code blocks, in its order."""

import re
from pathlib import Path

import attrs
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
_FILE = re.compile(r"`(?:[\w-]+/)*[\w-]+\.\w+`")


@attrs.frozen
class Block:
    """A fenced block.

    Attributes:
        page: Path of its page, in the repository.
        line: Of the page, from 1.
        language: "" if the page says none.
        text: What it holds.
        file: Where a reader keeps it: the paragraph before begins with this name.
    """

    page: str
    line: int
    language: str
    text: str
    file: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """The pages with blocks to follow; those that need a quickstart come last."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [name for page in found if blocks(name := str(page.relative_to(ROOT)))]
    return sorted(names, key=needs_quickstart)


def needs_quickstart(page: str) -> bool:
    text = (ROOT / page).read_text("utf-8")
    return "runs/quickstart" in text or "micronet run quickstart" in text


def blocks(page: str) -> list[Block]:
    found, before = [], ""
    for token in MarkdownIt().parse((ROOT / page).read_text("utf-8")):
        if token.type == "inline":
            before = token.content
        elif token.type == "fence" and not token.info.startswith("{"):
            name = _FILE.match(before)
            file = name.group().strip("`") if name else None
            found.append(Block(page, token.map[0] + 1, token.info, token.content, file))
            before = ""
    return found


def linked(page: str) -> list[str]:
    """The pages that a page links to, each once."""
    text = (ROOT / page).read_text("utf-8")
    targets = re.findall(r"\]\(([\w./-]+\.md)", text)
    found = [(ROOT / page).parent / target for target in dict.fromkeys(targets)]
    return [str(each.resolve().relative_to(ROOT)) for each in found]
