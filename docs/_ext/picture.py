"""Draws who imports whom, as boxes in rows: importers on top, plugins left and the core right.

Rows and columns are where arrows are shortest, found by linear programming as in Gansner et al.,
"A technique for drawing directed graphs", 1993. Arrows to one box join on their way.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from statistics import mean

import attrs
import networkx as nx
import numpy as np
from rooms import Box, boxes
from scipy.optimize import linprog

# All in pixels.
_FONT, _CHARACTER, _LINE, _PADDING = 12, 7.25, 16, 7
_COLUMN_GAP, _ROW_GAP, _PANEL_GAP = 10, 30, 16
_HEADING = 36
_BLUE = "#3b82c4"
_STARTS, _SWEEPS = 20, 6


@attrs.frozen
class Bend:
    """Where arrows to a box that is further down pass through a row."""

    target: Box
    row: int


@attrs.frozen
class Place:
    """Of a box or bend; its row reaches from `row_top` to `row_bottom`."""

    x: float
    top: float
    bottom: float
    row_top: float
    row_bottom: float


Point = Box | Bend
Link = tuple[Point, Point]


def picture(packages: Sequence[str]) -> Iterator[str]:
    """An SVG in the colours of the page around it, as lines of HTML."""
    arrows, ground = boxes(packages)
    rows, links = _layers(arrows)
    rows = _untangled(rows, links)
    x = _columns(rows, links)
    places = _places(rows, x)
    floor = max(place.row_bottom for place in places.values()) + _ROW_GAP
    height = floor + _LINE + 2 * _PADDING + _PANEL_GAP

    yield (
        f'<svg role="img" aria-label="Who imports whom" viewBox="0 0 {x["right"]:.0f} {height:.0f}"'
        f' style="max-width: 100%" width="{x["right"]:.0f}" fill="currentColor"'
        f' font-family="monospace" font-size="{_FONT}">'
    )
    yield (
        '<defs><marker id="head" orient="auto" markerWidth="9" markerHeight="8" refX="7" refY="4">'
        '<path d="M1,1 L7,4 L1,7" fill="none" stroke="currentColor"/></marker></defs>'
    )
    for name, start, end in (("plugins/", "left", "border"), ("micronet/", "border", "right")):
        at, width = x[start] + _PANEL_GAP / 4, x[end] - x[start] - _PANEL_GAP / 2
        yield _rectangle(at, 0, width, height, plugin=name == "plugins/", opacity=0.06)
        yield f'<text x="{at + _PADDING:.1f}" y="{_LINE + 2}" font-weight="bold">{name}</text>'
    yield '<g fill="none" stroke="currentColor" opacity="0.7">'
    for a, b in links:
        yield _arrow(places[a], places[b], head=isinstance(b, Box))
    yield "</g>"
    for box in arrows:
        yield from _box(box, places[box])
    at = x["border"] + _PANEL_GAP
    width = x["right"] - _PANEL_GAP - at
    yield _rectangle(at, floor, width, _LINE + 2 * _PADDING, opacity=0.1)
    yield _text("  ".join(ground.names + ground.inside), at + width / 2, floor + _PADDING)
    yield "</svg>"


def _box(box: Box, place: Place) -> Iterator[str]:
    width, height = _size(box)
    at = place.x - width / 2
    yield _rectangle(at, place.top, width, height, plugin=box.is_plugin, opacity=0.14)
    for line, name in enumerate(box.names + box.inside):
        faint = name in box.inside
        yield _text(name, place.x, place.top + _PADDING + line * _LINE, 0.65 if faint else 1)


def _arrow(a: Place, b: Place, *, head: bool) -> str:
    """Straight down beside the other boxes of its rows, and curved between rows."""
    half = (a.row_bottom + b.row_top) / 2
    way = (
        f"M{a.x:.1f},{a.bottom:.1f} V{a.row_bottom:.1f}"
        f" C{a.x:.1f},{half:.1f} {b.x:.1f},{half:.1f} {b.x:.1f},{b.row_top:.1f} V{b.top:.1f}"
    )
    end = ' marker-end="url(#head)"' if head else ""
    return f'<path d="{way}"{end}/>'


def _rectangle(
    x: float, y: float, width: float, height: float, *, opacity: float, plugin: bool = False
) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"'
        f' fill="{_BLUE if plugin else "currentColor"}" fill-opacity="{opacity}"/>'
    )


def _text(words: str, middle: float, top: float, opacity: float = 1) -> str:
    return (
        f'<text x="{middle:.1f}" y="{top + _FONT:.1f}" text-anchor="middle" xml:space="preserve"'
        f' fill-opacity="{opacity}">{words}</text>'
    )


def _size(point: Point) -> tuple[float, float]:
    if isinstance(point, Bend):
        return 0, 0
    lines = point.names + point.inside
    return max(map(len, lines)) * _CHARACTER + 2 * _PADDING, len(lines) * _LINE + 2 * _PADDING


def _layers(arrows: nx.DiGraph) -> tuple[list[list[Point]], list[Link]]:
    """Rows from top to bottom, one plugin's box at most in each, and arrows in pieces between."""
    pieces = [(a, b, 1) for a, b in arrows.edges]
    free = _positions(arrows, pieces, pieces)
    plugins = sorted((box for box in arrows if box.is_plugin), key=lambda box: (free[box], box))
    under = [(a, b, 1) for a, b in itertools.pairwise(plugins)]
    row = {box: round(at) for box, at in _positions(arrows, pieces, pieces + under).items()}
    links: dict[Link, None] = {}
    for a, b in arrows.edges:
        way = [a, *(Bend(b, between) for between in range(row[a] + 1, row[b])), b]
        links |= dict.fromkeys(itertools.pairwise(way))
    rows: list[list[Point]] = [[] for _ in range(max(row.values()) + 1)]
    for point in dict.fromkeys([*arrows, *itertools.chain(*links)]):
        rows[point.row if isinstance(point, Bend) else row[point]].append(point)
    return rows, list(links)


