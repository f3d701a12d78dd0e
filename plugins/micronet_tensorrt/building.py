"""From an ONNX graph to a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micronet.errors import DataError, DeployError
from micronet.storage.files import read_bytes, write_bytes
from micronet_tensorrt.engine_file import Platform
from micronet_tensorrt.gpu import current, primary_context
from micronet_tensorrt.log import collecting_logger
from micronet_tensorrt.profile import Profile


def build(
    graph: bytes,
    profiles: Mapping[str, Profile],
    platform: Platform,
    *,
    workspace_mb: int | None = None,
) -> bytes:
    """The plan of a graph whose types say what it computes in; takes seconds to minutes.

    Args:
        graph: A serialized ONNX model.
        profiles: Shapes that each input may have, by its name.
        platform: That of this machine.
        workspace_mb: Memory on the GPU that a layer may use to compute, in MiB; `None` for all.

    Raises:
        DeployError: TensorRT refuses the graph, or can't build it.
    """
    import tensorrt as trt

    logger, errors = collecting_logger()
    with current(primary_context()):
        builder = trt.Builder(logger)
        # TensorRT 11 knows no other networks and ignores the flag.
        flag = int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(1 << flag)
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(graph):
            raise DeployError(f"TensorRT can't take the graph: {_parser_errors(parser)}.")
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # float32 is what the graph says
        if workspace_mb is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb * 2**20)
        shapes = builder.create_optimization_profile()
        for tensor in (network.get_input(index) for index in range(network.num_inputs)):
            if tensor.is_shape_tensor:
                raise DeployError(
                    f"Input {tensor.name!r} decides on the shape of something, which an engine of "
                    f"TensorRT can't have here; export the model with it fixed."
                )
            profile = profiles[tensor.name]
            shapes.set_shape(tensor.name, profile.smallest, profile.best, profile.largest)
        config.add_optimization_profile(shapes)
        file = timing_cache_file(platform)
        _use_timings(config, file)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            told = "; ".join(errors[-2:]) or "it gives no reason"
            raise DeployError(f"TensorRT can't build the engine: {told}.")
        _keep_timings(config, file)
        return bytes(plan)


def timing_cache_file(platform: Platform) -> Path:
    """Where the timings of kernels are kept; only the same TensorRT and GPU can use them."""
    from platformdirs import user_cache_path

    parts = (platform.tensorrt, platform.gpu, platform.compute_capability)
    name = "-".join(re.sub(r"[^\w.]+", "-", part) for part in parts)
    return user_cache_path("micronet") / "tensorrt" / f"{name}.timings"


def _use_timings(config: Any, file: Path) -> None:
    """Spares the builder to time again what it has timed before."""
    try:
        kept = read_bytes(file)
    except DataError:
        kept = b""
    if not config.set_timing_cache(config.create_timing_cache(kept), ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep_timings(config: Any, file: Path) -> None:
    try:
        write_bytes(file, bytes(config.get_timing_cache().serialize()))
    except OSError:  # a home that can't be written to costs time, not the engine
        return


def _parser_errors(parser: Any) -> str:
    told = []
    for index in range(min(parser.num_errors, 3)):
        error = parser.get_error(index)
        where = f"{error.node_operator()} {error.node_name()!r}: " if error.node_name() else ""
        told.append(f"{where}{error.desc().strip().rstrip('.')}")
    return "; ".join(told) or "it gives no reason"
