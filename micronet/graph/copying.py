"""A copy of a user's model: what every technique works on, so that the model stays as it is."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from micronet.errors import MicronetError, describe_error, listed
from micronet.graph.modes import evaluating

_HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
"""Forward pre-hooks that compute a tensor of their module from others."""
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy with plain parameters, in the modes that the model's modules have.

    Weights that are computed before each call, by weight norm, spectral norm, a pruning mask or a
    parametrization, become the parameters that they are in eval mode, and a warning names their
    layers. A model compiled by torch.compile is copied as it was before.

    Raises:
        MicronetError: The model is none of Python code: scripted, traced, exported or no module at
            all; it is wrapped for several devices; it has lazy layers that never ran; or an
            attribute can't be copied.
    """
    model = _compiled_from(model)
    _refuse(model)
    computed = [(name, what) for name, _, what in _computed(model)]
    memo: dict[int, Any] = {
        # What the hooks have left there belongs to a graph, and torch copies no such tensor.
        id(tensor): tensor.detach().clone()
        for _, module, what in _computed(model)
        if isinstance(tensor := vars(module).get(what), Tensor)
    }
    try:
        copied = copy.deepcopy(model, dict(memo))
    except Exception as error:  # whatever the attributes' own code raises
        raise MicronetError(_culprit(model, memo, error)) from error
    for name, module in list(copied.named_modules()):
        if name and hasattr(module, "_orig_mod"):
            copied.set_submodule(name, _compiled_from(module))
    for _, module, what in list(_computed(copied)):
        _make_plain(module, what)
    if computed:
        names = listed(dict.fromkeys(f"{name}.{what}".lstrip(".") for name, what in computed))
        warnings.warn(
            f"Computed weights become plain ones, fixed at what they are in eval mode: {names}. "
            f"In training, norms no longer hold them, nor pruning masks their zeros.",
            stacklevel=3,
        )
    return copied


def has_plain_weights(model: nn.Module) -> bool:
    """Whether no parameter of a model is computed from others before each call.

    Raises:
        MicronetError: As `copy_of`, of a model that is none of Python code or wrapped.
    """
    _refuse(_compiled_from(model))
    return not any(_computed(model))


def _compiled_from(model: Any) -> Any:
    """What torch.compile was given."""
    return getattr(model, "_orig_mod", model)


def _refuse(model: Any) -> None:
    kind = type(model).__name__
    if isinstance(model, torch.export.ExportedProgram):
        raise MicronetError(
            "An ExportedProgram can't be changed by techniques; pass the model that was exported."
        )
    if not isinstance(model, nn.Module):
        raise MicronetError(f"A model must be a torch.nn.Module, got {kind}.")
    for name, module in model.named_modules():
        place = f"{name!r} of the model" if name else "The model"
        if isinstance(module, torch.jit.ScriptModule):
            raise MicronetError(
                f"{place} is a TorchScript module, whose code techniques can't change; pass the "
                f"Python model that it was made of, with its state_dict."
            )
        if isinstance(module, _WRAPPERS):
            raise MicronetError(
                f"{place} is wrapped in {type(module).__name__}; pass what it wraps, model.module, "
                f"and wrap the result."
            )
        if any(map(is_lazy, module.parameters(recurse=False))):
            raise MicronetError(
                f"{place} is a {type(module).__name__} that does not know its shape yet; call the "
                f"model once on an input."
            )
        if isinstance(module, fx.GraphModule) and _is_exported(module):
            raise MicronetError(
                f"{place} is a graph of torch.export, whose operations name no layers; pass the "
                f"model that was exported."
            )


def _is_exported(module: fx.GraphModule) -> bool:
    return any(
        isinstance(node.target, torch._ops.OpOverload)  # noqa: SLF001
        and node.target.namespace == "aten"
        for node in module.graph.nodes
    )


def _computed(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every tensor that is computed before each call: its module's name, the module, its name."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            parametrizations = module.parametrizations
            assert isinstance(parametrizations, nn.ModuleDict)
            for what in parametrizations:
                yield name, module, what
        for hook in module._forward_pre_hooks.values():  # noqa: SLF001
            if isinstance(hook, _HOOKS):
                yield name, module, _tensor_of(hook)


def _tensor_of(hook: Any) -> str:
    return str(hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name)  # noqa: SLF001


def _make_plain(module: nn.Module, what: str) -> None:
    hooks = [h for h in module._forward_pre_hooks.values() if isinstance(h, _HOOKS)]  # noqa: SLF001
    hook = next((h for h in hooks if _tensor_of(h) == what), None)
    with evaluating(module):  # in train mode a spectral norm would take another step
        if isinstance(hook, WeightNorm):
            remove_weight_norm(module, what)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, what)
        elif hook is not None:
            prune.remove(module, what)  # type: ignore[no-untyped-call]
        else:
            # Removing it changes the class, which the copy shares with the model.
            shared = type(module)
            module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
            parametrize.remove_parametrizations(module, what, leave_parametrized=True)


def _culprit(model: nn.Module, memo: Mapping[int, Any], error: Exception) -> str:
    """What to say of a model that can't be copied: the attribute to blame, if one is."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            try:
                copy.deepcopy(value, dict(memo))
            except Exception as own:
                if isinstance(value, Mapping) and attribute.startswith("_"):
                    attribute = next(iter(_failing(value, memo)), attribute)  # noqa: PLW2901
                owner = f"{type(module).__name__} {name!r}" if name else "the model"
                kind = (
                    "tensor that a graph computed"
                    if isinstance(value, Tensor)
                    else (type(value).__name__)
                )
                return (
                    f"The model can't be copied: attribute {attribute!r} of {owner}, a {kind}, "
                    f"refuses ({describe_error(own)}). Take it away before, or detach it if it is "
                    f"a tensor."
                )
    return f"The model can't be copied: {describe_error(error)}."


def _failing(values: Mapping[Any, Any], memo: Mapping[int, Any]) -> Iterator[str]:
    for name, value in values.items():
        try:
            copy.deepcopy(value, dict(memo))
        except Exception:
            yield str(name)
