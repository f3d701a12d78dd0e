"""The rooms of the code, and who imports whom, read from the imports themselves.

A room is a module or package right below `micronet`, or a plugin. Rooms share a box by rules that
know no name: those that import each other; a room that a single box alone imports, with its
importer; boxes with the same arrows. Rooms that import no other are the ground: arrows to what
everybody may use would say nothing. Neither would an arrow that follows from others.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs
import grimp
import networkx as nx

CORE = "micronet"


@attrs.frozen(order=True)
class Box:
    """`inside` are rooms that nothing but `names` imports."""

    names: tuple[str, ...]
    inside: tuple[str, ...] = ()

    @property
    def is_plugin(self) -> bool:
        return _is_plugin(self.names[0])


def boxes(packages: Sequence[str]) -> tuple[nx.DiGraph, Box]:
    """A graph of boxes whose arrows are imports, and the ground, a box below them all."""
    circles = nx.condensation(_rooms(packages))
    members = {circle: sorted(circles.nodes[circle]["members"]) for circle in circles}
    home: dict[int, int] = {}
    for circle in nx.lexicographical_topological_sort(circles, members.get):
        homes = {home[importer] for importer in circles.pred[circle]}
        alone = len(homes) == 1 and not _is_plugin(members[min(homes)][0])
        home[circle] = homes.pop() if alone else circle

    def box(leading: Iterable[int]) -> Box:
        led = [circle for circle in circles if home[circle] in leading and circle not in leading]
        return Box(_names(members[each] for each in leading), _names(members[each] for each in led))

    graph = nx.DiGraph()
    graph.add_nodes_from(sorted(set(home.values()), key=members.get))
    graph.add_edges_from((home[a], home[b]) for a, b in circles.edges if home[a] != home[b])
    ground = [each for each in graph if not graph.out_degree(each)]
    graph.remove_nodes_from(ground)
    graph = nx.transitive_reduction(graph)
    twins = defaultdict(list)
    for each in graph:
        twins[frozenset(graph.pred[each]), frozenset(graph.succ[each])].append(each)
    boxed = {each: box(alike) for alike in twins.values() for each in alike}
    return nx.relabel_nodes(graph, boxed), box(ground)


def _rooms(packages: Sequence[str]) -> nx.DiGraph:
    modules = grimp.build_graph(*packages, cache_dir=None)
    rooms = nx.DiGraph()
    for module in sorted(modules.modules):
        rooms.add_node(_room(module))
        for imported in sorted(modules.find_modules_directly_imported_by(module)):
            if _room(module) != _room(imported):
                rooms.add_edge(_room(module), _room(imported))
    rooms.remove_nodes_from([room for room in rooms if room.startswith("__")])
    return rooms


def _room(module: str) -> str:
    package, _, inner = module.partition(".")
    return (package == CORE and inner.partition(".")[0]) or package


def _is_plugin(room: str) -> bool:
    return room.startswith(f"{CORE}_")


def _names(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(sorted(name for group in groups for name in group))
