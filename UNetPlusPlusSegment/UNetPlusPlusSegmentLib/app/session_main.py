"""The process of one session: a scene with its views and its page, served on a port that only the front door can use.

The front door sends one JSON line with `key`, `folder` (for uploads), `paths`, `output`, `upload_bytes` and `empty_s`. The answer is
a line `{"port": number}`. The session ends at a line `{"do": "end"}`, when the front door ends, or when its page has been closed for
`empty_s` seconds; changes are saved first, and the folder is removed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import IO, Any

from aiohttp import BodyPartReader, web

from ..jobs.pipes import take_pipes
from .access import RefusedError
from .cases import find, uploaded
from .corrections import FORMATS, write
from .front import only_for

CHUNK_BYTES = 1 << 20


def main() -> int:
    """Serve one session until it ends; returns the exit code."""
    requests, answers = take_pipes()
    given = json.loads(requests.readline() or b"{}")
    if not given:
        return 2
    os.environ["WSLINK_WS_COMPRESS"] = "0"  # not worth it for pictures that stay on this computer
    sys.argv = sys.argv[:1]  # trame reads sys.argv
    from .views import Views, render_without_a_screen

    render_without_a_screen()
    from trame.app import get_server
    from trame_server.utils.asynchronous import create_task
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
        upload = _upload(session, Path(given["folder"]), given["output"], given["upload_bytes"])
        web_server.app.router.add_post("/upload", upload)
        web_server.app.router.add_get("/download/{kind}", _download(session))

    @server.controller.add("on_server_ready")
    def ready(**_: Any) -> None:
        answers.write(json.dumps({"port": server.port}).encode("ascii") + b"\n")
        answers.flush()
        first = next(iter(session.cases), None)
        if first:
            create_task(session.open(first))

    def end() -> None:
        asyncio.run_coroutine_threadsafe(server.stop(), loop)

    threading.Thread(target=_wait_for_end, args=(requests, end), daemon=True).start()
    try:
        server.start(
            port=0,
            host="127.0.0.1",
            timeout=given["empty_s"],
            open_browser=False,
            show_connection_info=False,
            thread=True,
        )
        loop.run_until_complete(session.close())
    finally:  # the front door may have been killed, and what visitors have uploaded must not stay
        os.chdir(Path(given["folder"]).parent)
        shutil.rmtree(given["folder"], ignore_errors=True)
    return 0


def _wait_for_end(requests: IO[bytes], end: Callable[[], None]) -> None:
    """Wait until the front door asks to end, or has itself ended."""
    for line in requests:
        if json.loads(line).get("do") == "end":
            break
    end()


def _upload(
    session: Any, folder: Path, output: str | None, most_bytes: int
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def upload(request: web.Request) -> web.Response:
        """Receive the files of a form into a new folder, and open them as one case."""
        into, size, received = Path(mkdtemp(dir=folder)), 0, []
        try:
            form = await request.multipart()
            while isinstance(part := await form.next(), BodyPartReader):
                name = Path(str(part.filename).replace("\\", "/")).name
                if not name or name.startswith("."):
                    raise RefusedError("A file without a name cannot be uploaded: rename it.")
                with (into / name).open("xb") as stream:
                    while chunk := await part.read_chunk(CHUNK_BYTES):
                        size += len(chunk)
                        if size > most_bytes:
                            raise RefusedError(f"The upload is larger than the limit of {most_bytes >> 20} MB.")
                        stream.write(chunk)
                received.append(into / name)
            if not received:
                raise RefusedError("No file was sent: choose one or more files.")
        except (RefusedError, OSError) as error:
            shutil.rmtree(into, ignore_errors=True)
            return web.Response(status=400, text=getattr(error, "strerror", None) or str(error))
        await session.add(uploaded(received, into, output))
        return web.Response(text="")

    return upload


def _download(session: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def download(request: web.Request) -> web.StreamResponse:
        """Write the segmentation in one of `FORMATS`, and send it."""
        kind, case = request.match_info["kind"], session.case
        if kind not in FORMATS or case is None or session.segmentation is None:
            return web.Response(status=404, text="There is no segmentation to download in this format.")
        with TemporaryDirectory() as folder:
            try:
                state = session.take()
                path = await asyncio.to_thread(write, state, case, kind, Path(folder))
            except ValueError as error:
                # A browser shows no text of a failed download.
                session.state.update({"message": str(error), "wrong": True})
                session.state.flush()
                return web.Response(status=400, text=str(error))
            content = await asyncio.to_thread(path.read_bytes)
        attachment = {"Content-Disposition": f'attachment; filename="{path.name}"'}
        return web.Response(body=content, content_type="application/octet-stream", headers=attachment)

    return download


if __name__ == "__main__":
    sys.exit(main())
