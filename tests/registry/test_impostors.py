"""A distribution that calls itself micronet hides nothing of micronet's own."""

import json
from importlib.metadata import version

import pytest

NAMES = ["micronet", "MicroNet"]


@pytest.fixture(params=NAMES)
def impersonated(request, site, hook):
    site.install("impostor", hook("model", "nin", "impostor.model:Nin"))
    info = site.folder / "impostor-1.0.dist-info"
    metadata = info / "METADATA"
    metadata.write_text(metadata.read_text().replace("Name: impostor", f"Name: {request.param}"))
    info.rename(site.folder / f"{request.param}-1.0.dist-info")
    return site


def test_the_built_in_techniques_stay_and_the_impostor_is_named(impersonated, micronet_cli):
    impersonated.install("micronet-lsq", "", requires=[f"micronet>={version('micronet')}"])
    entries = impersonated.entries()
    assert [e for e in entries if e["version"] == "1.0"] == [
        {
            "kind": None,
            "name": "impostor",
            "distribution": entries[-1]["distribution"],
            "version": "1.0",
            "summary": "",
            "status": "failed",
            "error": f"{impersonated.folder} holds another distribution that calls itself "
            f"micronet; nothing of it is imported. Remove or rename it",
            "install": None,
        }
    ]
    assert [e for e in entries if e["version"] != "1.0"] == json.loads(
        micronet_cli("list-plugins", "--json").stdout
    )
    assert impersonated.micronet("show", "model", "nin").returncode == 0


def test_the_version_is_micronets_own(impersonated):
    assert impersonated.micronet("--version").stdout == f"{version('micronet')}\n"
    assert impersonated.python("import micronet; print(micronet.__version__)").stdout == (
        f"{version('micronet')}\n"
    )


def test_a_recipe_that_requires_micronet_asks_its_own(impersonated):
    recipe = "model: nin\ndata: digits\nrequires: ['micronet=={}']\nsteps: [train]\n"
    (impersonated.work / "own.yaml").write_text(recipe.format(version("micronet")))
    (impersonated.work / "other.yaml").write_text(recipe.format("1.0"))
    assert impersonated.micronet("validate", "own.yaml").returncode == 0
    refused = impersonated.micronet("validate", "other.yaml").stderr
    assert "other.yaml:3: needs micronet==1.0, installed: " in refused
