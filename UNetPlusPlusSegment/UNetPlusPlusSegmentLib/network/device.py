"""The device and precision that the network runs in, chosen once, with a name for the user. torch only."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.request import check_device

# Computing a slice with the paper's UNet++ takes 2 kB per pixel in float32; the rest is for cuDNN's workspace.
BYTES_PER_PIXEL = {torch.float32: 4096, torch.float16: 2048, torch.bfloat16: 2048}
MPS_BYTES = 4 * 2**30  # every Mac with MPS has at least this much, shared with everything else
# On the CPU, small images are batched up to this many pixels, or reading the weights would dominate; larger batches gain nothing.
CPU_PIXELS, LARGEST_BATCH = 4 * 96 * 96, 64


class DeviceError(ValueError):
    """A device that is not available; the message says why and what to do."""


@dataclass(frozen=True)
class Device:
    """A device, and a precision in which it is both fast and accurate enough."""

    kind: str  # cpu, cuda or mps
    dtype: torch.dtype
    label: str  # for the user: "cpu (bfloat16)", "NVIDIA H100 (float16)"
    memory_bytes: int = 0  # total memory of the graphics card: free memory varies, and the mask must not depend on it

    @property
    def threads(self) -> int:
        """Number of batches to compute at once; two on CUDA, where one is copied while the other is computed."""
        return torch.get_num_threads() if self.kind == "cpu" else 2 if self.kind == "cuda" else 1

    def batch(self, pixels: int) -> int:
        """Number of slices of `pixels` pixels in a batch; all batches at once use at most half of the memory."""
        if self.kind == "cpu":
            return max(1, CPU_PIXELS // pixels)
        bytes_each = pixels * BYTES_PER_PIXEL[self.dtype]
        return max(1, min(LARGEST_BATCH, self.memory_bytes // (2 * self.threads * bytes_each)))


def choose_device(asked: str = "auto") -> Device:
    """Resolve `auto` to CUDA, MPS or CPU in this order, and anything else to itself.

    Raises:
        RequestError: The name is unknown.
        DeviceError: This computer or this build of torch lacks the device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    check_device(asked)
    kind = next(k for k, there in available.items() if there and _computes(k)) if asked == "auto" else asked
    if not available[kind]:
        raise DeviceError(
            f"The device {kind} was requested, but this computer or its build of PyTorch ({torch.__version__}) has no such device."
            " Choose auto or cpu."
        )
    if asked != "auto" and not _computes(kind):
        raise DeviceError(
            f"This build of PyTorch ({torch.__version__}) cannot run on this computer's {kind} device. Choose auto or cpu."
        )
    if kind == "cuda":
        memory_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        return Device(kind, torch.float16, f"{torch.cuda.get_device_name()} (float16)", memory_bytes)
    if kind == "mps":
        return Device(kind, torch.float32, "mps (float32)", MPS_BYTES)
    dtype = torch.bfloat16 if cpu_has_bf16() else torch.float32
    return Device(kind, dtype, f"cpu ({str(dtype).removeprefix('torch.')})")


def _computes(kind: str) -> bool:
    """True if a convolution works on the device: a graphics card may be too old for this build of torch."""
    try:
        image = torch.ones(1, 1, 8, 8, device=kind, dtype=torch.float16 if kind == "cuda" else torch.float32)
        return bool(torch.nn.functional.conv2d(image, image[..., :3, :3]).isfinite().all())
    except (RuntimeError, AssertionError):  # a build of torch without CUDA asserts
        return False


def cpu_has_bf16() -> bool:
    """True if this processor multiplies bf16 in hardware; otherwise bf16 is many times slower than float32."""
    asked = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile"))  # not public
    return any(supported is not None and supported() for supported in asked)


def is_out_of_memory(error: BaseException) -> bool:
    """True if an exception means that the computer or the graphics card ran out of memory."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    # torch's allocators for the CPU and for MPS, and cuDNN and cuBLAS, raise plain RuntimeErrors
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
