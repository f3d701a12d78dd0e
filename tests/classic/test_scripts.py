"""The commands as files run from their own folders, and on several cards."""

import os
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

import micronet
from micronet.compression import cards
from micronet.errors import RunError

HOME = Path(micronet.__file__).parent / "compression"
SCRIPTS = [
    "pruning/main.py",
    "pruning/normal_regular_prune.py",
    "pruning/gc_prune.py",
    "quantization/wbwtab/main.py",
    "quantization/wbwtab/bn_fuse/bn_fuse.py",
    "quantization/wbwtab/bn_fuse/bn_fused_model_test.py",
    "quantization/wqaq/dorefa/main.py",
    "quantization/wqaq/dorefa/quant_model_test/quant_model_para.py",
    "quantization/wqaq/dorefa/quant_model_test/quant_model_test.py",
    "quantization/wqaq/iao/main.py",
    "quantization/wqaq/iao/bn_fuse/bn_fuse.py",
    "quantization/wqaq/iao/bn_fuse/bn_fused_model_test.py",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_explains_itself(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(HOME / script), run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {Path(script).name}")


def test_a_script_runs_from_its_own_folder():
    done = subprocess.run(
        [sys.executable, "main.py", "--qaft"],
        cwd=HOME / "quantization/wqaq/iao",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("main.py: --qaft goes on with")
    assert done.stderr.count("\n") == 1


def flags(**given):
    return Namespace(**{"cpu": False, "gpu_id": "", **given})


@pytest.fixture
def four_cards(monkeypatch):
    """A machine with four cards; those that are not hidden are counted."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")

    def visible():
        named = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return sum(int(card) < 4 for card in named)

    monkeypatch.setattr(torch.cuda, "device_count", visible)


@pytest.mark.parametrize(("given", "count"), [("", 4), ("0", 1), ("0,1,2", 3)])
def test_one_process_runs_on_each_card_that_is_named(four_cards, given, count):
    assert cards.processes(flags(gpu_id=given)) == count


def test_the_cpu_and_a_launched_process_need_no_other(four_cards, monkeypatch):
    assert cards.processes(flags(cpu=True, gpu_id="0,1")) == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cards.processes(flags(gpu_id="0,1")) == 1


@pytest.mark.parametrize(("given", "words"), [("7", "no card"), ("one", "numbers of cards")])
def test_a_card_that_is_not_there_is_refused(four_cards, given, words):
    with pytest.raises(RunError, match=words):
        cards.choose(flags(gpu_id=given))


def test_two_processes_train_one_model(tmp_path, floats):
    source = floats.path / "models_save/nin.pth"
    line = ["--dataset", "digits", "--cpu", "--num_workers", "0", "--epochs", "1", "--batch_size",
            "128", "--refine", str(source), "--W", "3"]  # fmt: skip
    script = HOME / "quantization/wbwtab/main.py"
    code = f"""
import os, sys
from micronet.compression import cards
os.chdir({str(tmp_path)!r})
sys.exit(cards.launch({str(script)!r}, {line!r}, 2))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1: accuracy") == 1
    assert (tmp_path / "models_save/nin.pth").is_file()
