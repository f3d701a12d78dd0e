"""The table of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from micronet.deployment.timing import LEGEND, MARK
from micronet.techniques import Figure

SCHEMA = 2
_FLOAT_BITS = 32
_Column = tuple[str, str, Callable[[Any], str]]
"""A column's name, its title, and how its values are written."""


@attrs.frozen(kw_only=True)
class Row:
    """A step's measurements; `None` where they do not apply.

    Args:
        step: The step's number and name.
        type: The model's name, or what has been done to it.
        w_bits: Width of the weights; 32 is float, 1.5 ternary.
        a_bits: Width of the activations.
        figures: What the task measures on the test images, by name; in a deployed row of the
            engine.
        gflops: Billions of multiply-accumulates for one image.
        params_m: Millions of parameters.
        size_mb: Megabytes (10^6 bytes) of the file written for this row.
        compression: 1 - size / size of the float model.
        loss: How much worse the task's main figure is than the float model's.
        latency_ms: Median milliseconds of one call of the engine.
        float_latency_ms: The same for the float model on the same engine.
        speedup: float_latency_ms / latency_ms.
        disturbed: Whether the machine was so busy that these times are not the engine's own;
            `None` also where an earlier version has not kept it.
        parity: How far the answers of engine and simulation agree, on average over test images.
        parity_max_error: Largest difference of an output between the two, in steps of the output;
            see `micronet.deployment.parity.Parity`.
        parity_mean_error: Mean difference of an output, in the same steps.
        artifact: The deployed model's folder, relative to the run's.
        notes: What a reader should know before he believes the numbers, a sentence each.
        reasons: For each layer that pruning left whole, why.
        curve: Of a training, for each epoch its number, `train_loss`, the highest `lr`, and the
            task's figures on the images that the epoch was measured on.
    """

    step: str
    type: str
    w_bits: float
    a_bits: float
    figures: Mapping[str, float] = attrs.field(factory=dict)
    gflops: float | None = None
    params_m: float | None = None
    size_mb: float | None = None
    compression: float | None = None
    loss: float | None = None
    latency_ms: float | None = None
    float_latency_ms: float | None = None
    speedup: float | None = None
    disturbed: bool | None = None
    parity: float | None = None
    parity_max_error: float | None = None
    parity_mean_error: float | None = None
    artifact: str | None = None
    notes: Sequence[str] = ()
    reasons: Mapping[str, str] = attrs.field(factory=dict)
    curve: Sequence[Mapping[str, float]] = ()

    @property
    def accuracy(self) -> float | None:
        """Fraction of test images classified right, where that is among the figures."""
        return self.figures.get("accuracy")


@attrs.frozen
class Results:
    """All rows of a run, in the order of its steps.

    Args:
        rows: Them.
        figures: What the run's task measures, the main figure first.
    """

    rows: Sequence[Row]
    figures: Sequence[Figure]

    def to_json(self) -> str:
        """As JSON; the main figure of a row stands beside the others, too."""
        main = self.figures[0].name
        rows = []
        for row in self.rows:
            cells = list(attrs.asdict(row).items())
            place = [name for name, _ in cells].index("figures")
            rows.append(dict([*cells[:place], (main, row.figures.get(main)), *cells[place:]]))
        figures = [attrs.asdict(figure) for figure in self.figures]
        return json.dumps({"schema": SCHEMA, "figures": figures, "rows": rows}, indent=2) + "\n"

    @property
    def notes(self) -> list[str]:
        """Every note once, with the steps whose rows have it, and what the table's mark means."""
        steps: dict[str, list[str]] = {}
        for row in self.rows:
            for note in row.notes:
                steps.setdefault(note, []).append(row.step)
        notes = [f"{', '.join(names)}: {note}" for note, names in steps.items()]
        return [*notes, LEGEND] if any(row.disturbed for row in self.rows) else notes

    def cells(
        self, *, steps: bool = True, engines: bool = True, types: bool = True
    ) -> list[list[str]]:
        """The table as text, the header first.

        Args:
            steps: With the columns and rows of every step.
            engines: With the columns of engines, if any row has them; without `steps`, only
                those, for deployed rows.
            types: With the column that says what the model has become.
        """
        rows = [row for row in self.rows if steps or row.artifact is not None]
        named = {*_NAMES, _figure_column(self.figures[0])[0]}
        columns = [column for column in self._columns if steps or column[0] in named]
        columns = [column for column in columns if types or column[0] != "type"]
        if engines and any(row.artifact is not None for row in rows):
            columns = [*columns, *_ENGINE_COLUMNS]
        return [
            [title for _, title, _ in columns],
            *([_cell(row, name, form) for name, _, form in columns] for row in rows),
        ]

    @property
    def _columns(self) -> list[_Column]:
        """With the task's main figure, and the loss in its unit."""
        main = self.figures[0]
        place = [name for name, _, _ in _COLUMNS].index("a_bits") + 1
        loss = ("loss", "Loss", shown_as(main))
        return [*_COLUMNS[:place], _figure_column(main), *_COLUMNS[place:], loss]

    def other_figures(self) -> list[list[str]]:
        """A table of what the task measures beside its main figure; a header alone if nothing."""
        columns = [_COLUMNS[0], *map(_figure_column, self.figures[1:])]
        rows = [row for row in self.rows if row.figures] if len(columns) > 1 else []
        return [
            [title for _, title, _ in columns],
            *([_cell(row, name, form) for name, _, form in columns] for row in rows),
        ]

    def to_markdown(self) -> str:
        tables = [_markdown(cells) for cells in (self.cells(), self.other_figures())]
        tables = [table for table in tables if table]
        whole = [f"{row.step}: {each}." for row in self.rows for each in whole_layers(row.reasons)]
        return "\n".join(tables) + "".join(f"\n{note}\n" for note in [*self.notes, *whole])


