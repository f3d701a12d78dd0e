"""Sparse training, pruning and training after it, each command reading what the last one wrote."""

import pytest
import torch

from micronet.compression.checkpoint import build

DIGITS = ("--dataset", "digits", "--cpu")


@pytest.fixture(scope="module")
def sparse(floats):
    done = floats.trains(
        "pruning.main", "-sr", "--s", 0.01, "--model_type", 0, "--refine", "models_save/nin.pth",
        "--lr", 0.05, epochs=2,
    )  # fmt: skip
    assert done.out.splitlines()[-1] == "models_save/nin_sparse.pth is written"
    return floats


@pytest.fixture(scope="module")
def pruned(sparse):
    done = sparse.measures(
        "pruning.normal_regular_prune", "--percent", 0.5, "--model", "models_save/nin_sparse.pth",
        "--save", "models_save/nin_prune.pth",
    )  # fmt: skip
    assert "before" in done.out
    return sparse


def gammas(checkpoint):
    return torch.cat([w for name, w in checkpoint.state_dict.items() if name.endswith("bn.weight")])


def test_the_file_holds_plain_types_and_the_best_epoch(floats):
    content = torch.load(floats.path / "models_save/nin.pth", weights_only=True)
    assert content.keys() == {"state_dict", "model", "cfg", "acc", "quantizer"}
    assert (content["model"], content["cfg"], content["quantizer"]) == ("nin", [8] * 8, None)
    assert 0 < content["acc"] <= 1


def test_sparse_training_pulls_gammas_to_zero(sparse):
    assert (
        gammas(sparse.saved("nin_sparse.pth")).abs().mean()
        < gammas(sparse.saved("nin.pth")).abs().mean() - 0.005
    )


def test_half_of_the_channels_are_removed(pruned):
    cfg = pruned.saved("nin_prune.pth").cfg
    assert sum(cfg) == 32
    assert min(cfg) >= 1


def test_a_pruned_network_is_trained_on_with_its_channels(pruned):
    pruned.trains("pruning.main", "--model_type", 0, "--prune_refine", "models_save/nin_prune.pth")
    finetuned = pruned.saved("nin_finetune.pth")
    assert finetuned.cfg == pruned.saved("nin_prune.pth").cfg
    finetuned.float_model()


def test_group_convolutions_are_retrained_with_the_channels_that_are_given(floats):
    cfg = (16, 16, 16, 32, 16, 32, 32, 16)
    floats.trains("pruning.main", "--model_type", 1, "--gc_prune_refine", *cfg)
    assert floats.saved("nin_gc_retrain.pth").cfg == cfg


def test_the_documented_channels_fit_nin_gc():
    build("nin_gc", (154, 162, 144, 304, 320, 320, 608, 584))


def test_without_epochs_the_network_is_measured_and_written(floats):
    done = floats.trains("pruning.main", "--resume", "models_save/nin.pth", epochs=0)
    assert "epoch 0: accuracy" in done.out


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("main", ["--model_type", 1, "--gc_prune_refine", 7], "cfg needs eight channel counts"),
        ("main", ["--refine", "a.pth", "--resume", "b.pth"], "not allowed with argument"),
        ("main", ["--model_type", 1, "--refine", "models_save/nin.pth"], "--model_type 0"),
        ("main", ["--s", "-1"], "'-1' is not a number above 0"),
        ("main", ["--batch_size", "0"], "'0' is not an integer of at least 1"),
        ("main", ["--epoch", "1"], "unrecognized arguments: --epoch"),
        ("normal_regular_prune", ["--model", "models_save/nin_gc.pth"], "this command prunes nin"),
        ("normal_regular_prune", ["--model", "models_save/no.pth"], "There is no models_save/no"),
        ("normal_regular_prune", ["--model", "models_save/nin.pth", "--percent", 2], "percent"),
    ],
)
def test_bad_input_is_said_in_one_sentence(floats, command, flags, words):
    done = floats.run(f"pruning.{command}", *DIGITS, *flags)
    assert done.code == 2
    assert words in done.err
    assert len(done.err.splitlines()) == 1


def test_gc_prune_takes_no_other_network(floats):
    done = floats.run("pruning.gc_prune", *DIGITS, "--model", "models_save/nin.pth")
    assert done.code == 2
    assert "this command prunes nin_gc" in done.err


def test_a_file_that_could_run_code_is_refused(floats):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"state_dict": {}, "evil": Evil()}, floats.path / "evil.pth")
    done = floats.run("pruning.main", *DIGITS, "--resume", "evil.pth")
    assert (done.code, done.out) == (2, "")
    assert "could run code" in done.err
