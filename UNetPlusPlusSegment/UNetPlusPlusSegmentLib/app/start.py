"""The start of the app from the command line: it looks for the packages, prints the address, and ends on Ctrl-C."""

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
EMPTY_S = 60  # a session without a page lasts this long: reloading one takes a moment
PACKAGES = ("aiohttp", "slicer", "slicer_layer_dm", "trame_slicer")


def run(
    paths: Sequence[str], host: str | None, port: int, output: str | None, upload_mb: int, say: Callable[[str], None]
) -> None:
    """Serve the app until it is interrupted.

    Args:
        paths: Scans, folders of scans, results of cohorts.
        host: The address to listen on, which then asks for a token; None for this computer alone.
        port: 0 for a free one.
        output: A folder for what is changed; None for none.
        upload_mb: Of one upload at most.
        say: Prints a line.

    Raises:
        RefusedError: A package is missing, a path cannot be served, or the port is taken.
    """
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise RefusedError(
            f"The app needs {', '.join(missing)}, which is not installed: pip install 'UNetPlusPlusSegment[app]'"
        )
    find(paths, output)  # what is wrong with the paths is said here, not in every session
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
