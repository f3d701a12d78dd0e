"""Affine quantizers with real observers, for every module here."""

import pytest

from micronet import registry
from micronet.quantization import AffineFakeQuantizer, Grid


@pytest.fixture(scope="session")
def affine():
    """Builds a quantizer; given a tensor, its grid covers the tensor's range."""

    def build(
        bits=8,
        *,
        symmetric=True,
        narrow=False,
        axis=None,
        whole=False,
        observer="minmax",
        seen=None,
    ):
        quantizer = AffineFakeQuantizer(
            Grid(bits, symmetric, narrow),
            registry.create("observer", observer).build(axis),
            axis=axis,
            whole=whole,
        )
        if seen is not None:
            quantizer.observe(seen)
        return quantizer

    return build


@pytest.fixture
def iao():
    """Builds the `iao` quantizer."""
    return lambda **options: registry.create("quantizer", "iao", **options)


@pytest.fixture
def calibrated(iao):
    """Prepares a model with `iao` and calibrates it on the images."""

    def build(model, images, **options):
        quantizer = iao(**options)
        prepared = quantizer.prepare(model, (images[:2],))
        quantizer.calibrate(prepared, [images])
        return prepared.eval()

    return build
