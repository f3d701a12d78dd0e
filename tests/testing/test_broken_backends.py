"""Each contract of deploy backends, broken by one that is made to break it."""

import attrs
import numpy as np
import pytest
from broken import broken

from micronet import registry
from micronet.techniques import Runner, Scheme
from micronet.testing import (
    BACKEND,
    OBSERVER,
    DeployBackendCase,
    ObserverCase,
)

OnnxRuntime = registry.get("deploy_backend", "onnxruntime")


class Wrapped(Runner):
    def __init__(self, runner):
        super().__init__(runner.signature)
        self.runner = runner
        self.outputs = None

    def run(self, inputs):
        return self.runner.run(inputs)


def running(**changes):
    class Broken(OnnxRuntime):
        def start(self, artifact, *, threads):
            return type("Changed", (Wrapped,), changes)(super().start(artifact, threads=threads))

    return Broken()


def fixed_batch(self, inputs):
    assert len(inputs["input"]) == 2
    return self.runner.run(inputs)


def reused(self, inputs):
    (outputs,) = self.runner.run(inputs)
    if self.outputs is None:
        self.outputs = outputs
    count = min(len(outputs), len(self.outputs))
    self.outputs[:count] = outputs[:count]
    return [self.outputs]


def reversed_classes(self, inputs):
    return [outputs[:, ::-1].copy() for outputs in self.runner.run(inputs)]


def the_first_alone(self, *inputs):
    return self.run(self.signature.arrays(inputs))[0]


def unchecked(self, *inputs):
    return self.signature.structured(self.run({"input": inputs[0].astype(np.float32)}))


class Silent(OnnxRuntime):
    def available(self):
        return "no"


class RefusesItself(OnnxRuntime):
    fast = Scheme(a_symmetric=True)

    def unsuitable(self, scheme):
        return "It runs asymmetric activations alone." if scheme.a_symmetric else None


class PathsOnly(OnnxRuntime):
    def export(self, model, example_inputs, directory, *, dynamic=("batch",)):
        directory.mkdir()
        return super().export(model, example_inputs, directory, dynamic=dynamic)


class WithoutCard(OnnxRuntime):
    def export(self, model, example_inputs, directory, *, dynamic=("batch",)):
        made = super().export(model, example_inputs, directory, dynamic=dynamic)
        return attrs.evolve(made, settings={"where": str(directory)})


class TrainsTheModel(OnnxRuntime):
    def export(self, model, example_inputs, directory, *, dynamic=("batch",)):
        made = super().export(model, example_inputs, directory, dynamic=dynamic)
        model.train()(example_inputs[0])
        return made


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("says_what_is_missing", Silent()),
        ("runs_what_it_is_fast_with", RefusesItself()),
        ("moves", WithoutCard()),
        ("agrees_at_any_batch_size", running(run=fixed_batch)),
        ("agrees_on_integers", running(run=reversed_classes)),
        ("leaves_the_given_model_as_it_was", TrainsTheModel()),
        (
            "takes_several_inputs_and_gives_all_outputs",
            running(__call__=the_first_alone),
        ),
        ("refuses_what_does_not_fit", running(__call__=unchecked)),
        ("takes_paths_in_text", PathsOnly()),
        ("keeps_calls_apart", running(run=reused)),
    ],
)
def test_a_broken_backend_is_told(name, backend):
    broken(BACKEND, DeployBackendCase(backend), name)


def test_a_technique_that_imports_torch_is_told(tmp_path, monkeypatch):
    (tmp_path / "heavy_observer.py").write_text(
        "import attrs, torch\n"
        "from micronet.techniques import Observer\n"
        "@attrs.frozen\n"
        "class Heavy(Observer):\n"
        "    def build(self, axis=None, *, grid=None): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import heavy_observer

    said = broken(OBSERVER, ObserverCase(heavy_observer.Heavy()), "loads_without_torch")
    assert "it imports torch" in said


def test_a_backend_whose_engine_needs_torch_is_told(tmp_path, monkeypatch):
    (tmp_path / "torch_backend.py").write_text(
        "from micronet import registry\n"
        "class Heavy(registry.get('deploy_backend', 'onnxruntime')):\n"
        "    def load(self, artifact, *, threads=None):\n"
        "        import torch\n"
        "        return super().load(artifact, threads=threads)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import torch_backend

    said = broken(BACKEND, DeployBackendCase(torch_backend.Heavy()), "runs_without_torch")
    assert "torch" in said
