"""The small U-Net, and the small YOLO with its loss and its boxes."""

import pytest
import torch
from micronet_zoo.boxes import decode, detection_loss

from micronet.errors import OptionError
from micronet.measure import params_m


@pytest.fixture
def yolo(create):
    torch.manual_seed(0)
    return create("model", "yolo_small", num_classes=3).build()


def target(*rows):
    """Of rows of a label and a box."""
    boxes = torch.tensor([row[1:] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor([row[0] for row in rows], dtype=torch.int64)}


def maps(height, width, classes=3):
    """Outputs that detect nothing, each box with its cell's stride for its sides."""
    outputs = []
    for stride in (8, 16, 32):
        output = torch.full((1, 4 + classes, height // stride, width // stride), -20.0)
        output[:, :4] = torch.tensor(0.5).exp().sub(1).log()  # softplus gives half a stride
        outputs.append(output)
    return outputs


@pytest.mark.parametrize(("name", "millions"), [("unet_small", 0.4905), ("yolo_small", 0.4318)])
def test_the_models_have_the_documented_number_of_parameters(create, name, millions):
    assert params_m(create("model", name).build()) == pytest.approx(millions, abs=0.0001)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(32, 48), (33, 50)], ids=str)
def test_a_unet_gives_logits_for_each_pixel_of_any_image(create, size, training):
    model = create("model", "unet_small", num_classes=4, width=4).build().train(training)
    assert model(torch.rand(2, 3, *size)).shape == (2, 4, *size)


@pytest.mark.parametrize("training", [True, False])
def test_a_yolo_gives_the_same_raw_maps_in_both_modes(yolo, training):
    outputs = yolo.train(training)(torch.rand(2, 3, 64, 96))
    assert isinstance(outputs, tuple)
    assert [output.shape for output in outputs] == [(2, 7, 8, 12), (2, 7, 4, 6), (2, 7, 2, 3)]


def test_an_untrained_yolo_detects_nothing(yolo):
    with torch.no_grad():
        found = decode(yolo.eval()(torch.rand(2, 3, 64, 64)))
    assert [len(each["boxes"]) for each in found] == [0, 0]
    assert found[0]["boxes"].shape == (0, 4)
    assert found[0]["labels"].dtype == torch.int64


def test_a_cell_becomes_a_box_around_its_centre():
    outputs = maps(64, 96)
    outputs[1][0, 4 + 2, 1, 4] = 3.0
    (found,) = decode(outputs)
    assert found["boxes"].tolist() == [pytest.approx([64, 16, 80, 32], abs=1e-4)]
    assert found["labels"].tolist() == [2]
    assert found["scores"].tolist() == [pytest.approx(torch.tensor(3.0).sigmoid().item())]


def test_boxes_are_cut_at_the_image_and_ordered_by_score():
    outputs = maps(32, 64)
    outputs[0][0, :4, 0, 0] = 100.0
    outputs[0][0, 4, 0, 0] = 1.0
    outputs[0][0, 5, 3, 7] = 2.0
    (found,) = decode(outputs)
    assert found["labels"].tolist() == [1, 0]
    assert found["boxes"][1].tolist() == [0, 0, 64, 32]


def test_of_overlapping_boxes_of_a_label_the_more_probable_stays():
    outputs = maps(64, 64)
    outputs[1][0, 4, 1, 1] = 2.0  # the box 16, 16, 32, 32
    outputs[0][0, :4, 2, 2] = torch.tensor([4.0, 4.0, 12.0, 12.0]).div(8).exp().sub(1).log()
    outputs[0][0, 4, 2, 2] = 3.0  # the same box by another stride
    outputs[0][0, 6, 2, 2] = 1.0  # and another label
    (found,) = decode(outputs)
    assert found["labels"].tolist() == [0, 2]
    assert found["scores"][0] == torch.tensor(3.0).sigmoid()
    assert len(decode(outputs, iou=1.0)[0]["labels"]) == 3
    assert len(decode(outputs, most=1)[0]["labels"]) == 1
    assert len(decode(outputs, score=0.9)[0]["labels"]) == 1


def test_the_loss_is_low_for_what_is_right_and_high_for_what_is_not():
    right, outputs = target((2, 64, 16, 80, 32)), maps(64, 96)
    nothing = detection_loss(outputs, [right])
    outputs[1][0, 4 + 2, 1, 4] = 8.0
    found = detection_loss(outputs, [right])
    assert found < 0.01
    assert nothing > 100 * found
    assert detection_loss(outputs, [target((1, 64, 16, 80, 32))]) > 100 * found
    assert detection_loss(outputs, [target((2, 60, 16, 76, 32))]) > 10 * found
    assert detection_loss(outputs, [target()]) > 100 * found


def test_images_without_objects_have_a_loss_too():
    outputs = maps(32, 32)
    outputs[2][0, 4, 0, 0] = 0.0
    assert detection_loss(outputs, [target()]) == pytest.approx(0.6931, abs=1e-3)


def test_boxes_of_several_sizes_are_learnt(yolo):
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    wanted = target((0, 18, 10, 22, 14), (1, 1, 1, 63, 63), (2, 41, 0, 47, 64))
    optimizer = torch.optim.Adam(yolo.parameters(), 5e-3)
    for _ in range(60):
        loss = detection_loss(yolo(image), [wanted])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        (found,) = decode(yolo(image))
    for label, box in zip(wanted["labels"], wanted["boxes"], strict=True):
        best = found["boxes"][found["labels"] == label][0]
        assert best.tolist() == pytest.approx(box.tolist(), abs=2)


def test_a_box_between_the_cells_centres_is_learnt_by_the_cells_beside_it():
    outputs = [output.requires_grad_() for output in maps(64, 64)]
    detection_loss(outputs, [target((1, 17, 9, 19, 10))]).backward()
    raised = [(output.grad[0, 4 + 1] < 0).nonzero().tolist() for output in outputs]
    assert [1, 2] in raised[0]


@pytest.mark.parametrize("name", ["unet_small", pytest.param("yolo_small", marks=pytest.mark.slow)])
def test_the_models_are_pruned_quantized_and_deployed(create, with_statistics, tmp_path, name):
    torch.manual_seed(0)
    model = with_statistics(create("model", name, num_classes=3, width=4).build())
    images = torch.rand(2, 3, 64, 64)
    pruned = create("pruner", "normal", percent=0.3).prune(model, (images,)).model
    assert params_m(pruned) < 0.75 * params_m(model)
    quantizer = create("quantizer", "iao", w_bits=8, a_bits=8)
    prepared = quantizer.prepare(pruned, (images,))
    quantizer.calibrate(prepared, [images])
    fused = create("fuser", "bn").fuse(prepared, (images,)).eval()
    backend = create("deploy_backend", "onnxruntime")
    found = backend.load(backend.export(fused, (images,), tmp_path / "engine"))(images.numpy())
    with torch.no_grad():
        simulated, real = fused(images), pruned.eval()(images)
    if name == "unet_small":
        found, simulated, real = (found,), (simulated,), (real,)
    for engine, expected, exact in zip(found, simulated, real, strict=True):
        step = expected.abs().max() / 127
        assert (torch.from_numpy(engine) - expected).abs().max() < 2 * step
        assert (expected - exact).pow(2).mean() < 0.01 * exact.var()


@pytest.mark.parametrize("name", ["unet_small", "yolo_small"])
@pytest.mark.parametrize("option", ["num_classes", "width"])
def test_a_model_of_nothing_is_refused(create, name, option):
    with pytest.raises(OptionError, match=f"{option} must be at least 1"):
        create("model", name, **{option: 0})
