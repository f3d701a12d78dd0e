"""Pruning by filter norms, with a model and data to try it on."""

from micronet.hookspecs import hookimpl
from micronet.techniques import Technique


@hookimpl
def micronet_pruners() -> list[Technique]:
    return [
        Technique(
            "filter_norm",
            "The filters with the smallest L1 norms go.",
            "micronet_filter_norm.pruner:FilterNorm",
        )
    ]


@hookimpl
def micronet_models() -> list[Technique]:
    return [Technique("stripe_net", "Three convolutions.", "micronet_filter_norm.model:StripeNet")]


@hookimpl
def micronet_datasets() -> list[Technique]:
    return [
        Technique("stripes", "Stripes of three directions.", "micronet_filter_norm.dataset:Stripes")
    ]
