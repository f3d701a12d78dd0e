"""Takes every classification model of torchvision to a quantized engine; prints a Markdown table.

    python tests/benchmarks/torchvision_sweep.py --out sweep.json --page docs/reference/any-model.md

The quantizer is iao with 8 bits; a few models also go through the others. Weights and images are
random. Each model runs in a process of its own with one thread; one that fails or takes too long is
a row with the reason. What --out holds already is not run again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torchvision
from sweep import Row, parser, row, sweep, table, versions, write

from micronet import registry

sys.path.insert(0, str(Path(__file__).parents[1]))

_IAO = "iao"
_OTHERS = ("dorefa", "wbwtab")
_WITH_OTHERS = ("mobilenet_v2", "resnet18", "shufflenet_v2_x1_0")
_PACKAGES = ("micronet", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime")


def main() -> None:
    cases = torchvision.models.list_models(module=torchvision.models)
    cases += [f"{name} {quantizer}" for quantizer in _OTHERS for name in _WITH_OTHERS]
    arguments = parser(__doc__, limit=900).parse_args()
    write(_table(sweep(cases, _examine, arguments)), arguments.page, "torchvision")


def _examine(case: str, directory: Path) -> Row:
    from any_model import examine, torchvision_model

    name, _, quantizer = case.partition(" ")
    model, size = torchvision_model(name)
    technique = registry.create("quantizer", quantizer or _IAO)
    return row(size, examine(model, size, technique, directory))


def _table(rows: dict[str, Row]) -> str:
    worked = sum("failed" not in row for row in rows.values())
    summary = f"{worked} of {len(rows)} worked, on {versions(_PACKAGES)}."
    header = ["Model", "Image", "Quantized layers", "Layers in float", "Same class", "Own"]
    header += ["SQNR (dB)", "Own (dB)", "CPU (s)"]
    return table([summary], header, [_cells(name, row) for name, row in rows.items()])


def _cells(name: str, row: Row) -> list[str]:
    if "failed" in row:
        return [name, "", "", "", "", row["failed"], "", "", ""]
    return [
        name,
        str(row["size"]),
        str(row["quantized"]) + ("" if row["traced"] else " (at inputs)"),
        str(len(row["in_float"])),
        f"{row['agreement']:.0%}",
        f"{row['own_agreement']:.0%}",
        f"{row['sqnr_db']:.0f}",
        f"{row['own_sqnr_db']:.0f}",
        f"{row['seconds']:.0f}",
    ]


if __name__ == "__main__":
    main()
