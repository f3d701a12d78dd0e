"""Imports torch to be listed."""

import torch

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique

assert torch


@hookimpl
def micronet_quantizers():
    return [Technique("heavy", "Imports torch.", "micronet_broken.technique:Working")]
