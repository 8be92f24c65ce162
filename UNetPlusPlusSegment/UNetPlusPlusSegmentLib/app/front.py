"""The front door: one address for all browsers; it checks access, starts a session for each, and forwards its traffic. No slicer."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from ..jobs.allocator import free_memory_bytes
from ..jobs.child_process import ChildProcess
from .access import COOKIE, Door, RefusedError

NEEDED_BYTES = 2 << 30  # memory of a session with a chest CT, its views and its network
START_S = 60.0  # Slicer's libraries load slowly on a busy computer
SWEEP_S = 1.0
END_S = 5.0  # time for a session to save and end
KEY = "X-Session-Key"  # proves to a session that a request comes from the front door, not from another program on this computer
HOP_BY_HOP = {
    "connection", "host", "keep-alive", "transfer-encoding", "upgrade", "content-length", "te", KEY.lower(),
}  # fmt: skip
_log = logging.getLogger(__name__)


class InUseError(RefusedError):
    """There is not enough memory for another session."""


@dataclass
class _Session:
    process: ChildProcess
    folder: tempfile.TemporaryDirectory
    key: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    port: int | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Sessions:
    """The open sessions: processes, each with its own scene."""

    def __init__(self, settings: Mapping[str, object], command: Sequence[str] = ()) -> None:
        """Start none yet.

        Args:
            settings: Settings for `session_main`, in types for JSON.
            command: The command of a session; empty for `session_main` with this Python.
        """
        self._settings = settings
        self._command = [*command] or [sys.executable, "-m", f"{__package__}.session_main"]
        self._open: dict[str, _Session] = {}
        self._starting = asyncio.Lock()  # one at a time, so that the memory of each counts before the next starts

    async def start(self) -> str:
        """Start a session and wait until it listens; returns its name, which cannot be guessed.

        Raises:
            InUseError: There is too little memory.
            RefusedError: It did not start.
        """
        async with self._starting:
            self.sweep()
            free = free_memory_bytes("cpu")
            if free is not None and free < NEEDED_BYTES:
                raise InUseError(
                    f"The app is in use: {len(self._open)} sessions are open, and there is not enough memory for another one."
                    " Try again when one of them has been closed."
                )
            folder = tempfile.TemporaryDirectory(prefix="unetpp-app-", ignore_cleanup_errors=True)
            process = ChildProcess(self._command, Path(folder.name))
            session = _Session(process, folder)
            try:
                process.send({**self._settings, "key": session.key, "folder": folder.name})
                session.port = await self._port_of(process)
            except BaseException:
                process.kill()
                folder.cleanup()
                raise
            name = secrets.token_urlsafe(16)
            self._open[name] = session
            return name

    def find(self, name: str) -> _Session | None:
        """An open session; None if it has ended."""
        self.sweep()
        return self._open.get(name)

    def sweep(self) -> None:
        """Forget the sessions that have ended."""
        for name, session in list(self._open.items()):
            if session.process.has_ended:
                self._open.pop(name).folder.cleanup()

    async def keep_sweeping(self) -> None:
        """Sweep every second, so that uploads are deleted soon after their visitors have left."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    async def close(self) -> None:
        """End all sessions; each saves its changes first."""
        for session in self._open.values():
            session.process.send({"do": "end"})
        until = time.monotonic() + END_S
        while self._open and time.monotonic() < until:
            await asyncio.sleep(0.05)
            self.sweep()
        for session in self._open.values():
            session.process.close()
            session.folder.cleanup()

    @staticmethod
    async def _port_of(process: ChildProcess) -> int:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            for line in process.received():
                if line is None:
                    _log.error("A session ended at once:\n%s", process.last_words)
                    raise RefusedError("The session ended at once: the terminal of the app shows why.")
                with suppress(ValueError, TypeError, KeyError):  # lines printed by libraries
                    return int(json.loads(line)["port"])
            await asyncio.sleep(0.02)
        raise RefusedError(
            f"The session did not start within {START_S:g} s: try again when this computer is less busy."
        )


