"""Which tensors are quantized, on models that people have."""

import copy
import warnings

import pytest
import torch
import torchvision
from torch import fx, nn

from micronet import registry
from micronet.errors import MicronetError, QuantizationError
from micronet.graph import trace
from micronet.quantization import FakeQuantizer, fake_quantizers
from micronet.quantization.layers import QuantizedLayer


class Concatenating(nn.Module):
    """Two branches; the left one is read by the concatenation and by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 6, 1)
        self.aside = nn.Conv2d(4, 5, 1)
        self.after = nn.Conv2d(10, 5, 1)
        self.head = nn.Linear(5, 10)

    def forward(self, x):
        left = self.left(x).relu()
        joined = torch.cat([left, self.right(x).relu()], 1)
        added = self.after(joined) + self.aside(left)
        return self.head(added.mean((2, 3)))


class Chain(nn.Sequential):
    """Pooling and flattening between a convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(4 * 16 * 16, 10),
        )


def zoo(name, **options):
    return lambda: registry.create("model", name, **options).build()


MODELS = {
    "nin": zoo("nin", cfg=(16, 16, 8, 16, 16, 16, 16, 16)),
    "nin_gc": zoo("nin_gc", cfg=(16, 16, 16, 32, 32, 32, 64, 64)),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.35),
    "squeezenet": lambda: torchvision.models.squeezenet1_1(num_classes=10),
    "concatenating": Concatenating,
    "chain": Chain,
}
READERS = (QuantizedLayer, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
READING_CALLS = {"add", "iadd", "cat", "adaptive_avg_pool2d", "avg_pool2d"}
BATCH = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    """A float model and its prepared copy with 4-bit activations, calibrated."""
    torch.manual_seed(0)
    model = MODELS[request.param]()
    before = copy.deepcopy(model)
    quantizer = registry.create("quantizer", "iao", a_bits=4)
    prepared = quantizer.prepare(model, (BATCH,))
    quantizer.calibrate(prepared, [BATCH])
    return before, model, prepared


class Watching(fx.Interpreter):
    """Runs a graph and keeps what each integer operation read."""

    def __init__(self, traced):
        super().__init__(traced)
        self.read = {}

    def run_node(self, n):
        module = n.op == "call_module" and self.module.get_submodule(n.target)
        called = n.op == "call_function" and n.target.__name__ in READING_CALLS
        if called or isinstance(module, READERS):
            for operand in n.all_input_nodes:
                self.read[n.name, operand.name] = self.env[operand].clone()
        return super().run_node(n)


def test_every_tensor_that_an_integer_operation_reads_is_on_a_grid(pair):
    prepared = pair[2].eval()
    watching = Watching(prepared)
    with torch.no_grad():
        watching.run(BATCH)
    assert watching.read
    off_grid = [where for where, x in watching.read.items() if x.unique().numel() > 2**4]
    assert off_grid == []


def test_no_tensor_is_quantized_twice(pair):
    prepared = pair[2]
    modules = dict(prepared.named_modules())

    def is_quantizer(node):
        return node.op == "call_module" and isinstance(modules[node.target], FakeQuantizer)

    for node in prepared.graph.nodes:
        readers = [user for user in node.users if is_quantizer(user)]
        assert len(readers) <= 1, node.name
        assert not (readers and len(node.users) > 1), f"{node.name} is read unquantized too"
        assert not (readers and is_quantizer(node)), node.name


def test_the_float_model_stays_as_it_was(pair):
    before, model, _ = pair
    assert [type(module) for module in model.modules()] == [type(m) for m in before.modules()]
    assert model.training
    for key, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor)


def test_every_state_dict_key_keeps_its_name(pair):
    _, model, prepared = pair
    assert set(model.state_dict()) <= set(prepared.state_dict())
    fresh = copy.deepcopy(prepared)
    fresh.load_state_dict(model.state_dict(), strict=True)


def test_evaluation_is_deterministic(pair):
    prepared = pair[2].eval()
    with torch.no_grad():
        assert torch.equal(prepared(BATCH), prepared(BATCH))


def test_a_training_step_gives_every_weight_a_finite_gradient(pair):
    prepared = copy.deepcopy(pair[2]).train()
    loss = nn.functional.cross_entropy(prepared(BATCH), torch.arange(4))
    loss.backward()
    for name, parameter in prepared.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def activation_quantizers(model):
    named = (name for name, _ in fake_quantizers(model))
    return [name.partition(".")[2] for name in named if name.startswith("activation_quantizers.")]


def test_a_residual_net_quantizes_its_input_and_both_operands_of_the_addition(
    small_net, images, iao
):
    prepared = iao().prepare(small_net, (images,))
    # relu passes max pooling on its grid; relu_1 follows the addition, which pool then reads.
    assert activation_quantizers(prepared) == ["x", "relu", "body_bn", "relu_1", "pool"]


