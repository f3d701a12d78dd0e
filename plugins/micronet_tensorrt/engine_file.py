"""The file of an engine: what it was built with and for, and TensorRT's own plan.

A plan runs with the TensorRT that built it, on GPUs like the one it was built on. TensorRT says so
in its log, after it has failed; here it is said before it is asked.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from micronet.errors import DataError, DeployError
from micronet.plain import from_json
from micronet.storage.files import read_bytes, replacing
from micronet_tensorrt.profile import Profile

_MAGIC = b"micronet tensorrt 2\n"
_LENGTH_BYTES = 8


@attrs.frozen
class Platform:
    """What a plan is bound to.

    Args:
        tensorrt: Version of TensorRT.
        gpu: Name of the GPU.
        compute_capability: As in "8.6".
    """

    tensorrt: str
    gpu: str
    compute_capability: str

    def why_not(self, here: Platform) -> str | None:
        """Why a plan of this platform can't run on another, as a sentence."""
        if self.tensorrt != here.tensorrt:
            return (
                f"it was built with TensorRT {self.tensorrt}, here is {here.tensorrt}, and a plan "
                f"runs with the version that built it alone. Deploy the model again here, or pip "
                f"install 'tensorrt=={self.tensorrt}'."
            )
        if self.compute_capability != here.compute_capability:
            return (
                f"it was built on {self.gpu} with compute capability {self.compute_capability}, "
                f"here is {here.gpu} with {here.compute_capability}. Deploy the model again here."
            )
        return None


@attrs.frozen
class EngineFile:
    """A plan and its header.

    Args:
        platform: What it was built with and on.
        profiles: Shapes that each input may have, by its name.
        plan: TensorRT's serialized engine.
    """

    platform: Platform
    profiles: Mapping[str, Profile]
    plan: bytes = attrs.field(repr=False)

    def write(self, path: Path) -> None:
        header = attrs.asdict(self, filter=attrs.filters.exclude("plan"))
        header["plan"] = {"bytes": len(self.plan), "crc32": zlib.crc32(self.plan)}
        text = json.dumps(header).encode()
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(_MAGIC + len(text).to_bytes(_LENGTH_BYTES, "little") + text)
            file.write(self.plan)

    @classmethod
    def read(cls, path: Path) -> EngineFile:
        """A file that `write` wrote.

        Raises:
            DeployError: It is no such file, or not whole.
        """
        try:
            content = read_bytes(path)
        except DataError as error:
            raise DeployError(str(error)) from error
        if not content.startswith(_MAGIC):
            raise DeployError(
                f"{path} is no engine that micronet wrote: its first bytes are others."
            )
        start = len(_MAGIC) + _LENGTH_BYTES
        end = start + int.from_bytes(content[len(_MAGIC) : start], "little")
        try:
            header = from_json(content[start:end], dict[str, Any])
            written, plan = header.pop("plan"), content[end:]
            if (written["bytes"], written["crc32"]) != (len(plan), zlib.crc32(plan)):
                raise DeployError(f"{path} is damaged: its plan is not the one that was written.")
            profiles = {name: Profile(**each) for name, each in header["profiles"].items()}
            return cls(Platform(**header["platform"]), profiles, plan)
        except (DataError, KeyError, TypeError, AttributeError) as error:
            raise DeployError(f"{path} is damaged: its header can't be read: {error}.") from error
