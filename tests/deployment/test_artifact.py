"""The card of a deployed model."""

import json

import pytest

from micronet.errors import DeployError
from micronet.structure import Nest
from micronet.techniques import Artifact, Signature, TensorSpec

SIGNATURE = Signature(
    Nest("tuple", ["x"], [TensorSpec("input", "float32", ("batch", 3, 8, 8), (1, 3, 8, 8))]),
    Nest("dict", ["out", 7], [TensorSpec("out", "int64", ("batch",), (1,)), None]),
)


def test_remarks_are_read_back(tmp_path):
    remarks = ("head stays in float: no kernel.",)
    artifact = Artifact(tmp_path, "any", "model.bin", SIGNATURE, "any 1", remarks=remarks)
    artifact.write_card()
    assert Artifact.read(tmp_path) == artifact


def test_a_card_says_what_the_model_takes_and_gives_and_a_folder_may_be_text(tmp_path):
    Artifact(tmp_path, "any", "model.bin", SIGNATURE, "any 1").write_card()
    artifact = Artifact.read(str(tmp_path))
    assert artifact.signature == SIGNATURE
    assert artifact.input_shape == (1, 3, 8, 8)
    card = json.loads((tmp_path / "artifact.json").read_text())
    assert card["signature"]["inputs"]["parts"] == [
        {"name": "input", "dtype": "float32", "shape": ["batch", 3, 8, 8], "example": [1, 3, 8, 8]}
    ]


def test_an_older_card_is_refused_in_one_sentence(tmp_path):
    card = {"backend": "any", "file": "f", "input_shape": [1, 3, 8, 8], "engine": "any 1"}
    (tmp_path / "artifact.json").write_text(json.dumps(card))
    with pytest.raises(DeployError, match=r"written by an older micronet.*deploy the model again"):
        Artifact.read(tmp_path)


def test_every_file_that_the_engine_reads_counts(tmp_path):
    (tmp_path / "model.xml").write_bytes(b"12")
    (tmp_path / "model.bin").write_bytes(b"345")
    (tmp_path / "notes.txt").write_bytes(b"not the engine's")
    artifact = Artifact(tmp_path, "any", "model.xml", SIGNATURE, "any 1", more_files=("model.bin",))
    assert artifact.size_bytes == 5
    artifact.write_card()
    assert Artifact.read(tmp_path) == artifact