def test_concatenated_tensors_share_their_quantizer_with_other_readers(iao):
    prepared = iao().prepare(Concatenating(), (BATCH,))
    found = activation_quantizers(prepared)
    # input; both branches; the joined tensor; the addition's operands; the head's input
    assert len(found) == 7
    assert found[0] == "x"


def test_pooling_dropout_and_flattening_pass_the_grid_on(iao):
    assert len(activation_quantizers(iao().prepare(Chain(), (BATCH,)))) == 2


def test_preparing_a_model_warns_of_nothing(small_net, images, iao):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iao().prepare(small_net, (images,))


def test_each_layer_keeps_its_own_train_or_eval_mode(small_net, images, iao):
    small_net.train()
    small_net.body_bn.eval()
    prepared = iao().prepare(small_net, (images,))
    assert prepared.stem_bn.training
    assert not prepared.body_bn.training
    assert not small_net.body_bn.training


def test_functional_dropout_drops_in_training_only(small_net, images, iao):
    quantizer = iao()
    prepared = quantizer.prepare(small_net, (images,))
    quantizer.calibrate(prepared, [images])
    quantizer.freeze(prepared)
    with torch.no_grad():
        prepared.train()
        assert not torch.equal(prepared(images), prepared(images))
        prepared.eval()
        assert torch.equal(prepared(images), prepared(images))


def test_parameters_that_are_not_trained_stay_so(small_net, images, iao):
    small_net.stem.weight.requires_grad_(requires_grad=False)
    prepared = iao().prepare(small_net, (images,))
    assert not prepared.stem.weight.requires_grad
    assert prepared.body.weight.requires_grad


def test_a_model_that_is_quantized_is_refused(small_net, images, iao):
    prepared = iao().prepare(small_net, (images,))
    with pytest.raises(QuantizationError, match="quantized already"):
        iao().prepare(prepared, (images,))


def test_a_model_with_nothing_to_quantize_is_refused_and_told_what_counts(images, iao):
    with pytest.raises(QuantizationError, match=r"no layer.*Conv2d.*Linear"):
        iao().prepare(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), (images,))


def test_a_traced_model_is_prepared_like_the_model_itself(small_net, images, iao):
    small_net.eval()
    prepared = iao().prepare(trace(small_net), (images,))
    assert len(activation_quantizers(prepared)) == 5


@pytest.mark.parametrize("wrong", ["a tensor", "a list"])
def test_inputs_that_are_no_tuple_are_refused_in_words(small_net, images, wrong, tmp_path):
    inputs = images if wrong == "a tensor" else [images]
    for use in (
        lambda: registry.create("quantizer", "iao").prepare(small_net, inputs),
        lambda: registry.create("quantizer", "dorefa").prepare(small_net, inputs),
        lambda: registry.create("quantizer", "wbwtab").prepare(small_net, inputs),
        lambda: registry.create("fuser", "bn").fuse(small_net, inputs),
        lambda: registry.create("deploy_backend", "onnxruntime").export(
            small_net, inputs, tmp_path / "engine"
        ),
    ):
        with pytest.raises(MicronetError, match="example_inputs must be a tuple of tensors, got"):
            use()
    assert not (tmp_path / "engine").exists()


class Embedding(nn.Module):
    """Has a table of its own, a layer with one, and a layer whose weight it reads uncalled."""

    def __init__(self, *, inner=None):
        super().__init__()
        self.patches, self.inner = nn.Conv2d(3, 8, 4, 4), inner or nn.Identity()
        self.words, self.read = nn.Embedding(4, 8), nn.Linear(8, 8)
        self.pos_embed = nn.Parameter(torch.randn(1, 8, 4, 4))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.inner(self.patches(x)) + self.pos_embed
        x = x.mean((2, 3)) + self.words.weight[0]
        return self.head(x @ self.read.weight)


@pytest.mark.parametrize("inputs", ["known", "unknown"])
@pytest.mark.parametrize("name", ["iao", "dorefa"])
def test_weights_that_stay_in_float_are_named_with_what_they_are(images, inputs, name):
    with pytest.warns(UserWarning, match="Weights stay in float") as caught:
        registry.create("quantizer", name).prepare(
            Embedding(), (images,) if inputs == "known" else ()
        )
    said = [str(w.message) for w in caught if "stay in float" in str(w.message)]
    assert len(said) == 1
    assert "the model's own 'pos_embed'" in said[0]
    assert "'words' (Embedding)" in said[0]
    assert "''" not in said[0]


def test_a_layer_that_is_not_called_is_named_as_such(images, iao):
    with pytest.warns(UserWarning, match=r"'read' \(not called\)"):
        iao().prepare(Embedding(), (images,))


def test_a_table_of_an_inner_module_is_named_by_the_module(images, iao):
    class Scaling(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.ones(1, 8, 4, 4))

        def forward(self, x):
            return x * self.table

    with pytest.warns(UserWarning, match="the model's own 'pos_embed', 'inner'"):
        iao().prepare(Embedding(inner=Scaling()), (images,))
