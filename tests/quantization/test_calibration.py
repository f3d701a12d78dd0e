"""Calibration looks at data and changes nothing else."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from micronet.errors import QuantizationError
from micronet.quantization import fake_quantizers, is_ready
from micronet.registry import create


def parameters_and_statistics(model):
    return {
        key: tensor.clone() for key, tensor in model.state_dict().items() if "quantizer" not in key
    }


def test_weights_and_batch_norm_statistics_stay(small_net, images, iao):
    prepared = iao().prepare(small_net, (images,)).train()
    before = parameters_and_statistics(prepared)
    iao().calibrate(prepared, [images, 2 * images])
    after = parameters_and_statistics(prepared)
    assert prepared.training
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert all(parameter.grad is None for parameter in prepared.parameters())


def test_a_model_is_ready_afterwards_and_not_before(small_net, images, iao):
    prepared = iao().prepare(small_net, (images,))
    assert not is_ready(prepared)
    iao().calibrate(prepared, [images])
    assert is_ready(prepared)


def test_ranges_are_those_of_the_float_models_tensors(small_net, images, iao):
    quantizer = iao(a_observer="minmax")
    prepared = quantizer.prepare(small_net, (images,))
    quantizer.calibrate(prepared, [images, 3 * images])
    of_input = prepared.activation_quantizers.x.observer
    assert (of_input.low, of_input.high) == (3 * images.min(), 3 * images.max())
    small_net.eval()
    with torch.no_grad():
        relu = [small_net.stem_bn(small_net.stem(x)).relu() for x in (images, 3 * images)]
    of_relu = prepared.activation_quantizers.relu.observer
    assert of_relu.low == 0
    assert float(of_relu.high) == pytest.approx(float(torch.cat(relu).max()), rel=1e-5)


def test_outputs_stay_close_to_the_float_models(small_net, images, calibrated):
    expected = small_net.eval()(images).detach()
    found = calibrated(small_net, images)(images)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_more_bits_bring_the_outputs_closer(small_net, images, calibrated):
    expected = small_net.eval()(images).detach()
    errors = [
        (calibrated(small_net, images, w_bits=b, a_bits=b)(images).detach() - expected).abs().mean()
        for b in (2, 4, 8, 12, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * expected.abs().mean()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("observer", ["minmax", "moving_average"])
def test_not_a_number_is_refused_with_the_place_where_it_was_met(
    small_net, images, iao, bad, observer
):
    images[3, 1, 2, 2] = bad
    quantizer = iao(a_observer=observer)
    prepared = quantizer.prepare(small_net, (images[:2],))
    with pytest.raises(QuantizationError, match=r"NaN or Inf at 'activation_quantizers\.x'"):
        quantizer.calibrate(prepared, [images])


def test_not_a_number_from_inside_the_model_names_the_layer_behind(small_net, images, iao):
    small_net.body_bn.bias.data[0] = torch.nan
    prepared = iao().prepare(small_net, (images,))
    with pytest.raises(QuantizationError, match="body_bn"):
        iao().calibrate(prepared, [images])


def test_a_broken_weight_is_named(small_net, images, iao):
    prepared = iao().prepare(small_net, (images,))
    prepared.body.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(QuantizationError, match=r"'body\."):
        iao().calibrate(prepared, [images])


def test_a_weight_that_is_broken_before_is_named_by_prepare(small_net, images, iao):
    small_net.body.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(QuantizationError, match="weight of 'body' holds NaN or Inf"):
        iao().prepare(small_net, (images,))


def test_no_batches_are_refused(small_net, images, iao):
    with pytest.raises(QuantizationError, match="no batches"):
        iao().calibrate(iao().prepare(small_net, (images,)), [])


def test_a_float_model_is_refused(small_net, images, iao):
    with pytest.raises(QuantizationError, match="prepare it"):
        iao().calibrate(small_net, [images])


def test_each_layer_keeps_its_own_train_or_eval_mode(small_net, images, iao):
    prepared = iao().prepare(small_net, (images,)).train()
    prepared.body_bn.eval()
    iao().calibrate(prepared, [images])
    assert prepared.stem_bn.training
    assert not prepared.body_bn.training


def test_a_failing_batch_leaves_a_usable_model(small_net, images, iao):
    prepared = iao().prepare(small_net, (images,)).train()
    with pytest.raises(RuntimeError):
        iao().calibrate(prepared, [images, images[:, :2]])
    assert prepared.training
    assert {quantizer.mode for _, quantizer in fake_quantizers(prepared)} == {"quantize"}


def test_calibrating_again_in_batches_of_another_size_goes_on(small_net, images, iao):
    prepared = iao(a_observer="minmax").prepare(small_net, (images,))
    iao().calibrate(prepared, [images])
    once = copy.deepcopy(prepared.activation_quantizers.x.scale)
    iao().calibrate(prepared, [2 * images[:3], images[:1]])
    assert prepared.activation_quantizers.x.scale > once


class TwoImages(nn.Module):
    """Adds what two convolutions give; targets, where given, play no part."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, left, right, targets=None):
        return self.last(self.left(left).relu() + self.right(right).relu()).mean((2, 3))


REFINED = {"equalize": True, "rounding": "learned", "bias_correction": True}


@pytest.mark.parametrize("options", [{}, REFINED], ids=["plain", "refined"])
def test_several_inputs_come_in_a_tuple_or_by_their_names(images, iao, options):
    quantizer, model = iao(**options), TwoImages()
    found = []
    for batch in ((images, 2 * images), {"right": 2 * images, "left": images}):
        prepared = quantizer.prepare(model, (images[:2], images[:2]))
        quantizer.calibrate(prepared, [batch, batch])
        found.append(prepared.eval()(images, 2 * images))
    assert torch.equal(*found)
    expected = model(images, 2 * images)
    assert (found[0] - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("options", [{}, REFINED], ids=["plain", "refined"])
def test_a_data_loader_of_images_and_labels_is_taken_as_it_is(small_net, images, iao, options):
    quantizer, labels = iao(**options), torch.arange(len(images))
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    found = []
    for batches in (loader, images.split(4), [images[:4].numpy(), images[4:].numpy()]):
        prepared = quantizer.prepare(small_net, (images[:2],))
        quantizer.calibrate(prepared, batches)
        found.append(prepared.eval()(images))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_single_batch_in_the_place_of_batches_is_refused(small_net, images, iao):
    for quantizer in (iao(), iao(**REFINED)):
        prepared = quantizer.prepare(small_net, (images,))
        with pytest.raises(QuantizationError, match=r"iterable of batches.*\[batch\]"):
            quantizer.calibrate(prepared, images)


def test_parts_that_may_be_inputs_or_targets_are_refused(images, iao):
    prepared = iao().prepare(TwoImages(), (images, images))
    with pytest.raises(QuantizationError, match=r"left, right and, if given, targets.*dictionary"):
        iao().calibrate(prepared, [(images, images, torch.arange(8))])


def test_a_converted_model_is_told_to_be_calibrated_before(small_net, images):
    quantizer = create("quantizer", "iao")
    prepared = quantizer.prepare(small_net, (images,))
    quantizer.calibrate(prepared, [images])
    with pytest.raises(QuantizationError, match="converted already; calibrate before that"):
        quantizer.calibrate(quantizer.convert(prepared), [images])
