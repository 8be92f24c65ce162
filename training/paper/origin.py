"""The origin of a training, the commit of its code, and processor and precision: kept in the run folder, for when it is measured later."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from pathlib import Path

import torch

from fit.task import has_fast_bf16

FILE = "origin.json"


def note_origin(folder: Path) -> None:
    """Write commit and processor into the run folder of a training that begins now; a resumed one keeps what was written."""
    if (folder / "last.ckpt").exists() or (folder / FILE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"commit": commit(), "processor": processor()}) + "\n", encoding="utf-8")


def origin(folder: Path) -> tuple[str, str]:
    """The commit and the processor of a training; empty where its folder does not have them."""
    path = folder / FILE
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return noted.get("commit", ""), noted.get("processor", "")


def commit() -> str:
    """The commit of this code, with `-dirty` if files were changed since; empty outside of a git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=12"]
    try:
        asked = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return asked.stdout.strip()


def processor() -> str:
    """The graphics card or the processor that torch trains on, and the precision at which it does: `AMD EPYC, bf16`."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else [*names, platform.processor()][0]
    return f"{name}, {'bf16' if has_fast_bf16() else 'fp32'}"
