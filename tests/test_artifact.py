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
