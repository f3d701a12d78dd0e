"""What would otherwise be forgotten when a plugin, a room of the core or a check is added."""

import configparser
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree as ET

import yaml
from importlinter.api import read_configuration

from micronet.hookspecs import ENTRY_POINT_GROUP

ROOT = Path(__file__).parent.parent
PLUGINS = {file.parent.name for file in ROOT.glob("plugins/*/__init__.py")}
CONFIGURATION = read_configuration(str(ROOT / "pyproject.toml"))


def test_every_plugin_is_an_entry_point():
    found = entry_points(group=ENTRY_POINT_GROUP)
    assert {each.value for each in found if each.dist.name == "micronet"} == PLUGINS


def test_every_plugin_is_held_to_the_import_contracts():
    contracts = {contract["type"]: contract for contract in CONFIGURATION["contracts_options"]}
    assert set(CONFIGURATION["session_options"]["root_packages"]) == {"micronet", *PLUGINS}
    assert set(contracts["forbidden"]["forbidden_modules"]) == PLUGINS
    assert set(contracts["independence"]["modules"]) == PLUGINS


def test_pre_commit_runs_commands_of_tox():
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = [hook["entry"] for repository in config["repos"] for hook in repository["hooks"]]
    assert hooks
    assert set(hooks) <= set(tox["testenv"]["commands"].splitlines())


def test_the_picture_of_the_architecture_names_every_room(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    from picture import picture

    lines = picture(CONFIGURATION["session_options"]["root_packages"])
    texts = ET.fromstring("\n".join(lines)).findall(".//{*}text")
    core = [
        *ROOT.glob("micronet/*.py"),
        *(file.parent for file in ROOT.glob("micronet/*/__init__.py")),
    ]
    rooms = {path.stem for path in core if not path.name.startswith("__")}
    named = [name for text in texts for name in text.text.split()]
    assert sorted(named) == sorted([*rooms, *PLUGINS, "micronet", "micronet/", "plugins/"])
