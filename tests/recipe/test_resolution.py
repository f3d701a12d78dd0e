"""Whatever can be refused is refused before any work: orders, files, callables, distributions."""

import sys
from importlib.metadata import version

import pytest

from micronet.errors import RecipeError
from micronet.recipe import (
    Calibrate,
    Deploy,
    Evaluate,
    Freeze,
    Fuse,
    Named,
    Prune,
    Quantize,
    Recipe,
    Train,
)
from micronet.recipe.file import read
from micronet.recipe.resolution import resolve

PRUNE, QUANTIZE, SPARSE = Prune("normal"), Quantize("iao"), Train(sparsity=1e-4)


def recipe(*steps, **others):
    return Recipe(**{"model": "nin", "data": "digits", "steps": steps, **others})


def refusal(*steps, **others):
    with pytest.raises(RecipeError) as caught:
        resolve(recipe(*steps, **others))
    return str(caught.value)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([QUANTIZE, Train(), PRUNE], "steps.2.prune: prune must come before quantize"),
        ([Fuse(), PRUNE], "steps.1.prune: prune must come before fuse"),
        ([QUANTIZE, Train(), QUANTIZE], "steps.2.quantize: the model is quantized already"),
        ([Calibrate(), QUANTIZE], "steps.0.calibrate: calibrate needs a quantize or a prune"),
        ([Train(), Freeze()], "steps.1.freeze: freeze needs a quantize step before it"),
        ([QUANTIZE, Freeze()], "steps.1.freeze: freeze needs a quantize step before it, and after"),
        ([QUANTIZE, Evaluate()], "steps.1.evaluate: evaluate needs a train or calibrate step"),
        ([QUANTIZE, Deploy()], "steps.1.deploy: deploy needs a train or calibrate step"),
        ([QUANTIZE, Fuse(), Deploy()], "steps.2.deploy: deploy needs a train or calibrate step"),
        ([SPARSE], "steps.0.train.sparsity: sparsity prepares pruning, and no prune step follows"),
        ([PRUNE, SPARSE], "steps.1.train.sparsity: sparsity prepares pruning"),
        ([Fuse(), Fuse()], "steps.1.fuse: that fuser has fused the model already"),
        ([Quantize("wbwtab"), Calibrate()], "steps.1.calibrate: calibrate has nothing to do"),
        ([SPARSE, PRUNE, SPARSE], "steps.2.train.sparsity: sparsity prepares pruning"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_the_step_and_the_reason(steps, message):
    assert refusal(*steps).startswith(message)


@pytest.mark.parametrize(
    "steps",
    [
        [Train()],
        [Evaluate()],
        [Deploy()],
        [SPARSE, PRUNE, Train(), QUANTIZE, Train(), Freeze(), Train(), Fuse(), Deploy()],
        [QUANTIZE, Calibrate(), Evaluate(), Deploy()],
        [Train(), Fuse(), QUANTIZE, Calibrate(), Deploy()],
        [PRUNE, PRUNE, Fuse(), Evaluate()],
        [SPARSE, SPARSE, PRUNE],
        [QUANTIZE, Calibrate(), Freeze(), Train(), Evaluate()],
    ],
)
def test_an_order_that_makes_sense_is_taken(steps):
    assert len(resolve(recipe(*steps)).techniques) == len(steps)


def test_a_recipe_without_steps_is_refused_in_python_too():
    assert "steps" in refusal()


def test_an_order_is_refused_at_its_line(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "model: nin\ndata: digits\nsteps:\n  - quantize: {quantizer: iao}\n  - deploy\n"
    )
    loaded, source = read(str(tmp_path / "r.yaml"))
    with pytest.raises(RecipeError, match=r"r\.yaml:5: deploy needs a train or calibrate step"):
        resolve(loaded, source)


def test_each_step_gets_its_technique_with_its_options():
    resolved = resolve(recipe(Train(), Prune("normal", {"percent": 0.3}), Deploy()))
    nothing, pruner, backend = resolved.techniques
    assert nothing is None
    assert pruner.percent == 0.3
    assert backend.available() is None


def test_the_resolved_recipe_has_every_option_written_out():
    resolved = resolve(recipe(Quantize("iao", {"w_bits": 4}), Train())).recipe
    options = resolved.steps[0].options
    assert (options["w_bits"], options["a_bits"]) == (4, 8)
    assert resolved.model.options["num_classes"] == 10


def test_the_distribution_before_a_name_is_not_taken_for_a_module():
    resolved = resolve(recipe(Train(), model="micronet:nin", data="micronet:digits"))
    assert resolved.recipe.model.options["num_classes"] == 10


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Quantize("ioa"), "steps.0.quantize.quantizer: There is no quantizer 'ioa'. Did you mean"),
        (Quantize("iao", {"w_bits": 1}), "steps.0.quantize.w_bits: quantizer 'iao': w_bits must"),
        (Quantize("iao", {"name": 1}), "steps.0.quantize.name: quantizer 'iao' has no option"),
        (Quantize("iao", {"a_observer": "entropi"}), "steps.0.quantize.quantizer: There is no obs"),
        (Deploy("tensort"), "steps.0.deploy.backend: There is no deploy_backend 'tensort'"),
    ],
)
def test_a_recipe_in_python_is_refused_at_the_place_of_the_fault(step, message):
    assert refusal(step).startswith(message)


def test_a_weights_file_that_is_not_there_is_refused():
    assert refusal(Train(), weights="absent.pth") == "weights: there is no file 'absent.pth'."


