"""The YAML of recipes: mappings, lists, texts, numbers, true, false and null, and nothing else."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import yaml

from micronet.errors import RecipeError

Key = tuple[str | int, ...]
"""Where something stands in a recipe: `("steps", 0, "train", "lr")`."""

_TAG = "tag:yaml.org,2002:"
_KINDS = ("str", "int", "float", "bool", "null", "seq", "map", "merge")
_PLAIN = {_TAG + kind for kind in _KINDS}
_NUMBERS = {f"{_TAG}int", f"{_TAG}float"}
_DOUBTFUL = re.compile(r"[-+]?0[\dbo]\w*|.*[_:].*|yes|no|on|off", re.IGNORECASE)
"""Numbers and truth values that YAML 1.1 and YAML 1.2 take for different values."""
LONGEST = 1_000_000
"""Characters of a recipe."""
_DEEPEST = 50
_MOST_REPEATED = 10_000
"""Values that aliases may stand for, beyond those that are written out."""
_LONGEST_NUMBER = 100


def load(text: str, name: str) -> tuple[Any, dict[Key, int]]:
    """What YAML text holds, and the line of each key.

    Raises:
        RecipeError: It is not YAML, or not plain; the message begins with `name` and the line.
    """
    if len(text) > LONGEST:
        raise RecipeError(f"{name}: a recipe has at most {LONGEST:,} characters.")
    loader, lines = None, dict[Key, int]()
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, lines
        _note_lines(root, (), lines, loader)
        return loader.construct_document(root), lines
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(
            f"{name}:{line}: the character {_code(error.character)} can't stand in a recipe."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "this is not YAML"
        raise RecipeError(f"{where}: {problem}.", mark.line + 1 if mark else 0) from error
    finally:
        if loader is not None:
            loader.dispose()


def dump(content: Any) -> str:
    """YAML that `load` reads back as it was."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100)
    return text


class _Loader(yaml.SafeLoader):
    """YAML where `1e-4` is a number, as everybody expects, and a short text no endless content."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._extents: dict[yaml.Node, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        aliased = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _refusal("it nests too deeply", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        assert node is not None
        if aliased and node not in self._extents:
            raise _refusal("an alias stands within what it names", mark)
        if not aliased:
            self._check(node)
        return node

    def _check(self, node: yaml.Node) -> None:
        """Refuses what is not plain, or grows too large where its aliases are written out."""
        if node.tag not in _PLAIN:
            kind = node.tag.replace(_TAG, "!!")
            raise _refusal(
                f"there is no {kind} in recipes, only mappings, lists, texts, numbers, true, false "
                f"and null; quote what is meant as a text",
                node.start_mark,
            )
        inner = [self._extents[child] for child in _children(node)]
        size = 1 + sum(size for size, _ in inner)
        depth = 1 + max((depth for _, depth in inner), default=0)
        self._extents[node] = size, depth
        if size - len(self._extents) > _MOST_REPEATED:
            raise _refusal(
                f"its aliases stand for more than {_MOST_REPEATED:,} values", node.start_mark
            )
        if depth > _DEEPEST:
            raise _refusal("it nests too deeply", node.start_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            raise _refusal(f"a number has at most {_LONGEST_NUMBER} characters", node.start_mark)
        if node.tag in {*_NUMBERS, f"{_TAG}bool"} and (meant := _readings(node.value)):
            raise _refusal(
                f"readers of YAML disagree about {node.value}; write {' or '.join(meant)}, or "
                f"quote it as a text",
                node.start_mark,
            )
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError) as error:
            kind = node.tag.removeprefix(_TAG)
            raise _refusal(f"{node.value!r} is no {kind}", node.start_mark) from error
        if isinstance(value, str) and (odd := next(filter(_is_control, value), None)):
            raise _refusal(f"the character {_code(odd)} can't stand in a recipe", node.start_mark)
        return value


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as it was, without anchors."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


for _yaml in (_Loader, _Dumper):
    for _tag, _pattern in (
        ("float", r"([-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+|[-+]\.\d+)$"),
        ("int", r"[-+]?0(o[0-7]+|\d+)$"),
    ):
        _yaml.add_implicit_resolver(_TAG + _tag, re.compile(_pattern), list("-+.0123456789"))


def _readings(text: str) -> list[str]:
    """The values that a doubtful scalar has in YAML 1.1 and 1.2, as both write them."""
    if not isinstance(text, str) or not _DOUBTFUL.fullmatch(text):
        return []
    try:
        values = [yaml.safe_load(text)]
    except ValueError:  # no number in either
        return []
    if found := re.fullmatch(r"[-+]?0(o?)\d+", text):
        values.append(int(text, 8 if found[1] else 10))
    return list(dict.fromkeys(json.dumps(v) for v in values if not isinstance(v, str)))


def _note_lines(node: yaml.Node, key: Key, lines: dict[Key, int], loader: _Loader) -> None:
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key_node, value_node in node.value:
            merges = key_node.tag == f"{_TAG}merge"
            word = key_node.value if merges else _key(key_node, loader)
            if word in seen:
                raise _refusal(f"the key {word!r} stands here twice", key_node.start_mark)
            seen.add(word)
            lines[(*key, word)] = key_node.start_mark.line + 1
            _note_lines(value_node, (*key, word), lines, loader)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*key, index), lines, loader)


def _key(node: yaml.Node, loader: _Loader) -> Any:
    """A mapping's key; what is no text, but could be meant as a name, is left to others."""
    word = loader.construct_object(node) if isinstance(node, yaml.ScalarNode) else None
    if isinstance(word, float) or not isinstance(node, yaml.ScalarNode):
        raise _refusal("a key must be a text", node.start_mark)
    return word


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r"


def _code(character: str | int) -> str:
    return f"U+{character if isinstance(character, int) else ord(character):04X}"


def _refusal(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
