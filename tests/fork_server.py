"""Runs `micronet` commands, each in a new process, without importing torch each time.

onnxruntime is no part of it: it starts a thread as it is imported, and a fork would lose that.
Reads one command a line on stdin, as JSON; answers with its exit status, negative for a signal.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from typing import NoReturn

import operator_table

from micronet.cli import main
from micronet.quantization.qdq import OPSET

SLOW_IMPORTS = (
    "micronet.pipeline",
    "onnxscript",
    "torch._dynamo",
    "torch.export._trace",
    "torch.onnx._internal.exporter._core",
)


def become(command: dict) -> None:
    """Makes this process the command's, as if it were started as `python -m micronet`."""
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(command[name], flags), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path[0] = command["folder"]
    sys.argv = ["micronet", *command["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run_and_exit() -> NoReturn:
    """Without taking the interpreter down: that would copy all that was shared with the server."""
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


for module in SLOW_IMPORTS:
    importlib.import_module(module)
operator_table.share()
operator_table.ONNXRegistry.from_torchlib(opset_version=OPSET)
gc.freeze()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        become(json.loads(line))
        run_and_exit()
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
