"""Device and precision of the network: asked for or found out, resolved once, with a name for the user. torch only."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.request import check_device

# A slice of the paper's UNet++ takes 2 kB a pixel in float32 while it is computed; cuDNN's work space comes on top.
BYTES_PER_PIXEL = {torch.float32: 4096, torch.float16: 2048, torch.bfloat16: 2048}
MPS_BYTES = 4 * 2**30  # what every Mac with MPS has and shares with the rest
# Of a processor: small images one by one would leave it waiting for the weights; more pixels at once gain nothing.
CPU_PIXELS, LARGEST_BATCH = 4 * 96 * 96, 64


class DeviceError(ValueError):
    """A device that was asked for and is not there."""


@dataclass(frozen=True)
class Device:
    """A device, and the precision it is fast and exact enough in."""

    kind: str  # cpu, cuda or mps
    dtype: torch.dtype
    label: str  # for the user: "cpu (bfloat16)", "NVIDIA H100 (float16)"
    memory_bytes: int = 0  # of the graphics card in all: what is free changes, and the mask must not change with it

    def batch(self, pixels: int) -> int:
        """The number of slices of `pixels` pixels that it takes at once, using half of its memory at most."""
        if self.kind == "cpu":
            return max(1, CPU_PIXELS // pixels)
        return max(1, min(LARGEST_BATCH, self.memory_bytes // (2 * pixels * BYTES_PER_PIXEL[self.dtype])))


def choose_device(asked: str = "auto") -> Device:
    """Resolve `auto` to CUDA, MPS or CPU in this order, and anything else to itself.

    Raises:
        RequestError: An unknown name.
        DeviceError: A device that this machine or this build of torch lacks.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    check_device(asked)
    kind = next(k for k, there in available.items() if there and _computes(k)) if asked == "auto" else asked
    if not available[kind]:
        raise DeviceError(
            f"The device {kind} was asked for, but this machine, or its build of torch ({torch.__version__}), has none:"
            " choose auto or cpu."
        )
    if asked != "auto" and not _computes(kind):
        raise DeviceError(
            f"This build of torch ({torch.__version__}) cannot compute on this machine's {kind}: choose auto or cpu."
        )
    if kind == "cuda":
        memory_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        return Device(kind, torch.float16, f"{torch.cuda.get_device_name()} (float16)", memory_bytes)
    if kind == "mps":
        return Device(kind, torch.float32, "mps (float32)", MPS_BYTES)
    dtype = torch.bfloat16 if cpu_has_bf16() else torch.float32
    return Device(kind, dtype, f"cpu ({str(dtype).removeprefix('torch.')})")


def _computes(kind: str) -> bool:
    """Tell whether a convolution works there: a graphics card may be older than what this build of torch has kernels for."""
    try:
        image = torch.ones(1, 1, 8, 8, device=kind, dtype=torch.float16 if kind == "cuda" else torch.float32)
        return bool(torch.nn.functional.conv2d(image, image[..., :3, :3]).isfinite().all())
    except (RuntimeError, AssertionError):  # a build of torch without CUDA asserts
        return False


def cpu_has_bf16() -> bool:
    """Tell whether this processor multiplies bf16 in hardware; where it does not, bf16 is many times slower than float32."""
    asked = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile"))  # not public
    return any(supported is not None and supported() for supported in asked)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out, of the computer or of the graphics card."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    # torch's allocators for the CPU and for MPS, and cuDNN and cuBLAS, have no class of their own
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
