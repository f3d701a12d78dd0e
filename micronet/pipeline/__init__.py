"""Runs recipes: step after step, each ending in a checkpoint and a row of the table."""

from micronet.pipeline.packed import load_packed
from micronet.pipeline.results import Results, Row
from micronet.pipeline.runner import run

__all__ = ["Results", "Row", "load_packed", "run"]
