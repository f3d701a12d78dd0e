"""Batch norms folded into the weights that iao quantizes, while the model trains."""

import copy

import pytest
import torch

from micronet.quantization import quantized_layers

WAYS = ["batch", "running"]


def trained(create, small_net, images, **options):
    prepared = create("quantizer", "iao", **options).prepare(small_net, (images,))
    optimizer = torch.optim.SGD(prepared.parameters(), 0.01)
    prepared.train()
    for _ in range(3):
        prepared(images).square().mean().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in prepared.parameters())
        optimizer.step()
        optimizer.zero_grad()
    return prepared.eval()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_the_fuser_finds_the_integers_that_training_used(create, small_net, images, way, symmetric):
    prepared = trained(
        create, small_net, images, per_channel=False, fold_bn=way, w_symmetric=symmetric
    )
    expected = prepared(images)
    fused = create("fuser", "bn").fuse(prepared, (images,)).eval()
    for name, layer in quantized_layers(fused):
        quantizer = layer.weight_quantizer
        assert quantizer.scale.dim() == 0, "one scale for the whole folded weight"
        before = prepared.get_submodule(name)
        assert torch.allclose(quantizer.scale, before.weight_quantizer.scale)
    step = prepared.activation_quantizers.pool.scale
    assert (fused(images) - expected).abs().max() <= 2 * step


@pytest.mark.parametrize("way", WAYS)
def test_simulation_and_integers_agree(create, small_net, images, way):
    prepared = trained(create, small_net, images, per_channel=False, fold_bn=way)
    for _, layer in quantized_layers(prepared):
        integers = layer.weight_quantizer.quantize(layer.weight)
        simulated = layer.weight_quantizer(layer.weight)
        assert torch.allclose(integers.dequantize(), simulated, rtol=1e-5, atol=1e-8)
        assert integers.codes.abs().max() <= 127


@pytest.mark.parametrize("way", WAYS)
def test_with_a_scale_for_each_channel_nothing_is_left_to_do(create, small_net, images, way):
    torch.manual_seed(1)
    folded = trained(create, copy.deepcopy(small_net), images, fold_bn=way)
    torch.manual_seed(1)
    plain = trained(create, copy.deepcopy(small_net), images)
    assert torch.equal(folded(images), plain(images))


def test_the_statistics_make_a_difference_with_one_scale_for_all(create, small_net, images):
    outputs = []
    for way in ("after", *WAYS):
        torch.manual_seed(1)
        prepared = trained(
            create, copy.deepcopy(small_net), images, fold_bn=way, per_channel=False, w_bits=3
        )
        outputs.append(prepared(images))
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])


def test_a_copy_folds_its_own_batch_norms(create, small_net, images):
    prepared = trained(create, small_net, images, per_channel=False, fold_bn="running")
    twin = copy.deepcopy(prepared)
    expected = prepared(images)
    with torch.no_grad():
        twin.get_submodule("stem_bn").weight.mul_(3)
    assert torch.equal(prepared(images), expected)
    assert not torch.equal(twin.stem.weight_quantizer.factor, prepared.stem.weight_quantizer.factor)
