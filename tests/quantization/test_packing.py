"""Files hold codes at their true width."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from micronet.quantization import StoredWeight, convert
from micronet.quantization.quantized_tensor import code_dtype
from micronet.storage.packing import pack, save_packed, unpack


def bounds(bits, *, signed):
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("bits", range(2, 17))
@given(data=st.data(), shape=st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple))
@settings(max_examples=20, deadline=None)
def test_packed_codes_come_back_and_take_their_width(bits, signed, data, shape):
    low, high = bounds(bits, signed=signed)
    count = math.prod(shape)
    drawn = data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
    codes = torch.tensor(drawn, dtype=torch.int32).reshape(shape).to(code_dtype(low, high))
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.nbytes == -(-count * bits // 8)
    back = unpack(packed, bits, shape, codes.dtype)
    assert back.dtype == codes.dtype
    assert torch.equal(back.to(torch.int32), codes.to(torch.int32))


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("bits", range(2, 17))
def test_the_outermost_codes_of_every_width_come_back(bits, signed):
    low, high = bounds(bits, signed=signed)
    codes = torch.tensor([low, high, 0, high, low]).to(code_dtype(low, high))
    back = unpack(pack(codes, bits), bits, (5,), codes.dtype)
    assert back.to(torch.int32).tolist() == [low, high, 0, high, low]


@pytest.mark.parametrize(("bits", "values", "in_a_byte"), [(1, [-1, 1], 8), (1.5, [-1, 0, 1], 5)])
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_binary_and_ternary_codes_come_back_from_eight_and_five_in_a_byte(
    bits, values, in_a_byte, data
):
    drawn = data.draw(st.lists(st.sampled_from(values), max_size=40))
    codes = torch.tensor(drawn, dtype=torch.int8)
    packed = pack(codes, bits)
    assert packed.nbytes == -(-len(drawn) // in_a_byte)
    assert torch.equal(unpack(packed, bits, (len(drawn),), torch.int8), codes)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 8, 11])
def test_a_packed_file_holds_the_codes_that_inference_uses(
    small_net, images, calibrated, tmp_path, bits, symmetric
):
    prepared = calibrated(small_net, images, w_bits=bits, w_symmetric=symmetric)
    path = tmp_path / "model.safetensors"
    save_packed(prepared, path)
    stored = {
        f"{name}.codes": module.codes
        for name, module in convert(prepared).named_modules()
        if isinstance(module, StoredWeight)
    }
    with safe_open(path, "numpy") as file:
        index = json.loads(file.metadata()["micronet.packed"])["codes"]
        assert index.keys() == stored.keys()
        for key, about in index.items():
            assert about["bits"] == bits
            packed = file.get_tensor(key)
            assert packed.nbytes == math.ceil(stored[key].numel() * bits / 8)
            dtype = getattr(torch, about["dtype"])
            back = unpack(packed, about["bits"], tuple(about["shape"]), dtype)
            assert torch.equal(back.to(torch.int32), stored[key].to(torch.int32))


def test_a_packed_file_holds_no_float_weight_and_nothing_for_training_only(
    small_net, images, calibrated, tmp_path
):
    path = tmp_path / "model.safetensors"
    save_packed(calibrated(small_net, images), path)
    with safe_open(path, "numpy") as file:
        keys = set(file.keys())
    assert "stem.bias" in keys
    assert "body_bn.running_var" in keys
    assert not keys & {"stem.weight", "body.weight", "head.weight"}
    assert not [key for key in keys if "observer" in key or "num_batches" in key]


def test_file_size_falls_with_the_width_of_the_weights(small_net, images, calibrated, tmp_path):
    def size(model, name):
        save_packed(model, tmp_path / name)
        return (tmp_path / name).stat().st_size

    weights = sum(small_net.get_submodule(name).weight.numel() for name in ("stem", "body", "head"))
    sizes = {
        bits: size(calibrated(small_net, images, w_bits=bits), f"{bits}") for bits in (16, 8, 4, 2)
    }
    assert sizes[16] - sizes[8] == pytest.approx(weights, abs=64)
    assert sizes[8] - sizes[4] == pytest.approx(weights / 2, abs=64)
    assert sizes[4] - sizes[2] == pytest.approx(weights / 4, abs=64)


def test_converted_and_prepared_models_pack_to_the_same_file(
    small_net, images, calibrated, tmp_path
):
    prepared = calibrated(small_net, images, w_bits=4)
    save_packed(prepared, tmp_path / "prepared")
    save_packed(convert(prepared), tmp_path / "converted")
    assert (tmp_path / "prepared").read_bytes() == (tmp_path / "converted").read_bytes()
