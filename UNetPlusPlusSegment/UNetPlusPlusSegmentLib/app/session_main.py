"""The process of one session: a scene, its views and its page, served on a port that only the front door can use.

The front door sends one JSON line: `key`, `folder` (for uploads), `paths`, `output`, `upload_bytes`. The answer is a line
`{"port": number}`. A line `{"do": "end"}`, or the end of the front door, ends the session, and so does a page that has been
closed for a while. What was changed is saved first.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import shutil
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from aiohttp import web

from .access import Refused
from .cases import find, uploaded
from .corrections import FORMATS, write
from .front import KEY

CHUNK_BYTES = 1 << 20
EMPTY_S = 60  # without a page; reloading it takes a moment


def main() -> int:
    """Serve one session until it ends; returns the exit code."""
    given = json.loads(sys.stdin.readline() or "{}")
    if not given:
        return 2
    os.environ["WSLINK_READY_MSG"] = ""  # on stdout, where only the port is expected
    os.environ["WSLINK_WS_COMPRESS"] = "0"  # pictures, on this computer
    sys.argv = sys.argv[:1]  # trame reads it
    from .views import Views, render_without_a_screen

    render_without_a_screen()
    from trame.app import get_server
    from trame_slicer import module

    from .page import Page
    from .session import Session

    server = get_server("session", client_type="vue3")
    server.enable_module(module)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    session = Session(server, Views(server), find(given["paths"], given["output"]))
    Page(session)

    @server.controller.add("on_server_bind")
    def bind(web_server: Any) -> None:
        web_server.app.middlewares.append(only_for(given["key"]))
        web_server.app.router.add_post("/upload", _upload(session, Path(given["folder"]), given["upload_bytes"]))
        web_server.app.router.add_get("/download/{kind}", _download(session))

    @server.controller.add("on_server_ready")
    def ready(**_: Any) -> None:
        print(json.dumps({"port": server.port}), flush=True)  # noqa: T201 (the protocol)
        first = next(iter(session.cases), None)
        if first:
            session.open(first)
            server.state.flush()

    def end() -> None:
        asyncio.run_coroutine_threadsafe(server.stop(), loop)

    threading.Thread(target=_wait_for_end, args=(end,), daemon=True).start()
    server.start(
        port=0, host="127.0.0.1", timeout=EMPTY_S, open_browser=False, show_connection_info=False, thread=True
    )
    loop.run_until_complete(session.close())
    return 0


def only_for(key: str) -> Any:
    """Let in only who knows a key: anybody on this computer can reach the port."""

    @web.middleware
    async def check(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get(KEY, ""), key):
            raise web.HTTPForbidden(text="Open the app's own address.")
        return await handler(request)

    return check


def _wait_for_end(end: Callable[[], None]) -> None:
    """Wait for the word of the front door, or for its death."""
    for line in sys.stdin:
        if json.loads(line).get("do") == "end":
            break
    end()


def _upload(session: Any, folder: Path, most_bytes: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def upload(request: web.Request) -> web.Response:
        """Take the files of a form, into a folder that holds nothing else, and open them as one case."""
        into, size, received = Path(mkdtemp(dir=folder)), 0, []
        try:
            async for part in await request.multipart():
                name = Path(str(part.filename).replace("\\", "/")).name
                if not name or name.startswith("."):
                    raise Refused("A file that is uploaded needs a name.")
                with (into / name).open("xb") as stream:
                    while chunk := await part.read_chunk(CHUNK_BYTES):
                        size += len(chunk)
                        if size > most_bytes:
                            raise Refused(f"An upload may have up to {most_bytes >> 20} MB.")
                        stream.write(chunk)
                received.append(into / name)
            if not received:
                raise Refused("No file was sent.")
        except (Refused, OSError) as error:
            shutil.rmtree(into, ignore_errors=True)
            return web.Response(status=400, text=str(error))
        with session.state:
            session.add(uploaded(received, into))
        return web.Response(text="")

    return upload


def _download(session: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def download(request: web.Request) -> web.StreamResponse:
        """Write the segmentation in a format of `FORMATS`, and send it."""
        kind, state = request.match_info["kind"], session.take()
        if kind not in FORMATS or state is None or session.case is None:
            return web.Response(status=404, text="There is no such segmentation.")
        with TemporaryDirectory() as folder:
            try:
                path = await asyncio.to_thread(write, state, session.case, kind, Path(folder))
            except ValueError as error:
                return web.Response(status=400, text=str(error))
            content = await asyncio.to_thread(path.read_bytes)
        attachment = {"Content-Disposition": f'attachment; filename="{path.name}"'}
        return web.Response(body=content, content_type="application/octet-stream", headers=attachment)

    return download


if __name__ == "__main__":
    sys.exit(main())
