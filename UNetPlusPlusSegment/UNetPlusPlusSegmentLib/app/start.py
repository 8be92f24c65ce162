"""Starts the app from the command line: checks packages and paths, prints the address, and serves until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from .access import Door, RefusedError
from .cases import find

HERE = "127.0.0.1"
EMPTY_S = 60  # a session ends this long after its page was closed; reloading the page takes a moment
PACKAGES = ("aiohttp", "slicer", "slicer_layer_dm", "trame_slicer")


def run(
    paths: Sequence[str], host: str | None, port: int, output: str | None, upload_mb: int, say: Callable[[str], None]
) -> None:
    """Serve the app until it is interrupted.

    Args:
        paths: Scans, folders of scans, and results of cohorts.
        host: The address to listen on, where visitors need a token; None for this computer only.
        port: The port; 0 for any free one.
        output: Folder in which changes are saved; None not to save them.
        upload_mb: Largest upload in megabytes.
        say: Prints a line.

    Raises:
        RefusedError: A package is missing, a path cannot be served, or the port is taken.
    """
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise RefusedError(
            f'The app needs packages that are not installed ({", ".join(missing)}): in a clone, run pip install ".[app]".'
        )
    find(paths, output)  # reports errors in the paths now, not in every session
    from .front import Sessions, front, serve

    door = Door(secrets.token_urlsafe(24) if host else None)
    settings = {
        "paths": [str(Path(path).absolute()) for path in paths],
        "output": output and str(Path(output).absolute()),
        "upload_bytes": upload_mb << 20,
        "empty_s": EMPTY_S,
    }

    def tell(port: int) -> None:
        say(f"Open http://{host or HERE}:{port}/" + (f"?token={door.token}" if door.token else ""))

    async def until_interrupted() -> None:
        ended = asyncio.Event()
        for each in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C comes as KeyboardInterrupt
                asyncio.get_running_loop().add_signal_handler(each, ended.set)
        await serve(front(Sessions(settings), door, upload_mb << 20), host or HERE, port, tell, ended)

    asyncio.run(until_interrupted())
