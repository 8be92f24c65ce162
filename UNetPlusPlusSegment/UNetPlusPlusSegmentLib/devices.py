"""Which device and precision the network runs in: asked or found out, resolved once, with a name for the user. torch only."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DEVICES = ("auto", "cpu", "cuda", "mps")


class DeviceError(ValueError):
    """A device that was asked for and is not there."""


@dataclass(frozen=True)
class Device:
    """A device, the precision it is fast and exact enough in, and how many slices it takes at once."""

    kind: str  # cpu, cuda or mps
    dtype: torch.dtype
    batch: int
    label: str  # for the user: "cpu (bfloat16)", "NVIDIA H100 (float16)"


def choose_device(asked: str = "auto") -> Device:
    """Resolve `auto` to CUDA, MPS or CPU in this order, and anything else to itself.

    Raises:
        DeviceError: An unknown name, or a device that this machine or this build of torch lacks.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked not in DEVICES:
        raise DeviceError(f"There is no device {asked!r}; choose one of {', '.join(DEVICES)}.")
    kind = next(k for k, there in available.items() if there) if asked == "auto" else asked
    if not available[kind]:
        raise DeviceError(
            f"The device {kind} was asked for, but this machine, or its build of torch ({torch.__version__}), has none:"
            " choose auto or cpu."
        )
    if kind == "cuda":
        return Device(kind, torch.float16, 16, f"{torch.cuda.get_device_name()} (float16)")
    if kind == "mps":
        return Device(kind, torch.float32, 4, "mps (float32)")
    # A CPU gains nothing from larger batches, and one slice at a time keeps cancelling quick and memory small.
    dtype = torch.bfloat16 if cpu_has_bf16() else torch.float32
    return Device(kind, dtype, 1, f"cpu ({str(dtype).removeprefix('torch.')})")


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware; where it does not, bf16 is many times slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
