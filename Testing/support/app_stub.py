"""A session without Slicer, for tests of the app's server: it returns what it was told, and its web socket echoes."""

import asyncio
import json
import sys

from aiohttp import web

from UNetPlusPlusSegmentLib.app.front import only_for

given = json.loads(sys.stdin.readline())


async def main() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path, "query": dict(request.query), "folder": given["folder"]})

    async def upload(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def socket(request: web.Request) -> web.WebSocketResponse:
        near = web.WebSocketResponse()
        await near.prepare(request)
        async for message in near:
            await (near.send_bytes if message.type.name == "BINARY" else near.send_str)(message.data)
        return near

    app = web.Application(middlewares=[only_for(given["key"])], client_max_size=1 << 30)
    app.add_routes([web.get("/ws", socket), web.post("/upload", upload), web.get("/{rest:.*}", page)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write("noise of a library\n" + json.dumps({"port": runner.addresses[0][1]}) + "\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


asyncio.run(main())
