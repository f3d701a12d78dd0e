"""What a technique gives back is held to what the model computed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from micronet.errors import MicronetError
from micronet.graph import ChangedFunctionError, check_same_function, pairs, tracer
from micronet.registry import create
from micronet.techniques import Fuser

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class BNSilu(nn.BatchNorm2d):
    def forward(self, x):
        return F.silu(super().forward(x))


class ReadsWhatItChanged(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = self.conv(x)
        F.relu(y, inplace=True)
        return self.head(y)


def with_statistics(bn):
    nn.init.uniform_(bn.running_mean, -1, 1)
    nn.init.uniform_(bn.running_var, 0.5, 2)
    return bn


def test_a_fold_of_what_is_no_batch_norm_would_be_caught(monkeypatch):
    """The mend is taken out: a subclass is taken for torch's batch norm."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), with_statistics(BNSilu(8))).eval()
    create("fuser", "bn").fuse(model, (X,))
    monkeypatch.setattr(pairs, "_is_batch_norm", lambda module: isinstance(module, nn.BatchNorm2d))
    is_leaf = tracer.Tracer.is_leaf_module
    monkeypatch.setattr(
        tracer.Tracer,
        "is_leaf_module",
        lambda self, module, name: isinstance(module, BNSilu) or is_leaf(self, module, name),
    )
    with pytest.raises(ChangedFunctionError, match="BatchNormFuser changed what Sequential comput"):
        create("fuser", "bn").fuse(model, (X,))


def test_a_lost_change_in_place_would_be_caught(monkeypatch):
    """The mend is taken out: who reads a changed tensor reads what it was before."""
    model = ReadsWhatItChanged().eval()
    create("quantizer", "iao").prepare(model, (X,))
    monkeypatch.setattr(tracer.Tracer, "_move_readers", lambda *_: None)
    with pytest.raises(ChangedFunctionError, match="layer whose outputs differ is 'head'"):
        create("quantizer", "iao").prepare(model, (X,))


class ForgetsTheBias(Fuser):
    def fuse(self, model, example_inputs):
        fused = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU())
        fused[0].weight = model[0].weight
        return fused


def test_a_third_partys_fuser_is_held_to_it_too():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(ChangedFunctionError, match=r"ForgetsTheBias .* layer .* differ is '0'"):
        ForgetsTheBias().fuse(model, (X,))


def test_an_order_of_additions_is_no_change():
    torch.manual_seed(0)
    deep = nn.Sequential(*(nn.Linear(64, 64) for _ in range(40)))
    shuffled = nn.Sequential(*(nn.Linear(64, 64) for _ in range(40)))
    shuffled.load_state_dict(deep.state_dict())
    check_same_function(deep, shuffled, (torch.randn(2, 64),), what="Nothing")


def test_a_model_that_draws_random_numbers_is_compared_with_the_same_ones():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    check_same_function(Noisy(), Noisy(), (X,), what="Nothing")


def test_a_model_that_fails_on_its_example_inputs_says_so():
    with pytest.raises(MicronetError, match="Conv2d fails on the example inputs: RuntimeError"):
        check_same_function(nn.Conv2d(5, 1, 1), nn.Conv2d(5, 1, 1), (X,), what="Nothing")


class InSixteenBits(nn.Module):
    """Computes in bfloat16 for itself, and in float32 for whoever reads it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(m for _ in range(3) for m in (nn.Conv2d(3, 3, 3), with_statistics(nn.BatchNorm2d(3))))
        )
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.body(x)
        return self.head(x.float().mean((2, 3)))


def test_a_fold_in_a_model_that_computes_in_sixteen_bits_is_let_through():
    fused = create("fuser", "bn").fuse(InSixteenBits().eval(), (X,))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())


def test_a_wrong_fold_in_such_a_model_is_caught(monkeypatch):
    monkeypatch.setattr(pairs, "_is_batch_norm", lambda m: isinstance(m, nn.BatchNorm2d))
    model = InSixteenBits().eval()
    model.body[1] = with_statistics(type("Negated", (nn.BatchNorm2d,), {"forward": _negated})(3))
    with pytest.raises(ChangedFunctionError):
        create("fuser", "bn").fuse(model, (X,))


def _negated(self, x):
    return -nn.BatchNorm2d.forward(self, x)


class Amplifying(nn.Module):
    """Makes of a weight's last bit what another network makes of another weight."""

    def forward(self, x):
        return torch.sin(1e8 * x)


def test_a_model_that_rounding_changes_as_much_is_let_through():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Amplifying()).eval()
    nn.init.uniform_(model[1].running_var, 0.5, 1.5)
    fused = create("fuser", "bn").fuse(model, (X,))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
