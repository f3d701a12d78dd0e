"""The documented chains from sparse training to a pruned, quantized network, each command in its
own script's folder and with the file names as written.
"""

import pytest
import torch

from micronet.compression.checkpoint import Checkpoint, build

CFG = {"nin": (16, 12, 20, 16, 16, 18, 16, 16), "nin_gc": (16, 16, 32, 32, 32, 64, 64, 32)}
NIN, NIN_GC = "models_save/nin_finetune.pth", "models_save/nin_gc_retrain.pth"


@pytest.fixture(scope="module")
def sparse(folder):
    """The folder of the pruning commands, with both networks trained sparse."""
    here = folder("pruning")
    for model_type, (name, cfg) in enumerate(CFG.items()):
        torch.manual_seed(0)
        path = here.path / "models_save" / f"{name}.pth"
        Checkpoint(path, build(name, cfg).state_dict(), name, cfg).save()
        here.trains(
            "pruning.main", "-sr", "--s", 0.001, "--model_type", model_type, "--refine",
            f"models_save/{name}.pth", "--lr", 0.05,
        )  # fmt: skip
    return here


@pytest.fixture(scope="module")
def finetuned(sparse):
    """Pruned to multiples of eight, and trained on."""
    done = sparse.measures(
        "pruning.normal_regular_prune", "--percent", 0.5, "--normal_regular", 8, "--model",
        "models_save/nin_sparse.pth", "--save", "models_save/nin_prune.pth",
    )  # fmt: skip
    cfg = sparse.saved("nin_prune.pth").cfg
    assert f"channels {' '.join(map(str, cfg))}" in done.out
    assert set(cfg) <= {8, 16}
    assert sum(cfg) < sum(CFG["nin"])
    sparse.trains("pruning.main", "--model_type", 0, "--prune_refine", "models_save/nin_prune.pth")
    assert sparse.saved("nin_finetune.pth").cfg == cfg
    return sparse


@pytest.fixture(scope="module")
def retrained(sparse):
    """A network with group convolutions, trained anew with the channels that gc_prune found."""
    done = sparse.measures(
        "pruning.gc_prune", "--percent", 0.4, "--model", "models_save/nin_gc_sparse.pth"
    )
    (line,) = [line for line in done.out.splitlines() if line.startswith("channels ")]
    channels = line.split()[1:]
    assert sum(map(int, channels)) < sum(CFG["nin_gc"])
    sparse.saved("nin_gc_prune.pth").float_model()
    sparse.trains("pruning.main", "--model_type", 1, "--gc_prune_refine", *channels)
    assert sparse.saved("nin_gc_retrain.pth").cfg == tuple(map(int, channels))
    return sparse


def test_binary_and_ternary_weights_after_pruning(folder, finetuned, retrained):
    here = folder("quantization/wbwtab")
    here.trains(
        "quantization.wbwtab.main", "--W", 2, "--A", 2, "--model_type", 0, "--prune_quant",
        f"../../pruning/{NIN}",
    )  # fmt: skip
    here.trains(
        "quantization.wbwtab.main", "--W", 3, "--A", 2, "--model_type", 1, "--prune_quant",
        f"../../pruning/{NIN_GC}",
    )  # fmt: skip
    assert here.saved("nin.pth").cfg == finetuned.saved("nin_finetune.pth").cfg
    assert here.saved("nin_gc.pth").cfg == retrained.saved("nin_gc_retrain.pth").cfg
    bn_fuse = folder("quantization/wbwtab/bn_fuse")
    for model_type, w in ((0, 2), (1, 3)):
        line = ("--model_type", model_type, "--prune_quant", "--W", w)
        assert bn_fuse.run("quantization.wbwtab.bn_fuse.bn_fuse", *line).code == 0
        bn_fuse.measures("quantization.wbwtab.bn_fuse.bn_fused_model_test")


def test_dorefa_after_pruning(folder, finetuned):
    widths = ("--w_bits", 8, "--a_bits", 8)
    folder("quantization/wqaq/dorefa").trains(
        "quantization.wqaq.dorefa.main", *widths, "--model_type", 0, "--prune_quant",
        f"../../../pruning/{NIN}",
    )  # fmt: skip
    test = folder("quantization/wqaq/dorefa/quant_model_test")
    command = "quantization.wqaq.dorefa.quant_model_test"
    line = ("--model_type", 0, "--prune_quant", *widths)
    assert test.run(f"{command}.quant_model_para", *line).code == 0
    test.measures(f"{command}.quant_model_test")


@pytest.mark.parametrize("calibrate", [False, True], ids=["QAT", "PTQ"])
def test_integers_after_pruning_and_qaft_after_that(folder, finetuned, calibrate):
    here, common = folder("quantization/wqaq/iao"), ("--model_type", 0, "--bn_fuse")
    ptq = ("--pretrained_model", "--ptq_control", "--ptq", "--ptq_batch", 4) if calibrate else ()
    here.trains(
        "quantization.wqaq.iao.main", "--prune_quant", f"../../../pruning/{NIN}", *common, *ptq
    )
    here.trains(
        "quantization.wqaq.iao.main", "--prune_qaft", "models_save/nin_bn_fused.pth", *common,
        "--qaft", "--lr", 1e-5, *(("--ptq",) if calibrate else ()),
    )  # fmt: skip
    bn_fuse = folder("quantization/wqaq/iao/bn_fuse")
    line = ("--model_type", 0, "--prune_quant", "--w_bits", 8, "--a_bits", 8)
    done = bn_fuse.run("quantization.wqaq.iao.bn_fuse.bn_fuse", *line)
    assert done.code == 0, done.err
    bn_fuse.measures("quantization.wqaq.iao.bn_fuse.bn_fused_model_test")
