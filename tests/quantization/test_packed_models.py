"""Models written with their integers at their true width, and read back."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

import micronet
from micronet import registry
from micronet.errors import DataError
from micronet.quantization import convert, quantized_layers
from micronet.storage.packing import save_packed

QUANTIZERS = {
    "iao 8 bits": ("iao", {}),
    "iao 5 bits, one scale, asymmetric": (
        "iao",
        {"w_bits": 5, "a_bits": 6, "per_channel": False, "w_symmetric": False},
    ),
    "dorefa 3 bits": ("dorefa", {"w_bits": 3, "a_bits": 4}),
    "binary": ("wbwtab", {"first_and_last": "quantized"}),
    "ternary": ("wbwtab", {"weights": "ternary", "activations": "float"}),
}


@pytest.fixture(params=QUANTIZERS)
def prepare(request, small_net, images):
    """Makes a prepared model with other weights each time."""
    name, options = QUANTIZERS[request.param]
    quantizer = registry.create("quantizer", name, **options)

    def make():
        prepared = quantizer.prepare(small_net, (images,))
        with torch.no_grad():
            for parameter in prepared.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        prepared.train()(images)
        return prepared.eval()

    return make


def test_a_packed_model_comes_back_with_the_same_outputs(prepare, images, tmp_path):
    model = prepare()
    save_packed(model, tmp_path / "model.safetensors")
    loaded = micronet.load_packed(tmp_path / "model.safetensors", prepare())
    assert torch.equal(loaded(images), convert(model)(images))


def test_a_weight_takes_the_bits_that_it_has(prepare, tmp_path):
    model = prepare()
    save_packed(model, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        for name, layer in quantized_layers(model):
            packed = file.get_tensor(f"{name}.weight_quantizer.codes")
            bits = 1.6 if layer.weight_quantizer.bits == 1.5 else layer.weight_quantizer.bits
            assert packed.dtype == np.uint8
            assert packed.nbytes == -(-layer.weight.numel() * bits // 8)


def test_another_model_is_refused_with_the_layer_that_differs(prepare, images, tmp_path):
    save_packed(prepare(), tmp_path / "model.safetensors")
    other = registry.create("model", "nin").build()
    with pytest.raises(DataError, match=r"does not fit the model: it (lacks|has) 'model\.0"):
        micronet.load_packed(tmp_path / "model.safetensors", other)


def test_a_file_that_does_not_say_how_its_model_is_built_asks_for_one(prepare, tmp_path):
    save_packed(prepare(), tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="does not say how its model is built"):
        micronet.load_packed(tmp_path / "model.safetensors")


def test_a_file_that_is_not_packed_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no readable packed model"):
        micronet.load_packed(tmp_path / "model.safetensors")
