"""Models in other floating-point types than float32, and training that mixes them."""

import copy

import pytest
import torch
from torch import nn

from micronet.registry import create

QUANTIZERS = {
    "iao": {},
    "iao, one scale": {"per_channel": False},
    "iao, BN folded": {"per_channel": False, "fold_bn": "batch"},
    **{
        f"iao, {name}": {"a_observer": name, "w_observer": name}
        for name in ("minmax", "moving_average", "percentile", "mse", "entropy")
    },
    "dorefa": {},
    "wbwtab": {},
    "wbwtab, ternary": {"weights": "ternary", "first_and_last": "int8"},
}
OTHER_TYPES = [torch.float64, torch.float16, torch.bfloat16]


@pytest.fixture(params=QUANTIZERS)
def quantizer(request):
    return create("quantizer", request.param.partition(",")[0], **QUANTIZERS[request.param])


def step(model, images):
    """The outputs of a training step; every trained parameter has moved by a finite amount."""
    trained = dict(model.named_parameters())
    outputs = model.train()(images)
    nn.functional.cross_entropy(outputs.float(), torch.arange(len(images))).backward()
    torch.optim.SGD(trained.values(), lr=1e-2).step()
    assert all(p.grad.isfinite().all() for p in trained.values())
    assert all(p.isfinite().all() for p in trained.values())
    return outputs


def ranges(model):
    """Scales, and what observers hold."""
    return {
        name: buffer
        for name, buffer in model.named_buffers()
        if "quantizer" in name and buffer.is_floating_point()
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_prepared_model_trains_under_autocast(small_net, images, quantizer, dtype):
    prepared = quantizer.prepare(small_net, (images,))
    with torch.autocast("cpu", dtype):
        assert step(prepared, images).dtype is dtype
        prepared.eval()
        assert prepared(images).dtype is dtype
    assert {buffer.dtype for buffer in ranges(prepared).values()} <= {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_type_is_prepared_calibrated_and_trained(
    small_net, images, quantizer, dtype
):
    images = images.to(dtype)
    prepared = quantizer.prepare(small_net.to(dtype), (images,))
    quantizer.calibrate(prepared, [images])
    assert step(prepared, images).dtype is dtype
    assert {buffer.dtype for buffer in ranges(prepared).values()} <= {torch.float32}
    expected = prepared.eval()(images)
    converted = quantizer.convert(prepared)(images)
    assert converted.dtype is dtype
    close = 1e-4 if dtype is torch.float64 else 0.05
    assert (converted - expected).abs().max() <= close * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_prepared_model_that_changes_its_type_keeps_its_grids(
    small_net, images, quantizer, dtype
):
    prepared = quantizer.prepare(small_net, (images,))
    quantizer.calibrate(prepared, [images])
    before = {name: buffer.clone() for name, buffer in ranges(prepared).items()}
    prepared.to(dtype)
    after = ranges(prepared)
    assert all(torch.equal(after[name], buffer) for name, buffer in before.items())
    assert prepared.eval()(images.to(dtype)).dtype is dtype
    assert step(prepared, images.to(dtype)).dtype is dtype


@pytest.mark.parametrize("dtype", OTHER_TYPES)
def test_a_converted_model_that_changes_its_type_gives_nearly_the_same(
    small_net, images, iao, dtype
):
    prepared = iao().prepare(small_net, (images,))
    iao().calibrate(prepared, [images])
    converted = iao().convert(prepared)
    expected = converted(images)
    outputs = converted.to(dtype)(images.to(dtype))
    assert outputs.dtype is dtype
    assert (outputs - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("dtype", OTHER_TYPES)
def test_a_fused_model_of_another_type_keeps_its_type(small_net, images, iao, dtype):
    images = images.to(dtype)
    prepared = iao().prepare(small_net.to(dtype), (images,))
    iao().calibrate(prepared, [images])
    expected = prepared.eval()(images)
    fused = create("fuser", "bn").fuse(prepared, (images,))
    assert {parameter.dtype for parameter in fused.parameters()} == {dtype}
    assert (fused(images) - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("axis", [None, 0])
def test_a_simulation_in_float64_rounds_in_float64(affine, symmetric, axis):
    x = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    quantizer = affine(12, symmetric=symmetric, axis=axis, seen=x)
    scale, zero_point = quantizer.scale.double(), quantizer.zero_point.double()
    if axis is not None:
        scale, zero_point = scale[:, None], zero_point[:, None]
    codes = (x / scale).round() + zero_point
    codes = codes.clamp(quantizer.grid.quant_min, quantizer.grid.quant_max)
    assert torch.equal(quantizer.eval()(x), (codes - zero_point) * scale)


@pytest.mark.parametrize("axis", [None, 0])
def test_a_sixteen_bit_tensor_gets_the_codes_that_its_numbers_have(affine, axis):
    x = torch.randn(3, 500, generator=torch.Generator().manual_seed(0)).bfloat16()
    quantizer = affine(8, symmetric=False, axis=axis, seen=x.float()).eval()
    assert torch.equal(quantizer(x), quantizer(x.float()).bfloat16())


def test_a_prepared_model_is_ready_wherever_it_moves(small_net, images, calibrated):
    prepared = calibrated(small_net, images)
    moved = copy.deepcopy(prepared).to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}
    empty = moved.to_empty(device="cpu")
    empty.load_state_dict(prepared.state_dict())
    assert torch.equal(empty.eval()(images), prepared(images))


def test_a_default_type_of_float64_leaves_scales_in_float32(small_net, images, quantizer):
    torch.set_default_dtype(torch.float64)
    try:
        prepared = quantizer.prepare(small_net.double(), (images.double(),))
        quantizer.calibrate(prepared, [images.double()])
        step(prepared, images.double())
    finally:
        torch.set_default_dtype(torch.float32)
    assert {buffer.dtype for buffer in ranges(prepared).values()} <= {torch.float32}
