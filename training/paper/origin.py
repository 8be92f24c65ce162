"""Where a training comes from: the commit of its code, and the processor. Both lie in its folder, for whoever measures it later."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from pathlib import Path

import torch

FILE = "origin.json"


def note_origin(folder: Path) -> None:
    """Write the commit and the processor into the folder of a training that begins now; one that began before keeps what it has."""
    if (folder / "last.ckpt").exists() or (folder / FILE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"commit": commit(), "processor": processor()}) + "\n", encoding="utf-8")


def origin(folder: Path) -> tuple[str, str]:
    """The commit and the processor of a training; empty where its folder does not say."""
    path = folder / FILE
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return noted.get("commit", ""), noted.get("processor", "")


def commit() -> str:
    """The commit of this code, with `-dirty` if it was changed since; empty where it is no checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=12"]
    try:
        asked = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return asked.stdout.strip()


def processor() -> str:
    """The graphics card or the processor that torch trains on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor()
