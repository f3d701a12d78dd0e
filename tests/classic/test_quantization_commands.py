"""The quantizers' command lines, from float files to measured inference files."""

import pytest
import torch

from micronet.compression.checkpoint import Checkpoint
from micronet.compression.quantization.wqaq.iao import quantize as iao
from micronet.models import nin_gc

DIGITS = ("--dataset", "digits", "--cpu")
NIN, NIN_GC = "../pruning/models_save/nin.pth", "../pruning/models_save/nin_gc.pth"
FUSED = "quant_bn_fused_model_inference.pth"
INT8 = ("--lr", 0.002, "--w_bits", 8, "--a_bits", 8)


def percentage(out):
    return [float(word.strip("(%)")) for word in out.split() if word.strip("()").endswith("%")]


@pytest.mark.parametrize(
    ("w", "a", "model_type", "source"),
    [(2, 2, 0, NIN), (3, 2, 1, NIN_GC), (2, 32, 1, NIN_GC), (3, 32, 0, NIN)],
)
def test_wbwtab_trains_fuses_and_measures(folder, floats, w, a, model_type, source):
    here, name = folder("wbwtab"), ("nin", "nin_gc")[model_type]
    values = ("--W", w, "--A", a)
    here.trains(
        "quantization.wbwtab.main", *values, "--model_type", model_type, "--prune_quant", source
    )
    trained = here.saved(f"{name}.pth")
    assert trained.quantizer["weights"] == {2: "binary", 3: "ternary"}[w]
    bn_fuse = folder("wbwtab/bn_fuse")
    command = "quantization.wbwtab.bn_fuse"
    done = bn_fuse.run(f"{command}.bn_fuse", "--model_type", model_type, "--prune_quant", *values)
    assert done.code == 0, done.err
    keys = bn_fuse.saved(FUSED).state_dict
    assert not any(".bn." in key for key in keys)
    done = bn_fuse.measures(f"{command}.bn_fused_model_test")
    after, before = percentage(done.out)
    assert after == pytest.approx(before, abs=0.6)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_dorefa_trains_and_its_quantized_weights_measure_the_same(folder, floats, bits):
    here, test = folder("dorefa"), folder("dorefa/quant_model_test")
    widths = ("--w_bits", bits, "--a_bits", bits)
    here.trains(
        "quantization.wqaq.dorefa.main", *widths, "--model_type", 0, "--prune_quant", NIN,
        "--lr", 0.005,
    )  # fmt: skip
    command = "quantization.wqaq.dorefa.quant_model_test"
    done = test.run(f"{command}.quant_model_para", "--model_type", 0, "--prune_quant", *widths)
    assert done.code == 0, done.err
    after, before = percentage(test.measures(f"{command}.quant_model_test").out)
    assert after == before
    weight = test.saved("quant_model_para.pth").state_dict["model.1.conv.weight"]
    assert len(weight.unique()) <= 2**bits


@pytest.mark.parametrize(
    "flags",
    [
        ("--q_type", 0, "--q_level", 0, "--weight_observer", 0),
        ("--q_type", 1, "--q_level", 1, "--weight_observer", 1),
        ("--q_type", 0, "--q_level", 1, "--weight_observer", 1, "--bn_fuse"),
        ("--q_type", 1, "--q_level", 1, "--bn_fuse", "--bn_fuse_calib"),
        ("--q_type", 1, "--q_level", 0, "--bn_fuse"),
    ],
    ids=lambda flags: "".join(str(flag).removeprefix("--") for flag in flags),
)
def test_iao_trains_fuses_and_measures(folder, floats, flags):
    name = "iao" + "".join(str(flag) for flag in flags)
    here = folder(name)
    here.trains("quantization.wqaq.iao.main", *INT8, *flags, "--refine", NIN)
    file = "nin_bn_fused.pth" if "--bn_fuse" in flags else "nin.pth"
    assert [path.name for path in (here.path / "models_save").iterdir()] == [file]
    bn_fuse = folder(f"{name}/bn_fuse")
    grid = [flag for flag in flags if not str(flag).startswith("--bn_fuse")]
    command = "quantization.wqaq.iao.bn_fuse"
    done = bn_fuse.run(f"{command}.bn_fuse", "--model_type", 0, "--w_bits", 8, "--a_bits", 8, *grid)
    assert done.code == 0, done.err
    assert f"from ../models_save/{file}" in done.out
    after, before = percentage(bn_fuse.measures(f"{command}.bn_fused_model_test").out)
    assert after == pytest.approx(before, abs=0.6)


@pytest.fixture(scope="module")
def calibrated(folder, floats):
    here = folder("ptq")
    here.measures(
        "quantization.wqaq.iao.main", "--refine", NIN, "--q_level", 0, "--bn_fuse",
        "--pretrained_model", "--ptq_control", "--ptq", "--batch_size", 32, "--ptq_batch", 10,
        "--percentile", 0.999999,
    )  # fmt: skip
    return here


