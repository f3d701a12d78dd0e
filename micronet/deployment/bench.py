"""Latency and throughput of a deployed model, beside the float model's; without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import attrs

from micronet.deployment.batches import batch_of
from micronet.deployment.engine import load_engine
from micronet.deployment.timing import Timing, time_calls
from micronet.errors import DeployError, MicronetError, describe_error
from micronet.techniques import Artifact
from micronet.techniques.deploy_backend import FLOAT

_SECONDS = 10
_ROUNDS = 20, 1000
"""At least and at most."""


@attrs.frozen
class Latency:
    """Of one call.

    Args:
        p50_ms, p90_ms, p99_ms: Milliseconds that half, 90% and 99% of the calls did not exceed.
        images_per_second: Images over the time of all calls.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float


@attrs.frozen
class Bench:
    """An engine's latency.

    Args:
        artifact: Its folder.
        engine: Name and version of what wrote it.
        batch: Images in a call; `None` where the model takes no batch.
        inputs: Name and type of each input, as in `image: float32 [batch, 3, 224, 224]`.
        outputs: The same of each output.
        threads: Threads of the engine; `None` where it chose.
        rounds: Calls that were timed, after some to warm up.
        latency: Of the deployed model.
        float_latency: Of the float model on the same engine, its calls between those; `None` if
            the folder holds none.
        speedup: Median of the float model over that of the deployed one.
        waiting, disturbed: As `micronet.deployment.timing.Timing` has them.
        remarks: What a user should hear, a sentence each.
    """

    artifact: str
    engine: str
    batch: int | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int | None
    rounds: int
    latency: Latency
    float_latency: Latency | None
    speedup: float | None
    waiting: float
    disturbed: bool
    remarks: tuple[str, ...]


def bench(directory: Path | str, *, threads: int | None = None, batch: int = 1) -> Bench:
    """Times a deployed model on noise, for about ten seconds.

    Args:
        directory: The artifact's folder, with that of the float model in it if there is one.
        threads: Threads of the engine; `None` lets it choose.
        batch: Images in a call, 1 or more; of no effect on a model whose batch is fixed.

    Raises:
        DeployError: There is no artifact, or its engine does not run here.
    """
    directory = Path(directory)
    artifact = Artifact.read(directory)
    artifacts = [artifact]
    if (directory / FLOAT).is_dir():
        artifacts.append(Artifact.read(directory / FLOAT))
    signature = artifact.signature
    inputs = signature.noise(batch=batch)
    images = batch_of(signature, inputs)
    if images is None:
        images = next((spec.example[0] for spec in signature.input_specs if spec.example), None)
    runners = [load_engine(each, threads=threads) for each in artifacts]
    calls = [partial(runner.run, inputs) for runner in runners]
    try:
        timing = time_calls(calls, rounds=_rounds(calls))
    except MicronetError:
        raise
    except Exception as error:  # each engine has exceptions of its own
        shapes = "; ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise DeployError(f"{directory} fails on {shapes}: {describe_error(error)}.") from error
    latencies = [_latency(timing, call, images or 1) for call in range(len(calls))]
    float_latency = latencies[1] if len(latencies) > 1 else None
    return Bench(
        str(directory),
        artifact.engine,
        images,
        tuple(f"{spec.name}: {spec}" for spec in signature.input_specs),
        tuple(f"{spec.name}: {spec}" for spec in signature.output_specs),
        threads,
        len(timing.times[0]),
        latencies[0],
        float_latency,
        float_latency.p50_ms / latencies[0].p50_ms if float_latency else None,
        timing.waiting,
        timing.disturbed,
        (timing.warning,) if timing.disturbed else (),
    )


def _rounds(calls: Sequence[Callable[[], object]]) -> int:
    """As many as the time allows; the first calls for a shape may still be setting up."""
    for call in [*calls, *calls]:
        call()
    start = time.perf_counter()
    for call in calls:
        call()
    fewest, most = _ROUNDS
    return min(max(int(_SECONDS / (time.perf_counter() - start)), fewest), most)


def _latency(timing: Timing, call: int, batch: int) -> Latency:
    milliseconds = timing.times[call]
    return Latency(
        timing.percentile(call, 50),
        timing.percentile(call, 90),
        timing.percentile(call, 99),
        batch * len(milliseconds) / sum(milliseconds) * 1e3,
    )
