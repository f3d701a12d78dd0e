"""Weights that others' trainings left: files of many kinds, keys and prefixes of many tools."""

import io
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from micronet.errors import DataError
from micronet.storage.weights import load_weights


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def prefixed(prefix, state):
    return {prefix + key: tensor for key, tensor in state.items()}


def averaged(net):
    return AveragedModel(net).state_dict()


HELD = {
    "the state_dict": (lambda net: net.state_dict(), None),
    "of DataParallel": (lambda net: nn.DataParallel(net).state_dict(), "with 'module.' before"),
    "of torch.compile": (lambda net: torch.compile(net).state_dict(), "with '_orig_mod.' before"),
    "of both": (
        lambda net: torch.compile(nn.DataParallel(net)).state_dict(),
        "with '_orig_mod.module.' before each name.",
    ),
    "of Lightning": (
        lambda net: {"epoch": 3, "state_dict": prefixed("model.", net.state_dict())},
        "under 'state_dict' with 'model.' before each name.",
    ),
    "an average": (averaged, "with 'module.' before each name."),
    "of a tutorial": (
        lambda net: {"epoch": 3, "model_state_dict": net.state_dict(), "loss": 0.3},
        "under 'model_state_dict'.",
    ),
    "of torchvision": (
        lambda net: {"model": net.state_dict(), "optimizer": {}, "model_ema": averaged(net)},
        "under 'model' (not 'model_ema').",
    ),
    "of timm": (
        lambda net: {"arch": "x", "state_dict_ema": net.state_dict()},
        "under 'state_dict_ema'.",
    ),
    "one in the other": (
        lambda net: {"model": {"state_dict": net.state_dict()}},
        "under 'state_dict' in 'model'.",
    ),
}


@pytest.mark.parametrize(("held", "understood"), HELD.values(), ids=HELD)
def test_what_tools_write_is_taken_whole_and_told(net, tmp_path, held, understood):
    torch.save(held(net), tmp_path / "w.pth")
    model = Net()
    told = load_weights(model, tmp_path / "w.pth")
    own = net.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in model.state_dict().items())
    if understood is None:
        assert told is None
    else:
        assert told.startswith(f"{tmp_path}/w.pth: the weights are those ")
        assert understood in told


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w"])
def test_safetensors_are_known_by_what_is_in_them(net, tmp_path, name):
    save_file(net.state_dict(), tmp_path / name)
    assert load_weights(Net(), tmp_path / name) is None


def test_a_model_whose_own_names_bear_such_a_prefix_is_filled_as_it_is(tmp_path):
    model = nn.DataParallel(Net())
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert load_weights(nn.DataParallel(Net()), tmp_path / "w.pth") is None


def scripted(net, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against TorchScript
        torch.jit.script(net).save(path)


def exported(net, path):
    program = torch.export.export(net.eval(), (torch.zeros(1, 3, 8, 8),))
    with path.open("wb") as file:
        torch.export.save(program, file)


def halve(net, path):
    torch.save(net.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


OTHERS = {
    "nothing": (lambda _, path: path.write_bytes(b""), "holds no weights: it is empty."),
    "a pointer of Git LFS": (
        lambda _, path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "holds no weights: it is a pointer of Git LFS, not the file itself; git lfs pull",
    ),
    "a page": (
        lambda _, path: path.write_text("\n<!DOCTYPE html><html>404</html>"),
        "holds no weights: it is a page of the web, as a failed download leaves it",
    ),
    "TorchScript": (scripted, "it is a TorchScript archive, a program; save torch.jit.load("),
    "torch.export": (exported, "it is a program of torch.export; save torch.export.load("),
    "a text": (
        lambda _, path: path.write_text("not weights at all"),
        "holds no weights: neither torch.save nor safetensors wrote it.",
    ),
    "a model": (torch.save, "could run code, as it asks for "),
    "a model in a checkpoint": (
        lambda net, path: torch.save({"model": net}, path),
        "test_given_weights.Net",
    ),
    "an older model": (
        lambda net, path: torch.save(net, path, _use_new_zipfile_serialization=False),
        "holds more than tensors and numbers and is refused: loading it could run code. Of a",
    ),
    "arrays": (
        lambda _, path: torch.save({"a": np.zeros(3)}, path),
        "as it asks for numpy._core.multiarray._reconstruct, numpy.dtype, numpy.ndarray.",
    ),
    "an archive of arrays": (
        lambda _, path: path.write_bytes(npz()),
        "holds no weights: it is another archive.",
    ),
    "half of a file": (halve, "it is an archive that was cut"),
    "a tensor": (
        lambda _, path: torch.save(torch.zeros(3), path),
        "holds no state_dict, but a Tensor.",
    ),
    "an optimizer": (
        lambda net, path: torch.save(torch.optim.SGD(net.parameters()).state_dict(), path),
        "holds no state_dict: 'state' in it is a dict, no tensor.",
    ),
    "numbers for names": (
        lambda _, path: torch.save({0: torch.zeros(3)}, path),
        "holds no state_dict: 0 in it is no name.",
    ),
}


def npz():
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(("write", "sentence"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_file_of_weights_is_told(net, tmp_path, write, sentence, suffix):
    path = tmp_path / f"w.{suffix}"
    write(net, path)
    with pytest.raises(DataError) as caught:
        load_weights(Net(), path)
    assert str(caught.value).startswith(f"{path} ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


MISFITS = {
    "all at once": (
        lambda state: {
            "head.weight": torch.zeros(2, 4),
            "0.weight": torch.zeros(8, 3, 3, 3),
            "0.bias": state["0.bias"].long(),
            "1.weight": torch.zeros(4, dtype=torch.complex64),
        },
        (
            "it lacks '1.bias' [4], '1.running_mean' [4], '1.running_var' [4] and 1 more; it has "
            "too many 'head.weight' [2, 4]; of another shape are '0.weight' [8, 3, 3, 3], in "
            "the model [4, 3, 3, 3]; other numbers hold '0.bias' integers, in the model floats, "
            "'1.weight' complex numbers, in the model floats."
        ),
    ),
    "with a prefix": (
        lambda state: prefixed("module.", {k: v for k, v in state.items() if k != "0.bias"}),
        "it lacks '0.bias' [4].",
    ),
    "with another's prefix": (
        lambda state: prefixed("backbone.", state),
        (
            "it lacks '0.weight' [4, 3, 3, 3], '0.bias' [4], '1.weight' [4] and 4 more; it has too "
            "many 'backbone.0.weight' [4, 3, 3, 3]"
        ),
    ),
    "without numbers": (
        lambda state: {**state, "0.bias": torch.zeros(4, device="meta")},
        "other numbers hold '0.bias' no plain numbers, in the model floats.",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), MISFITS.values(), ids=MISFITS)
def test_every_way_in_which_weights_do_not_fit_is_told(net, tmp_path, change, sentence):
    torch.save(OrderedDict(change(net.state_dict())), tmp_path / "w.pth")
    model = Net()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(DataError) as caught:
        load_weights(model, tmp_path / "w.pth")
    assert f"w.pth does not fit the model: {sentence}" in str(caught.value)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_half_precision_is_taken_as_the_models_own(net, tmp_path):
    torch.save(net.half().state_dict(), tmp_path / "w.pth")
    model = Net()
    load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model[0].weight, net[0].weight.float())
