"""Pruned models in files: the plan in the metadata, the weights beside it, nothing that runs."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import micronet
from micronet.errors import DataError, PruningError
from micronet.registry import create


@pytest.fixture
def written(small_net, images, tmp_path):
    """A pruned model that has learned since, and its file."""
    result = create("pruner", "normal", percent=0.4).prune(small_net, (images,))
    with torch.no_grad():
        result.model.head.bias.add_(1)
    micronet.save_pruned(result.model, result.plan, tmp_path / "pruned.safetensors")
    return result.model, tmp_path / "pruned.safetensors"


def test_a_pruned_model_comes_back_from_its_file_and_the_unpruned_code(written, small_net, images):
    model, path = written
    again = micronet.load_pruned(type(small_net), path)
    assert again.stem.out_channels == model.stem.out_channels < 8
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_so_does_one_that_was_pruned_twice(small_net, images, tmp_path):
    pruner = create("pruner", "normal", percent=0.3)
    first = pruner.prune(small_net, (images,))
    second = pruner.prune(first.model, (images,))
    plans = [first.plan, second.plan]
    micronet.save_pruned(second.model, plans, tmp_path / "twice.safetensors")
    again = micronet.load_pruned(type(small_net), tmp_path / "twice.safetensors")
    assert again.stem.out_channels < first.model.stem.out_channels
    assert torch.equal(again.eval()(images), second.model.eval()(images))


def test_the_channels_of_nin_are_written_and_read(tmp_path):
    x = torch.randn(2, 3, 32, 32)
    net = create("model", "nin", cfg=(8,) * 8).build()
    nn.init.uniform_(net.model[0].bn.weight, 0, 1)
    result = create("pruner", "normal", percent=0.05).prune(net, (x,))
    micronet.save_pruned(result.model, result.plan, tmp_path / "nin.safetensors")
    with safe_open(tmp_path / "nin.safetensors", "pt") as file:
        cfg = json.loads(file.metadata()["cfg"])
    assert sum(cfg) < 64
    again = create("model", "nin", cfg=cfg).build()
    again.load_state_dict(result.model.state_dict())


def test_a_file_for_another_model_is_refused(written):
    with pytest.raises(PruningError, match="does not fit the model at 'stem'"):
        micronet.load_pruned(lambda: nn.Sequential(nn.Conv2d(3, 8, 3)), written[1])


def test_a_file_without_a_plan_is_refused(small_net, tmp_path):
    from micronet.storage.weights import save_state

    save_state(small_net.state_dict(), tmp_path / "whole.safetensors")
    with pytest.raises(DataError, match="holds no pruned model"):
        micronet.load_pruned(type(small_net), tmp_path / "whole.safetensors")


@pytest.mark.parametrize("plan", ["{", "3", '{"stem": 1}', "[3]", '["{\\"stem\\": 1}"]'])
def test_a_plan_that_cannot_be_read_is_told(small_net, tmp_path, plan):
    metadata = {"micronet.pruning_plan": plan}
    save_file(small_net.state_dict(), tmp_path / "odd.safetensors", metadata)
    with pytest.raises(DataError, match=r"odd\.safetensors holds no plan that can be read"):
        micronet.load_pruned(type(small_net), tmp_path / "odd.safetensors")


@pytest.mark.parametrize("content", [None, b"not a file of tensors"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.safetensors can't be read"):
        micronet.load_pruned(nn.Identity, path)
