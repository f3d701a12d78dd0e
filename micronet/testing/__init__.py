"""The conformance kit: what users of a technique rely on, checked on a small network.

    from micronet.testing import check_quantizer

    def test_lsq():
        check_quantizer(LSQ(bits=4))

`every` makes one test of each contract of each registered technique of a kind.
"""

from micronet.testing.contract import Case, Contract, ContractError
from micronet.testing.deploy_backend import BACKEND, DeployBackendCase, check_deploy_backend
from micronet.testing.fuser import FUSER, FuserCase, check_fuser
from micronet.testing.observer import OBSERVER, ObserverCase, check_observer
from micronet.testing.parametrizing import every
from micronet.testing.pruner import PRUNER, PrunerCase, check_pruner
from micronet.testing.quantizer import QUANTIZER, QuantizerCase, check_quantizer
from micronet.testing.task import TASK, TaskCase, check_task

__all__ = [
    "BACKEND",
    "FUSER",
    "OBSERVER",
    "PRUNER",
    "QUANTIZER",
    "TASK",
    "Case",
    "Contract",
    "ContractError",
    "DeployBackendCase",
    "FuserCase",
    "ObserverCase",
    "PrunerCase",
    "QuantizerCase",
    "TaskCase",
    "check_deploy_backend",
    "check_fuser",
    "check_observer",
    "check_pruner",
    "check_quantizer",
    "check_task",
    "every",
]
