"""Who gets a name when several distributions bring it."""

import json

import pytest


@pytest.fixture
def install(site, hook, quantizer):
    def install(distribution, name, point=None):
        package = distribution.replace("-", "_").lower()
        site.install(
            distribution,
            hook("quantizer", name, f"{package}.technique:Lsq"),
            files={"technique.py": quantizer},
            point=point,
        )

    return install


def shown_distribution(site, name):
    return json.loads(site.micronet("show", "quantizer", name, "--json").stdout)["distribution"]


def test_a_name_that_two_third_parties_bring_is_an_error_that_names_both(site, install):
    install("lsq-one", "lsq")
    install("lsq-two", "lsq")
    done = site.micronet("show", "quantizer", "lsq")
    assert done.returncode == 2
    assert "lsq-one:lsq, lsq-two:lsq" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_distribution_before_the_name_picks_one_of_two(site, install):
    install("lsq-one", "lsq")
    install("lsq-two", "lsq")
    assert shown_distribution(site, "lsq-one:lsq") == "lsq-one"
    assert shown_distribution(site, "lsq-two:lsq") == "lsq-two"


def test_a_recipe_may_pick_one_of_two(site, install):
    install("lsq-one", "lsq")
    install("lsq-two", "lsq")
    (site.work / "mine.yaml").write_text(
        "model: nin\ndata: digits\nsteps:\n  - quantize: {quantizer: 'lsq-two:lsq'}\n  - train\n"
    )
    assert site.micronet("validate", "mine.yaml").returncode == 0
    ambiguous = site.micronet("validate", "mine.yaml", "--set", "steps.0.quantize.quantizer=lsq")
    assert ambiguous.returncode == 2
    assert "lsq-one:lsq, lsq-two:lsq" in ambiguous.stderr


def test_a_shared_name_is_marked_in_the_list(site, install):
    install("lsq-one", "lsq")
    install("lsq-two", "lsq")
    errors = {e["distribution"]: e["error"] for e in site.entries() if e["name"] == "lsq"}
    assert errors == {
        "lsq-one": "lsq-two also has this name; write lsq-one:lsq",
        "lsq-two": "lsq-one also has this name; write lsq-two:lsq",
    }


def test_a_built_in_technique_is_not_shadowed(site, install):
    install("aaa-first", "iao")
    assert shown_distribution(site, "iao") == "micronet"
    assert shown_distribution(site, "micronet:iao") == "micronet"
    assert shown_distribution(site, "aaa-first:iao") == "aaa-first"
    errors = {e["distribution"]: e["error"] for e in site.entries() if e["name"] == "iao"}
    assert errors["micronet"] is None
    assert "aaa-first:iao" in errors["aaa-first"]


def test_two_distributions_with_the_same_entry_point_name_both_load(site, install):
    install("lsq-one", "lsq", point="quant")
    install("lsq-two", "lsq_plus", point="quant")
    assert shown_distribution(site, "lsq") == "lsq-one"
    assert shown_distribution(site, "lsq_plus") == "lsq-two"


def test_a_distribution_is_found_however_its_name_is_spelled(site, install):
    install("Micronet_LSQ", "lsq")
    assert shown_distribution(site, "micronet-lsq:lsq") == "Micronet_LSQ"


def test_an_unknown_distribution_before_a_name_is_an_error(site):
    done = site.micronet("show", "quantizer", "nobody:iao")
    assert done.returncode == 2
    assert "There is no quantizer 'nobody:iao'" in done.stderr
