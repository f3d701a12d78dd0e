"""Each construct that users of pruners report is pruned exactly, or left with the true reason."""

import pytest
import torch
import torchvision
from any_pruned_model import relative, silenced, with_statistics
from pruned_constructs import (
    PRUNED,
    WHOLE,
    Around,
    Chunks,
    Heads,
    LevitHeads,
    StandardisedConv,
    conv,
)
from torch import nn

from micronet.errors import PruningError
from micronet.measure import params_m
from micronet.pruning import PruningPlan, apply_plan

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))

pytestmark = pytest.mark.filterwarnings("ignore:Computed weights become plain ones")


@pytest.fixture
def prune(create):
    def prune_exactly(build, inputs=(X,), **options):
        torch.manual_seed(0)
        model = with_statistics(build()).eval()
        result = create("pruner", "gc", percent=0.4, **options).prune(model, inputs)
        with torch.no_grad():
            expected = silenced(model, result.plan).eval()(*inputs)
            assert relative(result.model.eval()(*inputs), expected) < 1e-6
        return model, result

    return prune_exactly


@pytest.mark.parametrize("name", PRUNED)
def test_a_construct_loses_channels_exactly(name, prune):
    model, result = prune(PRUNED[name])
    assert list(result.reasons) == ["head"]
    assert params_m(result.model) < 0.75 * params_m(model)
    assert result.model.train()(X).shape == model(X).shape


@pytest.mark.parametrize("name", WHOLE)
def test_a_construct_that_stays_whole_has_the_true_reason(name, prune):
    build, reasons = WHOLE[name]
    model, result = prune(build)
    assert reasons.items() <= result.reasons.items()
    for layer in reasons:
        weight = model.get_submodule(layer).weight
        assert result.model.get_submodule(layer).weight.shape[0] == weight.shape[0]
    assert params_m(result.model) < params_m(model)


def test_filters_that_are_standardised_lose_outputs_exactly_and_inputs_too(prune, create):
    model, result = prune(lambda: Around(StandardisedConv(16, 16, 3, padding=1)), keep=("stem",))
    assert result.model.body.weight.shape[1] == 16
    assert result.model.body.out_channels < 16
    result = create("pruner", "gc", percent=0.4).prune(model, (X,))
    assert list(result.reasons) == ["head"]
    assert result.model.body.in_channels < 16
    assert result.model(X).shape == (2, 10)


def test_layers_whose_widths_the_code_takes_for_each_other_keep_as_many(prune):
    _, result = prune(PRUNED["widths taken from each other"])
    body = result.model.body
    width = result.model.stem.out_channels
    assert width < 16
    assert width % 4 == 0
    assert (body.qkv.out_features, body.out.in_features) == (3 * width, width)


def test_halves_of_chunks_keep_as_many_each_and_none_is_blamed(prune):
    _, result = prune(lambda: Around(nn.Sequential(*(Chunks() for _ in range(5)))))
    assert not any("the code of" in reason for reason in result.reasons.values())
    for number in range(5):
        kept = result.plan.layers[f"body.{number}.first.0"].outputs
        assert sum(place < 16 for place in kept) == len(kept) / 2 < 16


def test_attributes_that_count_channels_shrink_and_the_plan_repeats_it(prune):
    model, result = prune(lambda: Around(Heads()))
    body = result.model.body
    assert body.width < 6
    assert body.heads == 4
    assert body.qkv.out_features == 12 * body.width
    again = apply_plan(model, PruningPlan.from_json(result.plan.to_json()))
    assert torch.equal(again.eval()(X), result.model(X))
    assert model.body.width == 6
    assert type(model.body.width) is int


def test_a_list_of_sizes_shrinks_entry_by_entry(prune):
    _, result = prune(lambda: Around(LevitHeads()))
    queries, keys, values = result.model.body.sizes
    assert queries == keys < 4
    assert result.model.body.qkv.out_channels == 4 * (queries + keys + values)


class Experts(nn.Module):
    """Chooses one of two by the number of images, and has a second method."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.wide = conv(3, 16), conv(16, 24), conv(24, 40)
        self.experts = nn.ModuleList(
            nn.Sequential(conv(40, 20), nn.ReLU(), conv(20, 12)) for _ in range(2)
        )
        self.head, self.other = nn.Linear(12, 10), nn.Linear(24, 5)

    def forward(self, x):
        x = self.wide(self.middle(self.stem(x).relu()).relu()).relu()
        return self.head(self.experts[len(x) > 2](x).mean((2, 3)))

    def embedding(self, x):
        return self.other(self.middle(self.stem(x).relu()).relu().mean((2, 3)))


def test_what_may_feed_a_layer_that_is_not_reached_stays_and_is_told(prune):
    _, result = prune(Experts)
    assert result.model.stem.out_channels < 16
    four = torch.cat([X, X])
    assert result.model(four).shape == (4, 10)
    assert result.model.embedding(four).shape == (4, 5)
    assert result.reasons["wide"] == (
        "it may feed 'experts.1.0', which the example inputs don't reach"
    )
    assert result.reasons["middle"] == "it may feed 'other', which the example inputs don't reach"
    for name in ("experts.1.0", "experts.1.2", "other"):
        assert result.reasons[name] == "the example inputs don't reach it"


def test_inference_mode_is_refused_in_a_sentence_and_no_grad_is_not(create):
    pruner, model = create("pruner", "normal", percent=0.4), PRUNED["GLU"]()
    with torch.inference_mode(), pytest.raises(PruningError, match=r"under torch\.no_grad"):
        pruner.prune(model, (X,))
    with torch.no_grad():
        assert params_m(pruner.prune(model, (X,)).model) < params_m(model)


def retinanet():
    return torchvision.models.detection.retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=96, max_size=96,
        score_thresh=0.0,
    )  # fmt: skip


def fasterrcnn():
    return torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=96, max_size=96,
        rpn_pre_nms_top_n_test=50, box_score_thresh=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(("build", "training"), [(retinanet, False), (fasterrcnn, True)])
def test_a_detector_loses_channels_exactly_and_goes_on_training(build, training, create):
    torch.manual_seed(0)
    model = with_statistics(build()).train(training)
    image = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))
    result = create("pruner", "normal", percent=0.4).prune(model, ([image],))
    assert params_m(result.model) < 0.75 * params_m(model)
    with torch.no_grad():
        found, expected = (
            each.eval()([image])[0]["scores"]
            for each in (result.model, silenced(model, result.plan))
        )
    assert len(found) > 0
    assert relative(found, expected) < 1e-5
    target = {"boxes": torch.tensor([[10.0, 10.0, 60.0, 60.0]]), "labels": torch.tensor([1])}
    losses = result.model.train()([image, image], [target, target])
    sum(losses.values()).backward()
