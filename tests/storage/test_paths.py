"""Paths may be given as text."""

import torch
from torch import nn

from micronet import load_packed
from micronet.storage.files import replacing_directory, write_text
from micronet.storage.packing import save_packed
from micronet.storage.weights import load_state, save_state


def test_weights_are_written_to_and_read_from_a_path_in_text(tmp_path):
    path = str(tmp_path / "in" / "weights.safetensors")
    save_state({"a": torch.arange(3.0)}, path)
    assert torch.equal(load_state(path)["a"], torch.arange(3.0))


def test_so_is_a_packed_model(tmp_path):
    path = str(tmp_path / "model.safetensors")
    model = nn.Linear(3, 2)
    save_packed(model, path)
    x = torch.randn(4, 3)
    assert torch.equal(load_packed(path, nn.Linear(3, 2))(x), model(x))


def test_so_are_files_and_folders_that_are_replaced(tmp_path):
    write_text(str(tmp_path / "a.txt"), "text")
    with replacing_directory(str(tmp_path / "folder")) as temporary:
        write_text(str(temporary / "b.txt"), "more")
    assert (tmp_path / "a.txt").read_text() == "text"
    assert (tmp_path / "folder" / "b.txt").read_text() == "more"
