"""The card of a deployed model."""

import json

from micronet.techniques import Artifact


def test_remarks_are_read_back(tmp_path):
    remarks = ("head stays in float: no kernel.",)
    artifact = Artifact(tmp_path, "any", "model.bin", (1, 3, 8, 8), "any 1", remarks=remarks)
    artifact.write_card()
    assert Artifact.read(tmp_path) == artifact


def test_a_card_from_before_there_were_remarks_is_read(tmp_path):
    card = {"backend": "any", "file": "f", "input_shape": [1, 3, 8, 8], "engine": "any 1"}
    (tmp_path / "artifact.json").write_text(json.dumps(card))
    assert Artifact.read(tmp_path).remarks == ()


def test_every_file_that_the_engine_reads_counts(tmp_path):
    (tmp_path / "model.xml").write_bytes(b"12")
    (tmp_path / "model.bin").write_bytes(b"345")
    (tmp_path / "notes.txt").write_bytes(b"not the engine's")
    shape = (1, 3, 8, 8)
    artifact = Artifact(tmp_path, "any", "model.xml", shape, "any 1", more_files=("model.bin",))
    assert artifact.size_bytes == 5
    artifact.write_card()
    assert Artifact.read(tmp_path) == artifact