def _untangled(rows: list[list[Point]], links: list[Link]) -> list[list[Point]]:
    """Plugins first, the others in the order of their neighbours; the best of many tries."""
    above, below = defaultdict(list), defaultdict(list)
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    shuffled = random.Random(0)  # noqa: S311 (the same picture at every build)
    tries = []
    for _ in range(_STARTS):
        rows = [sorted(shuffled.sample(row, len(row)), key=_in_core) for row in rows]
        for neighbours, step in [(above, 1), (below, -1)] * _SWEEPS:
            beside: list[Point] = []
            ordered = []
            for row in rows[::step]:
                place = {point: (at + 1) / (len(beside) + 1) for at, point in enumerate(beside)}
                own = {point: (at + 1) / (len(row) + 1) for at, point in enumerate(row)}
                at = {p: mean([place[n] for n in neighbours[p]] or [own[p]]) for p in row}
                beside = sorted(row, key=lambda point, at=at: (_in_core(point), at[point]))
                ordered.append(beside)
            rows = ordered[::step]
            tries.append(rows)
    return min(tries, key=lambda rows: _crossings(rows, links))


def _in_core(point: Point) -> bool:
    return isinstance(point, Bend) or not point.is_plugin


def _crossings(rows: list[list[Point]], links: list[Link]) -> int:
    place = {point: (level, at) for level, row in enumerate(rows) for at, point in enumerate(row)}
    drawn = [(*place[a], place[b][1]) for a, b in links]
    return sum(
        row == other and (a - c) * (b - d) < 0
        for (row, a, b), (other, c, d) in itertools.combinations(drawn, 2)
    )


def _columns(rows: list[list[Point]], links: list[Link]) -> dict[Hashable, float]:
    """The middle of each point, and where the two panels start, meet and end."""
    gaps: list[tuple[Hashable, Hashable, float]] = []
    for row in rows:
        for a, b in itertools.pairwise(row):
            gaps.append((a, b, (_size(a)[0] + _size(b)[0]) / 2 + _COLUMN_GAP))
        for point in row:
            start, end = ("border", "right") if _in_core(point) else ("left", "border")
            half = _size(point)[0] / 2 + _PANEL_GAP
            gaps += [(start, point, half), (point, end, half)]
    straight = {0: 1, 1: 2, 2: 8}  # by the number of bends
    pulls = [(a, b, straight[isinstance(a, Bend) + isinstance(b, Bend)]) for a, b in links]
    points = [*itertools.chain(*rows), "left", "border", "right"]
    return _positions(points, [*pulls, ("left", "right", 9)], gaps)


def _places(rows: list[list[Point]], x: dict[Hashable, float]) -> dict[Point, Place]:
    places = {}
    top: float = _HEADING
    for row in rows:
        bottom = top + max(_size(point)[1] for point in row)
        for point in row:
            half = _size(point)[1] / 2
            middle = bottom if isinstance(point, Bend) else (top + bottom) / 2
            places[point] = Place(x[point], middle - half, middle + half, top, bottom)
        top = bottom + _ROW_GAP
    return places


def _positions(
    points: Iterable[Hashable],
    pulls: Sequence[tuple[Hashable, Hashable, float]],
    gaps: Sequence[tuple[Hashable, Hashable, float]],
) -> dict[Hashable, float]:
    """Numbers from 0, apart by what `gaps` says at least, and near each other by their `pulls`."""
    index = {point: number for number, point in enumerate(points)}
    limits = np.zeros((len(gaps) + 2 * len(pulls), len(index) + len(pulls)))
    for line, (a, b, _) in zip(limits, gaps, strict=False):
        line[[index[a], index[b]]] = 1, -1
    for number, (a, b, _) in enumerate(pulls):  # a distance is at least either difference
        for sign, line in zip((1, -1), limits[len(gaps) + 2 * number :], strict=False):
            line[[index[a], index[b], len(index) + number]] = sign, -sign, -1
    bounds = [-gap for _, _, gap in gaps] + [0] * 2 * len(pulls)
    cost = [0] * len(index) + [weight for _, _, weight in pulls]
    solved = linprog(cost, A_ub=limits, b_ub=bounds).x[: len(index)]
    return dict(zip(index, (solved - solved.min()).tolist(), strict=True))