def whole_layers(reasons: Mapping[str, str], most: int | None = None) -> list[str]:
    """Layers that pruning left whole, in a line for each reason, the most layers first.

    Args:
        reasons: Why, by the layers' names.
        most: How many layers and reasons to name; the others are counted.
    """
    layers: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        layers.setdefault(reason, []).append(name)
    ordered = sorted(layers.items(), key=lambda item: -len(item[1]))
    lines = [
        f"{_named(names, most)} {'stays' if len(names) == 1 else 'stay'} whole: {reason}"
        for reason, names in ordered[:most]
    ]
    others = sum(len(names) for _, names in ordered[len(lines) :])
    return [*lines, f"{others} more layers stay whole, for other reasons"] if others else lines


def _named(names: Sequence[str], most: int | None) -> str:
    others = len(names[most:]) if most else 0
    named = ", ".join(names[:most])
    return f"{named} and {others} more" if others else named


def _markdown(cells: list[list[str]]) -> str:
    """A table in Markdown; nothing for a header alone."""
    header, *body = cells
    lines = [header, ["---"] * len(header), *body] if body else []
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figure_column(figure: Figure) -> _Column:
    return f"figures.{figure.name}", figure.title, shown_as(figure)


def shown_as(figure: Figure) -> Callable[[float], str]:
    """How a value of a figure is written."""
    return _percent if figure.fraction else _figures


def _cell(row: Row, name: str, form: Callable[[Any], str]) -> str:
    _, dot, figure = name.partition(".")
    value = row.figures.get(figure) if dot else getattr(row, name)
    if value is None:
        return "-"
    return form(value) + MARK if row.disturbed and name in _TIMED else form(value)


def _bits(value: float) -> str:
    return "FP32" if value == _FLOAT_BITS else f"{value:g}"


def _percent(value: float) -> str:
    return f"{value * 100:.2f}%"


def _figures(value: float) -> str:
    return f"{value:.3g}"


_COLUMNS: list[_Column] = [
    ("step", "Step", str),
    ("type", "Type", str),
    ("w_bits", "W bits", _bits),
    ("a_bits", "A bits", _bits),
    ("gflops", "GFLOPs", _figures),
    ("params_m", "Params (M)", _figures),
    ("size_mb", "Size (MB)", _figures),
    ("compression", "Compression", _percent),
]
_ENGINE_COLUMNS: list[_Column] = [
    ("latency_ms", "Latency (ms)", _figures),
    ("float_latency_ms", "Float (ms)", _figures),
    ("speedup", "Speed-up", lambda value: f"{value:.2f}x"),
    ("parity", "Parity", _percent),
    ("parity_mean_error", "Error (steps)", _figures),
]
_TIMED = {"latency_ms", "float_latency_ms", "speedup"}
_NAMES = {"step", "type", "loss"}
