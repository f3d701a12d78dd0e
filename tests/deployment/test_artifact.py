"""The card of a deployed model."""

import json

import pytest

from micronet.errors import DeployError
from micronet.storage.files import write_json
from micronet.structure import Nest
from micronet.techniques import Artifact, Signature, TensorSpec

SIGNATURE = Signature(
    Nest("tuple", ["x"], [TensorSpec("input", "float32", ("batch", 3, 8, 8), (1, 3, 8, 8))]),
    Nest("dict", ["out", 7], [TensorSpec("out", "int64", ("batch",), (1,)), None]),
)


def test_remarks_are_read_back(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"1")
    remarks = ("head stays in float: no kernel.",)
    artifact = Artifact(tmp_path, "any", "model.bin", SIGNATURE, "any 1", remarks=remarks)
    artifact.write_card()
    assert Artifact.read(tmp_path) == artifact


def test_a_card_says_what_the_model_takes_and_gives_and_a_folder_may_be_text(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"1")
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
    with pytest.raises(
        DeployError, match=r"an older micronet or somebody else wrote it. Deploy the model"
    ):
        Artifact.read(tmp_path)


def test_every_file_that_the_engine_reads_counts(tmp_path):
    (tmp_path / "model.xml").write_bytes(b"12")
    (tmp_path / "model.bin").write_bytes(b"345")
    (tmp_path / "notes.txt").write_bytes(b"not the engine's")
    artifact = Artifact(tmp_path, "any", "model.xml", SIGNATURE, "any 1", more_files=("model.bin",))
    assert artifact.size_bytes == 5
    artifact.write_card()
    assert Artifact.read(tmp_path) == artifact


def test_files_that_were_changed_lost_or_lie_elsewhere_are_refused(tmp_path):
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"345")
    Artifact(folder, "any", "model.bin", SIGNATURE, "any 1").write_card()
    Artifact.read(folder).check_files()
    (folder / "model.bin").write_bytes(b"346")
    with pytest.raises(DeployError, match=r"model\.bin was changed since it was written"):
        Artifact.read(folder).check_files()
    (folder / "model.bin").unlink()
    with pytest.raises(DeployError, match=r"model\.bin can't be read: No such file"):
        Artifact.read(folder).check_files()
    card = json.loads((folder / "artifact.json").read_text())
    del card["sha256"]
    card |= {"file": "../other.bin", "sums": {"../other.bin": "0"}}
    write_json(folder / "artifact.json", card)
    with pytest.raises(DeployError, match=r"names a file outside of it, \.\./other\.bin"):
        Artifact.read(folder).check_files()


DAMAGE = [
    "[]",
    "3",
    "null",
    "",
    "{",
    "\x00",
    "[" * 100_000,
    '{"sums": {}}',
    {"file": 5},
    {"file": None},
    {"settings": "none"},
    {"remarks": "one"},
    {"more": 1},
    {"signature": None},
    {"signature": []},
    {"signature": {"inputs": None, "outputs": None}},
    {"signature": {"inputs": {"kind": "tuple", "keys": ["x"], "parts": []}, "outputs": None}},
    {"input dtype": "float31"},
    {"input dtype": 5},
    {"input shape": "batch"},
    {"input shape": [1.5]},
    {"input example": [-1, 3, 8, 8]},
    {"input example": [2**20, 3, 2**10, 2**10]},
    {"output kind": "set"},
    {"output kind": "namedtuple", "output type_name": "not a name"},
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: str(damage)[:40])
def test_a_damaged_card_is_one_sentence(tmp_path, damage):
    (tmp_path / "model.bin").write_bytes(b"1")
    Artifact(tmp_path, "any", "model.bin", SIGNATURE, "any 1").write_card()
    file = tmp_path / "artifact.json"
    if not isinstance(damage, str):
        card = json.loads(file.read_text())
        for key, value in damage.items():
            side, _, name = key.partition(" ")
            sides = {
                "input": card["signature"]["inputs"]["parts"][0],
                "output": card["signature"]["outputs"],
            }
            sides.get(side, card)[name or key] = value
        del card["sha256"]
        write_json(file, card)
    else:
        file.write_text(damage)
    with pytest.raises(DeployError, match="holds no readable artifact") as caught:
        Artifact.read(tmp_path)
    assert isinstance(damage, str) or "was changed" not in str(caught.value)
    assert "\n" not in str(caught.value)