def test_ptq_calibrates_without_training(calibrated, floats):
    after, before = calibrated.saved("nin_bn_fused.pth"), floats.saved("nin.pth")
    assert all(
        torch.equal(after.state_dict[key], before.state_dict[key]) for key in before.state_dict
    )
    assert after.acc == pytest.approx(before.acc, abs=0.05)
    assert after.quantizer["a_observer"] == {"name": "percentile", "percentile": 0.999999}


def scales(checkpoint):
    return {key: value for key, value in checkpoint.state_dict.items() if key.endswith(".scale")}


@pytest.mark.parametrize("source", ["--resume", "--prune_qaft"])
def test_qaft_goes_on_from_ptq_on_the_same_grids(folder, calibrated, source):
    here = folder(f"qaft{source}")
    here.trains(
        "quantization.wqaq.iao.main", source, "../ptq/models_save/nin_bn_fused.pth", "--q_type", 0,
        "--q_level", 0, "--bn_fuse", "--qaft", "--lr", 0.00001, "--ptq",
    )  # fmt: skip
    before, after = calibrated.saved("nin_bn_fused.pth"), here.saved("nin_bn_fused.pth")
    assert scales(before).keys() == scales(after).keys()
    for key, scale in scales(before).items():
        assert torch.equal(scales(after)[key], scale)
    changed = [key for key in before.state_dict if key.endswith("conv.weight")]
    assert not torch.equal(after.state_dict[changed[1]], before.state_dict[changed[1]])


def test_training_goes_on_with_a_quantized_model(folder, calibrated):
    here = folder("resumed")
    here.trains(
        "quantization.wqaq.iao.main", "--resume", "../ptq/models_save/nin_bn_fused.pth",
        "--start_epochs", 3, epochs=3,
    )  # fmt: skip
    assert here.saved("nin.pth").quantizer == calibrated.saved("nin_bn_fused.pth").quantizer


def test_a_users_program_loads_what_the_command_wrote(calibrated, floats):
    checkpoint = calibrated.saved("nin_bn_fused.pth")
    model = iao.prepare(checkpoint.skeleton(), bn_fuse=True, ptq=True)
    model.load_state_dict(checkpoint.state_dict)
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--qaft"], "give what QAT or PTQ wrote"),
        (["--qaft", "--refine", NIN], "give what QAT or PTQ wrote"),
        (["--qaft", "--resume", NIN], "nin.pth is a float model"),
        (["--prune_qaft", NIN], "--prune_qaft is for --qaft"),
        (["--refine", "../ptq/models_save/nin_bn_fused.pth"], "quantized already"),
        (
            ["--resume", "../ptq/models_save/nin_bn_fused.pth", "--q_type", 1],
            "quantized with w_symmetric True, and the command line says False",
        ),
        (["--w_bits", 1], "w_bits must be between 2 and 16"),
        (["--q_type", 3], "argument --q_type: invalid choice"),
        (["--ptq", "--percentile", 3, "--refine", NIN], "percentile must be"),
        (["--lr", "inf"], "'inf' is not a number above 0"),
    ],
)
def test_bad_input_is_said_in_one_sentence(folder, calibrated, flags, words):
    done = folder("bad").run("quantization.wqaq.iao.main", *DIGITS, *flags)
    assert done.code == 2
    assert words in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("wbwtab.bn_fuse.bn_fuse", [], "There is no nin_gc.pth"),
        ("wqaq.iao.bn_fuse.bn_fuse", ["--model_type", 0], "no nin_bn_fused.pth or nin.pth"),
        ("wbwtab.bn_fuse.bn_fused_model_test", DIGITS, f"There is no models_save/{FUSED}"),
        ("wqaq.dorefa.main", ["--w_bits", 1, *DIGITS], "use the quantizer 'wbwtab'"),
        ("wbwtab.main", ["--W", 4, *DIGITS], "argument --W: invalid choice"),
    ],
)
def test_what_is_missing_is_named(folder, command, flags, words):
    done = folder("empty").run(f"quantization.{command}", *flags)
    assert done.code == 2
    assert words in done.err


def test_an_empty_list_of_files_is_no_state(folder):
    here = folder("odd")
    here.path.mkdir()
    torch.save([1, 2], here.path / "list.pth")
    done = here.run("quantization.wbwtab.main", *DIGITS, "--refine", "list.pth")
    assert done.code == 2
    assert "holds no state_dict" in done.err


def test_bare_float_weights_are_a_start_too(tmp_path):
    net = nin_gc.Net()
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    loaded = Checkpoint.load(tmp_path / "bare.pth").float_model()
    assert torch.equal(loaded.state_dict()["model.0.conv.weight"], net.model[0].conv.weight)
