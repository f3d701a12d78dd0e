"""A loaded engine on the GPU."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micronet.errors import DeployError
from micronet.techniques import Runner
from micronet_tensorrt.engine_file import EngineFile
from micronet_tensorrt.gpu import current, primary_context
from micronet_tensorrt.log import collecting_logger


class TensorRTRunner(Runner):
    """Runs batches of any size, those above the engine's largest in pieces. Threads take turns.

    Raises:
        DeployError: TensorRT can't load the plan.
    """

    def __init__(self, file: EngineFile) -> None:
        import pycuda.driver as cuda
        import tensorrt as trt

        self.profile = file.profile
        self._names = file.input, file.output
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
            self._stream = cuda.Stream()
            self._input, self._output = Buffer(), Buffer()

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [batch, classes] for images [batch, channels, height, width], any batch size.

        Raises:
            DeployError: The images are of a size that the engine was not built for.
        """
        reason = self.profile.why_not(batch.shape)
        if reason is not None:
            raise DeployError(reason)
        with self._lock, current(self._cuda):
            pieces = self.profile.pieces(len(batch))
            return np.concatenate([self._run(batch[start:end]) for start, end in pieces])

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import pycuda.driver as cuda

        count = len(images)
        # An engine for one batch size takes no smaller one: the rest is zeros.
        shape = (max(count, self.profile.smallest[0]), *images.shape[1:])
        context, names = self._context, self._names
        into = self._input.fit(shape)
        into[:count], into[count:] = images, 0
        if not context.set_input_shape(names[0], shape):
            raise DeployError(f"TensorRT refuses a batch of shape {shape}: {self._told()}.")
        out_of = self._output.fit(tuple(context.get_tensor_shape(names[1])))
        for name, buffer in zip(names, (self._input, self._output), strict=True):
            context.set_tensor_address(name, int(buffer.device))
        cuda.memcpy_htod_async(self._input.device, into, self._stream)
        if not context.execute_async_v3(self._stream.handle):
            raise DeployError(f"TensorRT failed while it ran: {self._told()}.")
        cuda.memcpy_dtoh_async(out_of, self._output.device, self._stream)
        self._stream.synchronize()
        return out_of[:count].copy()

    def _told(self) -> str:
        return "; ".join(self._errors[-2:]) or "it gives no reason"


class Buffer:
    """Memory of one tensor: page-locked on the host, and on the GPU. Grows, and never shrinks."""

    def __init__(self) -> None:
        self.host: NDArray[np.float32] | None = None
        self.device: Any = None

    def fit(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A view of the host's memory in a shape; both memories hold at least so much."""
        import pycuda.driver as cuda

        size = int(np.prod(shape))
        if self.host is None or self.host.size < size:
            self.host = cuda.pagelocked_empty((max(size, 1),), np.float32)
            self.device = cuda.mem_alloc(self.host.nbytes)
        return self.host[:size].reshape(shape)
