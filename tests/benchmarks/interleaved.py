"""Timing for benchmarks: variants take turns, so that a busy machine meets all of them alike."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version


def medians_ms(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each variant, after two rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            if number >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(taken) for name, taken in times.items()}


def print_ratios(title: str, medians: Mapping[str, float], base: str) -> None:
    """A markdown table of the medians and their ratios to the variant `base`."""
    print(f"\n{title}\n\n| variant | ms | vs {base} |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.1f} | {median / medians[base]:.2f}x |")


def print_versions(*packages: str) -> None:
    """The machine and the versions that the figures hold for."""
    found = []
    for package in ("micronet", "torch", *packages):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    print(f"Python {platform.python_version()}, {', '.join(found)}")
