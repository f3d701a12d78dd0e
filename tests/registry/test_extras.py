"""A technique whose extra is not installed names the line that installs it."""

import pytest

LINE = "pip install 'acme-tools[gpu]'"


@pytest.fixture
def install(site, hook):
    def install(requirement, extra="gpu"):
        site.install(
            "acme-tools",
            hook("observer", "acme", "acme_tools.technique:Acme", extra=extra),
            files={"technique.py": "import not_there_at_all"},
            requires=["attrs", f'{requirement} ; extra == "gpu"'],
            extras=["gpu", "docs"],
        )

    return install


def install_line(site):
    return next(e["install"] for e in site.entries() if e["distribution"] == "acme-tools")


def test_a_missing_extra_is_listed_with_the_line_that_installs_it(site, install):
    install("not-there-at-all>=1")
    assert install_line(site) == LINE
    assert f"needs: {LINE}" in site.micronet("list-plugins").stdout


def test_an_extra_that_is_too_old_counts_as_missing(site, install):
    install("pluggy>=999")
    assert install_line(site) == LINE


def test_an_extra_that_is_installed_needs_no_line(site, install):
    install("pluggy>=1")
    assert install_line(site) is None


def test_a_technique_without_an_extra_needs_no_line(site, install):
    install("not-there-at-all", extra=None)
    assert install_line(site) is None


def test_using_a_technique_whose_extra_is_missing_names_the_line(site, install):
    install("not-there-at-all>=1")
    done = site.micronet("show", "observer", "acme")
    assert done.returncode == 2
    assert LINE in done.stderr
