"""What a run would lose, or do in vain, is a sentence before any work; validate says the same."""

import pytest
import torch
from safetensors.torch import load_file

OWN = """
import torch
from torch import nn
from tiny import model


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


class Average(Net):
    '''Its running mean is no part of the state_dict.'''

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8), persistent=False)

    def forward(self, x):
        x = self.conv(x).relu().mean((2, 3))
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.head(x - self.mean)


class Attribute(Net):
    seen = 0

    def forward(self, x):
        self.seen += self.training
        return super().forward(x) + self.seen


class Cache(Net):
    '''A buffer that its first call fills is made anew by the first call of another.'''

    def __init__(self):
        super().__init__()
        self.register_buffer("grid", torch.zeros(0), persistent=False)

    def forward(self, x):
        if self.grid.shape != x.shape[2:]:
            self.grid = torch.ones(x.shape[2:])
        return super().forward(x * self.grid)


class Extra(Net):
    kind = dict

    def __init__(self):
        super().__init__()
        self.state = {"steps": 0}

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


class ExtraTensor(Extra):
    def __init__(self):
        super().__init__()
        self.state = torch.zeros(())

    def forward(self, x):
        self.state = self.state + int(self.training)
        return super().forward(x) + self.state / 100


class Pair(Net):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)


def frozen():
    return Net().requires_grad_(False)


def frozen_norms():
    made = model()
    made[1].requires_grad_(False), made[5].requires_grad_(False)
    return made
"""
TRAIN = {"train": {"epochs": 2, "batch_size": 32}}
SPARSE = [{"train": {"sparsity": 1e-4}}, {"prune": {"pruner": "normal"}}]
CASES = {
    "a hidden buffer": ("Average", [TRAIN], 1, "changes its buffer 'mean' in training"),
    "a plain attribute": ("Attribute", [TRAIN], 1, "something that training changes outside of"),
    "extra state": ("Extra", ["evaluate"], 1, "keeps '_extra_state' in its state_dict, a dict"),
    "two outputs in training": ("Pair", [TRAIN], 1, "must give logits [batch, classes] in train"),
    "nothing to train": ("frozen", [TRAIN], 4, "has no parameter that requires a gradient"),
    "no norm for sparsity": ("Net", SPARSE, 5, "no batch norm"),
    "no gamma that is trained": ("frozen_norms", SPARSE, 5, "sparsity would change nothing"),
    "no norm to calibrate": ("Net", [SPARSE[1], "calibrate"], 6, "calibrate has nothing to do"),
}


@pytest.fixture
def own(project):
    (project.folder / "own.py").write_text(OWN, "utf-8")
    return project


@pytest.mark.parametrize("case", CASES)
def test_what_would_be_lost_or_in_vain_is_refused_before_any_work(own, case):
    model, steps, line, reason = CASES[case]
    own.write_recipe(*steps, model=f"own:{model}")

    validated, run = own.micronet("validate", "tiny.yaml"), own.run()

    assert (validated.returncode, run.returncode) == (2, 2)
    assert validated.stderr.startswith(f"micronet: tiny.yaml:{line}: ")
    assert reason in validated.stderr
    assert reason in run.stderr
    assert len(validated.stderr.splitlines()) == len(run.stderr.splitlines()) - 1 == 1
    assert not list(own.out.rglob("*.safetensors"))


@pytest.mark.parametrize("model", ["Cache", "ExtraTensor"])
def test_what_another_model_gets_too_is_let_through(own, model):
    own.write_recipe(TRAIN, "evaluate", model=f"own:{model}")
    assert own.micronet("validate", "tiny.yaml").returncode == 0
    assert own.run().returncode == 0
    assert len({row["accuracy"] for row in own.rows()}) == 1
    whole = own.weights()
    assert own.run("--fresh", MISHAP="killed", MISHAP_AT="after 01-train.epoch.pt 1").returncode
    assert own.run().returncode == 0
    assert own.weights() == whole


def test_extra_state_that_is_a_tensor_is_kept(own):
    own.write_recipe(TRAIN, model="own:ExtraTensor")
    assert own.run().returncode == 0
    state = load_file(own.out / "steps" / "01-train.safetensors")
    assert torch.equal(state["_extra_state"], torch.tensor(16.0))


def test_registered_models_are_asked_too(project):
    project.write_recipe(*SPARSE, model="torchvision/squeezenet1_1", data="digits")
    done = project.micronet("validate", "tiny.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("micronet: tiny.yaml:5: ")


def test_a_frozen_model_is_quantized_without_training(own):
    own.write_recipe(
        "evaluate", {"quantize": {"quantizer": "iao"}}, "calibrate", model="own:frozen"
    )
    done = own.run()
    assert done.returncode == 0, done.stderr


def test_training_a_frozen_model_behind_a_quantizer_is_a_sentence(own):
    own.write_recipe({"quantize": {"quantizer": "iao"}}, TRAIN, model="own:frozen")
    done = own.run()
    assert done.returncode == 2
    assert "Step 02-train: The model has no parameter that requires a gradient" in done.stderr
