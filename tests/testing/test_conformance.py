"""Our own techniques keep the contracts of the conformance kit."""

from micronet.registry import create
from micronet.testing import check_quantizer, every


@every("quantizer")
def test_quantizers(contract, case):
    contract.verify(case)


def test_wbwtab_with_8_bit_ends():
    check_quantizer(create("quantizer", "wbwtab", first_and_last="int8"))


@every(
    "observer",
    expected_failures={
        "moving_average": {
            "forgets_at_restart": "of a weight it averages over the steps of a training, as the "
            "classic weight_observer=1 does"
        }
    },
)
def test_observers(contract, case):
    contract.verify(case)


@every("pruner", options={name: {"percent": 0.4} for name in ("normal", "regular", "gc")})
def test_pruners(contract, case):
    contract.verify(case)


@every("fuser")
def test_fusers(contract, case):
    contract.verify(case)


@every("deploy_backend")
def test_deploy_backends(contract, case):
    contract.verify(case)
