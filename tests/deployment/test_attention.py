"""Attention with more or fewer dimensions than the exporter knows reaches the engines."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from micronet.registry import create

SHAPES = {
    "no heads": (2, 5, 8),
    "heads": (2, 3, 5, 8),
    "windows": (2, 3, 4, 5, 8),
    "windows in rows": (2, 2, 3, 4, 5, 8),
}
MASKS = {"no mask": None, "mask": (5, 5), "mask for each": (1, 1, 5, 5)}


class Attention(nn.Module):
    def __init__(self, mask, features=8, **options):
        super().__init__()
        self.key, self.value = nn.Linear(8, 8), nn.Linear(8, features)
        self.mask = None if mask is None else nn.Parameter(torch.randn(mask))
        self.options = options

    def forward(self, x):
        mask = self.mask
        if mask is not None and mask.dim() > 2:
            mask = mask[(0,) * max(0, mask.dim() - x.dim())]
        return F.scaled_dot_product_attention(
            x, self.key(x), self.value(x), attn_mask=mask, **self.options
        )


def difference(model, x, backend, directory):
    runner = backend.load(backend.export(model, (x,), directory))
    more = torch.cat([x, x])
    return (torch.from_numpy(runner(more.numpy())) - model(more)).abs().max()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_engine_gives_what_torch_gives(shape, mask, backend, tmp_path):
    torch.manual_seed(0)
    model = Attention(mask).eval()
    backend = create("deploy_backend", backend)
    assert difference(model, torch.randn(shape), backend, tmp_path) < 1e-5


def test_options_are_kept(tmp_path):
    torch.manual_seed(0)
    model = Attention(None, scale=2.0, is_causal=True).eval()
    backend = create("deploy_backend", "onnxruntime")
    assert difference(model, torch.randn(2, 3, 4, 5, 8), backend, tmp_path) < 1e-5


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 2.0}], ids=str)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_values_may_have_other_features_than_keys(mask, options, tmp_path):
    torch.manual_seed(0)
    mask = None if "is_causal" in options else mask
    model = nn.Sequential(Attention(mask, features=12, **options), nn.Linear(12, 4)).eval()
    backend = create("deploy_backend", "onnxruntime")
    assert difference(model, torch.randn(2, 3, 5, 8), backend, tmp_path) < 1e-5


class Heads(nn.Module):
    """With a learned bias, whose gradient decides how torch computes attention."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.bias = nn.Parameter(torch.randn(2, 5, 5))

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias[None])
        return x.transpose(1, 2).reshape(b, n, c)


def test_a_float_model_that_could_still_learn_is_exported(tmp_path):
    torch.manual_seed(0)
    backend = create("deploy_backend", "onnxruntime")
    assert difference(Heads().eval(), torch.randn(2, 5, 8), backend, tmp_path) < 1e-5
