"""What users' models are written like: followed, quantized, folded and deployed as they are."""

import pytest
import torch
from constructs import NETS, BNSilu, NormAct, X, conv, difference, fused, prepared, settled, snr
from torch import nn

from micronet.graph import SpecializationError, graphs, trace
from micronet.quantization import convert, fake_quantizers
from micronet.quantization.layers import quantized_layers
from micronet.registry import create


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(0)
    return settled(NETS[request.param]())


def test_a_trace_computes_the_same_for_any_batch(net):
    traced = trace(net, (X,))
    for batch in (X, X[:1], torch.cat([X, X])):
        assert difference(net, traced, batch) < 1e-6


def test_folding_keeps_what_it_computes(net):
    assert difference(net, fused(net)) < 1e-4


def test_quantizers_that_are_off_keep_what_it_computes(net):
    ready = prepared(net).eval()
    assert list(fake_quantizers(ready))
    for _, quantizer in fake_quantizers(ready):
        quantizer.mode = "off"
    assert difference(net, ready) < 1e-5


def test_the_engine_computes_what_was_simulated(net, tmp_path):
    quantizer = create("quantizer", "iao")
    ready = quantizer.prepare(net, (X,))
    quantizer.calibrate(ready, [X])
    unfused = ready.eval()(X)
    model = convert(fused(ready))
    backend = create("deploy_backend", "onnxruntime")
    runner = backend.load(backend.export(model, (X,), tmp_path / "engine"))
    batch = torch.cat([X, X])
    expected, found = model(batch), torch.from_numpy(runner(batch.numpy()))
    assert snr(expected, found) > 25
    assert snr(net(X), model(X)) > snr(net(X), unfused) - 1


def test_it_is_followed_whole(net):
    assert [name for name, _ in graphs(prepared(net))] == [""]


def test_batch_norms_with_something_behind_fold_into_the_convolution():
    for norm in (BNSilu(8), NormAct(8)):
        model = settled(nn.Sequential(conv(), norm))
        folded = fused(model)
        assert difference(model, folded) < 1e-5
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        ready = fused(prepared(model))
        assert not any(isinstance(m, nn.BatchNorm2d) for m in ready.modules())


def test_same_padding_is_quantized_as_one_graph_with_its_own_layer():
    ready = prepared(settled(NETS["same padding"]()))
    assert [name for name, _ in quantized_layers(ready)] == ["0"]
    assert ready.train()(torch.randn(7, 3, 16, 16)).shape[0] == 7


def test_a_way_that_another_size_would_change_is_refused_in_words():
    traced = trace(NETS["branch on a size"]().eval(), (X,))
    with pytest.raises(SpecializationError, match=r"_branches asks at constructs.py:\d+ was 0"):
        traced(torch.randn(2, 3, 16, 17))
