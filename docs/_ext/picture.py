"""Draws who imports whom, as boxes in rows: importers on top, plugins beside the core.

Graphviz lays it out. pygraphviz brings it in its wheel, so no program needs to be installed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from html import escape

import networkx as nx
import pygraphviz
from rooms import Box, boxes

_PLUGIN, _CORE = "#3b82c4", "#808080"
_INK, _CURRENT = "#000000", "currentColor"
"""Graphviz knows no colour of the page around, so this one stands for it until the end."""

_FONT = {"fontname": "monospace", "fontsize": 12}
_GRAPH = {**_FONT, "bgcolor": "transparent", "newrank": True, "ranksep": 0.35, "nodesep": 0.2}
_FILLED = {"style": "filled,rounded", "color": "transparent"}
_NODE = {**_FONT, **_FILLED, "shape": "box", "margin": 0.1, "height": 0.3}
_EDGE = {"arrowhead": "vee", "arrowsize": 0.6, "color": f"{_INK}b0"}
_FOLDER = {"cluster": True, **_FILLED, "labeljust": "l", "margin": 14}
_GROUND_INCHES = 4.5
_STRAIGHT = 4
"""How much straighter arrows are within the core than from plugins into it."""


def picture(packages: Sequence[str]) -> Iterator[str]:
    """An SVG in the colours of the page around it, as lines of HTML."""
    arrows, ground = boxes(packages)
    drawing = pygraphviz.AGraph(directed=True)
    for attributes, look in (
        (drawing.graph_attr, _GRAPH),
        (drawing.node_attr, _NODE),
        (drawing.edge_attr, _EDGE),
    ):
        attributes.update(look)
    core = [box for box in arrows if not box.is_plugin]
    plugins = _stacked(arrows)
    for folder, members, colour in (
        ("plugins/", plugins, _PLUGIN),
        ("micronet/", [*core, ground], _CORE),
    ):
        for box in members:
            width = _GROUND_INCHES if box is ground else 0
            drawing.add_node(_name(box), label=_label(box), fillcolor=f"{colour}33", width=width)
        fill = f"{colour}18"
        names = [_name(box) for box in members]
        drawing.add_subgraph(names, folder, label=f"<<b>{folder}</b>>", fillcolor=fill, **_FOLDER)
    for a, b in arrows.edges:
        drawing.add_edge(_name(a), _name(b), weight=1 if a.is_plugin else _STRAIGHT)
    leaves = [box for box in arrows if not arrows.out_degree(box)]
    for a, b in [*itertools.pairwise(plugins), *((leaf, ground) for leaf in leaves)]:
        drawing.add_edge(_name(a), _name(b), style="invis")
    drawn = drawing.draw(format="svg", prog="dot").decode().replace(_INK, _CURRENT)
    tag, _, inside = drawn.partition("<svg ")[2].partition(">")
    page = f'role="img" aria-label="Who imports whom" fill="{_CURRENT}"'
    style = 'style="max-width: 100%; height: auto"'
    # Markdown takes lines up to a blank one as HTML if the first is a whole tag.
    yield f"<svg {page} {style} {' '.join(tag.split())}>"
    yield from inside.strip().splitlines()


def _stacked(arrows: nx.DiGraph) -> list[Box]:
    """The plugins' boxes from top to bottom, as what they import comes in the core."""
    order = list(nx.lexicographical_topological_sort(arrows))
    plugins = [box for box in order if box.is_plugin]
    return sorted(plugins, key=lambda box: min(map(order.index, arrows.succ[box]), default=0))


def _name(box: Box) -> str:
    return ", ".join(box.names)


def _label(box: Box) -> str:
    faint = [f'<font color="{_INK}a6">{escape(name)}</font>' for name in box.inside]
    return f"<{'<br/>'.join([*map(escape, box.names), *faint])}>"
