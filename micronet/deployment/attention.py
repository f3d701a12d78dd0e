"""Attention over any number of dimensions: a form of it that exports."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from micronet.deployment.replacing import Replacing

_HEADS = 4
"""Dimensions of [batch, heads, tokens, features], which the ONNX exporter wants."""


def in_four_dimensions() -> Replacing:
    """A context in which attention over windows, or without heads, has four dimensions."""
    return Replacing({F.scaled_dot_product_attention: _attention})


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """`F.scaled_dot_product_attention` of [..., tokens, features], in four dimensions."""
    if query.dim() == _HEADS and key.dim() == _HEADS and value.dim() == _HEADS:
        return F.scaled_dot_product_attention(query, key, value, attn_mask, *args, **kwargs)
    batch = query.shape[:-2]
    if attn_mask is not None and attn_mask.dim() > 2:  # noqa: PLR2004 (tokens by tokens)
        attn_mask = _flat(attn_mask.expand(*batch, *attn_mask.shape[-2:]))
    query, key, value = (_flat(each) for each in (query, key, value))
    out = F.scaled_dot_product_attention(query, key, value, attn_mask, *args, **kwargs)
    return out.reshape(*batch, *out.shape[-2:])


def _flat(x: Tensor) -> Tensor:
    """[..., heads, tokens, features] as [batch, heads, tokens, features]; one head if none."""
    if x.dim() < _HEADS:
        return x.reshape(*x.shape[:-2], *(1,) * (_HEADS - x.dim()), *x.shape[-2:])
    return x.flatten(0, -_HEADS)