def test_what_a_model_or_data_set_can_not_be_made_of_is_refused_at_its_line(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "model: {name: nin, cfg: [8, 8]}\n"
        "data: {name: image_folder, root: absent}\n"
        "steps: [train]\n"
    )
    loaded, source = read(str(tmp_path / "r.yaml"))
    with pytest.raises(
        RecipeError, match=r"r\.yaml:1: model 'nin': cfg needs eight channel counts"
    ):
        resolve(loaded, source)
    loaded, source = read(str(tmp_path / "r.yaml"), ["model=nin"])
    with pytest.raises(RecipeError, match=r":\d+: dataset 'image_folder': root must hold a folder"):
        resolve(loaded, source)


def test_a_folder_is_no_weights_file(tmp_path):
    assert "there is no file" in refusal(Train(), weights=str(tmp_path))


def test_a_weights_file_is_looked_for_beside_the_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text("model: nin\ndata: digits\nweights: w.pth\nsteps: [train]\n")
    loaded, source = read(str(tmp_path / "r.yaml"))
    with pytest.raises(RecipeError, match=r"r\.yaml:3: there is no file"):
        resolve(loaded, source)
    (tmp_path / "w.pth").touch()
    assert resolve(loaded, source).weights == tmp_path / "w.pth"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module of the user's in the current folder and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = []

    def make(code):
        name = f"user_code_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(code)
        made.append(name)
        return name

    yield make
    for name in made:
        sys.modules.pop(name, None)


def test_a_users_callable_in_the_current_folder_builds_the_model(module):
    name = module("def net(width=1):\n    return ['net', width]\n")
    resolved = resolve(recipe(Train(), model=Named(f"{name}:net", {"width": 3})))
    assert resolved.build_model() == ["net", 3]
    assert resolved.recipe.model == Named(f"{name}:net", {"width": 3})


def test_a_users_callable_brings_the_data(module):
    name = module("def images():\n    return 'train', 'test'\n")
    assert resolve(recipe(Train(), data=f"{name}:images")).load_data() == ("train", "test")


def test_a_users_callable_is_not_called_before_work_begins(module):
    name = module("def net():\n    raise RuntimeError\n")
    resolve(recipe(Train(), model=f"{name}:net"))


@pytest.mark.parametrize("model", ["absent_module:net", "absent_module.deeper:net"])
def test_a_module_that_is_not_there_is_named(model):
    told = refusal(Train(), model=model)
    assert told.startswith("model: there is no module 'absent_module' on the path")
    assert model in told


def test_a_module_that_the_users_module_lacks_is_named(module):
    name = module("import absent_dependency\ndef net(): ...\n")
    told = refusal(Train(), model=f"{name}:net")
    assert "there is no module 'absent_dependency' on the path" in told
    assert f"{name}:net needs it" in told


def test_an_attribute_that_is_not_there_is_answered_with_the_nearest(module):
    name = module("def small_net(): ...\n")
    told = refusal(Train(), model=f"{name}:smal_net")
    assert told == f"model: {name} has no callable 'smal_net'. Did you mean 'small_net'?"


def test_an_attribute_that_can_not_be_called_is_refused(module):
    name = module("net = 3\n")
    assert f"{name} has no callable 'net'" in refusal(Train(), model=f"{name}:net")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("def (", "SyntaxError"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--x'])", "SystemExit"),
    ],
)
def test_a_module_that_fails_to_import_is_refused_with_its_error(module, code, words):
    name = module(code)
    told = refusal(Train(), data=f"{name}:images")
    assert told.startswith(f"data: importing {name} fails:")
    assert words in told


@pytest.mark.parametrize("model", [":net", "module:", ":", "..relative:net"])
def test_a_callable_that_is_written_wrongly_is_refused(model):
    assert refusal(Train(), model=model).startswith("model: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("micronet-absent>=0.2", "needs micronet-absent>=0.2, installed: not at all; pip install"),
        ("attrs>=999", f"needs attrs>=999, installed: {version('attrs')}; pip"),
        ("attrs==", "'attrs==' is no requirement such as 'name>=1.0'"),
        ("", "'' is no requirement such as 'name>=1.0'"),
        ("micronet>=99", f"needs micronet>=99, installed: {version('micronet')}"),
    ],
)
def test_a_requirement_that_is_not_met_is_refused_first(line, message):
    told = refusal(Quantize("absent"), requires=["pluggy", line])
    assert told.startswith(f"requires.1: {message}")


def test_a_requirement_is_refused_at_its_line(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "model: nin\ndata: digits\nrequires:\n  - pluggy\n  - attrs>=999\nsteps: [train]\n"
    )
    loaded, source = read(str(tmp_path / "r.yaml"))
    with pytest.raises(RecipeError, match=r"r\.yaml:5: needs attrs>=999"):
        resolve(loaded, source)


@pytest.mark.parametrize("line", ["attrs", "attrs>=20", "micronet>=2.0.0.dev0", "PyYAML>=5"])
def test_a_requirement_that_is_met_is_taken(line):
    resolve(recipe(Train(), requires=[line]))


def test_a_scheme_that_the_engine_is_not_fast_with_gets_a_remark():
    quantize = Quantize("iao", {"w_bits": 16})
    (remark,) = resolve(recipe(quantize, Train(), Deploy())).remarks
    assert "onnxruntime is fast with symmetric 8-bit weights" in remark
    assert "; this recipe quantizes to symmetric 16-bit weights" in remark


@pytest.mark.parametrize("quantize", [QUANTIZE, Quantize("iao", {"w_bits": 4, "a_bits": 6})])
def test_what_runs_on_the_kernels_that_the_engine_is_fast_with_gets_none(quantize):
    assert resolve(recipe(quantize, Train(), Deploy())).remarks == ()