def front(sessions: Sessions, door: Door, upload_bytes: int) -> web.Application:
    """The application for aiohttp.

    Args:
        sessions: Closed with the application.
        door: Checks every request, page and web socket.
        upload_bytes: Largest request body, in bytes.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]):  # noqa: ANN202
        try:
            door.check(request.method, request.headers, request.cookies, request.query.get("token"))
            if (request.content_length or 0) > upload_bytes:
                raise RefusedError(f"The upload is larger than the limit of {upload_bytes >> 20} MB.")
            response = await handler(request)
        except RefusedError as error:
            title, status = ("In use", 503) if isinstance(error, InUseError) else ("Refused", 403)
            is_upload = request.method == "POST"  # the page shows the text of the answer
            response = (
                web.Response(text=str(error), status=status) if is_upload else _page(title, str(error), status=status)
            )
        if not response.prepared:
            # No other page may show this one in a frame, and its address is not sent to other sites.
            response.headers.setdefault("X-Frame-Options", "DENY")
            response.headers.setdefault("Referrer-Policy", "no-referrer")
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    async def open_session(request: web.Request) -> web.Response:
        name = await sessions.start()
        # A page, not a redirect: if another site had started the redirect, the cookie would not be sent.
        response = _page("Starting", "Starting …", forward=f"s/{name}/")
        if door.token is not None:
            response.set_cookie(COOKIE, door.token, httponly=True, samesite="Strict", secure=request.secure)
        return response

    async def pass_on(request: web.Request) -> web.StreamResponse:
        session = sessions.find(request.match_info["name"])
        if session is None:
            return _page("Ended", "This session has ended.", forward="../../", after_s=2)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await _relay(request, session, request.app[_CLIENT])
        return await _forward(request, session, request.app[_CLIENT])

    async def client(app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)) as client:
            app[_CLIENT] = client
            sweeping = asyncio.ensure_future(sessions.keep_sweeping())
            yield
            sweeping.cancel()

    async def end_sessions(_: web.Application) -> None:
        await sessions.close()

    app = web.Application(middlewares=[guard], client_max_size=upload_bytes)
    app.router.add_get("/", open_session)
    app.router.add_route("*", "/s/{name}/{rest:.*}", pass_on)
    app.cleanup_ctx.append(client)
    app.on_shutdown.append(end_sessions)  # before the server waits for open web sockets to end
    return app


def only_for(key: str) -> Any:
    """Refuse requests without the key, as any program on this computer can reach the port."""

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get(KEY, ""), key):
            raise web.HTTPForbidden(text="Open the app's own address.")
        return await handler(request)

    return check


_CLIENT: web.AppKey[aiohttp.ClientSession] = web.AppKey("client", aiohttp.ClientSession)


async def _forward(request: web.Request, session: _Session, client: aiohttp.ClientSession) -> web.StreamResponse:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    target = f"{session.base}/{request.match_info['rest']}"
    body = request.content if request.can_read_body else None
    async with client.request(
        request.method, target, params=request.query, headers={**headers, KEY: session.key}, data=body,
        allow_redirects=False,
    ) as answer:  # fmt: skip
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        response = web.StreamResponse(status=answer.status, headers={**kept, "X-Frame-Options": "DENY"})
        await response.prepare(request)
        async for chunk in answer.content.iter_chunked(1 << 18):
            await response.write(chunk)
        await response.write_eof()
        return response


async def _relay(request: web.Request, session: _Session, client: aiohttp.ClientSession) -> web.WebSocketResponse:
    """Forward the messages of a web socket in both directions until one side closes it."""
    near = web.WebSocketResponse(max_msg_size=1 << 26, heartbeat=30, compress=False)
    await near.prepare(request)
    async with client.ws_connect(
        f"{session.base}/{request.match_info['rest']}", headers={KEY: session.key}, max_msg_size=1 << 26
    ) as far:

        async def copy(source, sink) -> None:  # noqa: ANN001 (a web socket of either kind)
            async for message in source:
                if message.type == aiohttp.WSMsgType.BINARY:
                    await sink.send_bytes(message.data)
                elif message.type == aiohttp.WSMsgType.TEXT:
                    await sink.send_str(message.data)

        ways = [asyncio.ensure_future(copy(near, far)), asyncio.ensure_future(copy(far, near))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
    await near.close()
    return near


def _page(title: str, text: str, status: int = 200, forward: str = "", after_s: int = 0) -> web.Response:
    refresh = f'<meta http-equiv="refresh" content="{after_s}; url={forward}">' if forward else ""
    return web.Response(
        status=status, content_type="text/html",
        text=f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'>{refresh}<title>{escape(title)}</title>"
        f"<body style='font:16px sans-serif; margin:3em'>{escape(text)}",
    )  # fmt: skip


async def serve(app: web.Application, host: str, port: int, say: Callable[[int], None], until: asyncio.Event) -> None:
    """Listen until `until` is set.

    Args:
        app: From `front`.
        host, port: The address; port 0 for any free port.
        say: Called with the port once the app listens.
        until: Set it to stop serving.

    Raises:
        RefusedError: The address cannot be used.
    """
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
        except OSError as error:
            raise RefusedError(
                f"{host}:{port} cannot be used ({error.strerror}): choose another --port or --host."
            ) from error
        say(runner.addresses[0][1])
        await until.wait()
    finally:
        await runner.cleanup()
