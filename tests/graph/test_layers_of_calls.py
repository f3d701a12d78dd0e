"""Layers of the user's own classes are quantized and fused like torch's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from micronet import registry
from micronet.graph import trace
from micronet.quantization import quantized_layers


class PaddedConv(nn.Conv2d):
    """A convolution that pads by itself, as ports from other frameworks have it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, x):
        return F.conv2d(
            self.static_padding(x), self.weight, self.bias, self.stride, 0, groups=self.groups
        )


class OwnLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8) / 8)
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = PaddedConv(3, 8, 2, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = PaddedConv(8, 8, 2, groups=8)
        self.bn2 = nn.BatchNorm2d(8)
        self.head = OwnLinear()

    def forward(self, x):
        x = F.relu(self.bn(self.conv(x)))
        x = F.relu(self.bn2(self.depthwise(x)))
        if self.training:  # random depth, written as a function
            x = x * torch.rand([x.shape[0], 1, 1, 1]).add(0.8).floor()
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net()
    for bn in (net.bn, net.bn2):
        nn.init.uniform_(bn.running_var, 0.5, 2)
        nn.init.uniform_(bn.weight, -1, 1)
    return net.eval()


@pytest.mark.filterwarnings("ignore:Net computes something between its layers")
def test_their_weights_are_quantized_under_their_own_names(net, images):
    prepared = registry.create("quantizer", "iao").prepare(net, (images,))
    assert {name for name, _ in quantized_layers(prepared)} == {"conv", "depthwise", "head"}
    assert set(net.state_dict()) <= set(prepared.state_dict())
    prepared.load_state_dict(net.state_dict())
    prepared.train()(images).sum().backward()
    assert all(p.grad.isfinite().all() for p in prepared.parameters())


@pytest.mark.filterwarnings("ignore:Net computes something between its layers")
def test_a_trace_computes_the_same(net, images):
    assert torch.equal(trace(net)(images), net(images))


def test_what_only_training_computes_between_layers_is_left_out_with_a_word(net):
    with pytest.warns(UserWarning, match="Net computes something between its layers in train mode"):
        trace(net)


def test_their_batch_norms_fold(net, images):
    fused = registry.create("fuser", "bn").fuse(net, (images,)).eval()
    assert isinstance(fused.bn, nn.Identity)
    assert isinstance(fused.bn2, nn.Identity)
    torch.testing.assert_close(fused(images), net(images))
