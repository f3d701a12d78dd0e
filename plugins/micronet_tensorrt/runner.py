"""A loaded engine on the GPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micronet.deployment.batches import batch_of, run_in_pieces
from micronet.errors import DeployError
from micronet.techniques import Runner, Signature
from micronet_tensorrt.engine_file import EngineFile
from micronet_tensorrt.gpu import current, primary_context
from micronet_tensorrt.log import collecting_logger


class TensorRTRunner(Runner):
    """Runs batches of any size, those above the engine's largest in pieces. Threads take turns.

    Raises:
        DeployError: TensorRT can't load the plan.
    """

    def __init__(self, signature: Signature, file: EngineFile) -> None:
        import pycuda.driver as cuda
        import tensorrt as trt

        super().__init__(signature)
        self.profiles = file.profiles
        self._lock = threading.Lock()
        self._cuda = primary_context()
        logger, self._errors = collecting_logger()
        with current(self._cuda):
            self._runtime = trt.Runtime(logger)
            engine = self._runtime.deserialize_cuda_engine(file.plan)
            if engine is None:
                raise DeployError(f"TensorRT can't load the engine: {self._told()}.")
            self._engine = engine
            self._context = engine.create_execution_context()
            if self._context is None:
                raise DeployError(f"The GPU has no room for the engine: {self._told()}.")
            # An input that the model does not use need not be one of the engine's.
            there = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
            self._stream = cuda.Stream()
            specs = (*signature.input_specs, *signature.output_specs)
            self._buffers = {
                spec.name: Buffer(np.dtype(spec.dtype)) for spec in specs if spec.name in there
            }

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """All outputs, in the signature's order, for inputs that fit the signature.

        Raises:
            DeployError: The engine was not built for such sizes.
        """
        for spec in self.signature.input_specs:
            reason = self.profiles[spec.name].why_not(spec, inputs[spec.name].shape)
            if reason is not None:
                raise DeployError(reason)
        with self._lock, current(self._cuda):
            return run_in_pieces(self._run, self.signature, inputs, self._pieces(inputs))

    def _pieces(self, inputs: Mapping[str, NDArray[Any]]) -> list[tuple[int, int]]:
        count = batch_of(self.signature, inputs)
        if count is None:
            return [(0, 0)]
        first = next(spec.name for spec in self.signature.input_specs if spec.has_batch)
        pieces = list(self.profiles[first].pieces(count))
        if len(pieces) > 1 and not self.signature.can_be_cut:
            raise DeployError(
                f"The engine takes {self.profiles[first].largest[0]} images, got {count}, and not "
                f"every output is one for each image, so that a batch could be cut. Deploy with a "
                f"larger max_batch."
            )
        return pieces

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        import pycuda.driver as cuda

        context, stream = self._context, self._stream
        empty = batch_of(self.signature, inputs) == 0
        for spec in self.signature.input_specs:
            if spec.name not in self._buffers:
                continue
            array = inputs[spec.name]
            # No engine takes a batch of none: it gets one image of zeros.
            shape = (1, *array.shape[1:]) if empty and spec.has_batch else array.shape
            buffer = self._buffers[spec.name]
            into = buffer.fit(shape)
            into[...] = 0 if empty and spec.has_batch else array
            if not context.set_input_shape(spec.name, shape):
                raise DeployError(
                    f"TensorRT refuses {spec.name!r} of shape {shape}: {self._told()}."
                )
            context.set_tensor_address(spec.name, int(buffer.device))
            cuda.memcpy_htod_async(buffer.device, into, stream)
        outputs = []
        for spec in self.signature.output_specs:
            shape = tuple(context.get_tensor_shape(spec.name))
            if any(size < 0 for size in shape):
                raise DeployError(
                    f"The size of output {spec.name!r} depends on what the images show, which this "
                    f"backend can't run; deploy on another one."
                )
            buffer = self._buffers[spec.name]
            outputs.append((spec, buffer, buffer.fit(shape)))
            context.set_tensor_address(spec.name, int(buffer.device))
        if not context.execute_async_v3(stream.handle):
            raise DeployError(f"TensorRT failed while it ran: {self._told()}.")
        for _, buffer, out_of in outputs:
            cuda.memcpy_dtoh_async(out_of, buffer.device, stream)
        stream.synchronize()
        return [
            (out_of[:0] if empty and spec.has_batch else out_of).copy()
            for spec, _, out_of in outputs
        ]

    def _told(self) -> str:
        return "; ".join(self._errors[-2:]) or "it gives no reason"


class Buffer:
    """Memory of one tensor: page-locked on the host, and on the GPU. Grows, and never shrinks."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.host: NDArray[Any] | None = None
        self.device: Any = None

    def fit(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """A view of the host's memory in a shape; both memories hold at least so much."""
        import pycuda.driver as cuda

        size = int(np.prod(shape))
        if self.host is None or self.host.size < size:
            self.host = cuda.pagelocked_empty((max(size, 1),), self.dtype)
            self.device = cuda.mem_alloc(self.host.nbytes)
        return self.host[:size].reshape(shape)
