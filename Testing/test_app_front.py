"""The front door of the app, on stub sessions: token, origin, sessions apart, memory, and nothing left behind."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import psutil
import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install '.[app]'")

from UNetPlusPlusSegmentLib.app import front as front_module  # noqa: E402
from UNetPlusPlusSegmentLib.app.access import Door  # noqa: E402
from UNetPlusPlusSegmentLib.app.front import Sessions, front, serve  # noqa: E402

STUB = (sys.executable, str(Path(__file__).parent / "support" / "app_stub.py"))
LIMIT = 1 << 20


def visiting(visit, token=None, command=STUB):
    """Run a coroutine `visit(client, address, sessions)` beside an app; fails if a process is left."""

    async def both():
        ended, port = asyncio.Event(), asyncio.get_running_loop().create_future()
        sessions = Sessions({}, command)
        serving = asyncio.ensure_future(
            serve(front(sessions, Door(token), LIMIT), "127.0.0.1", 0, port.set_result, ended)
        )
        try:
            async with aiohttp.ClientSession() as client:
                return await visit(client, f"http://127.0.0.1:{await port}", sessions)
        finally:
            ended.set()
            await serving

    before = set(psutil.Process().children(recursive=True))
    result = asyncio.run(asyncio.wait_for(both(), 60))
    _, alive = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=5)
    assert not alive
    return result


async def opened(client, address, query=""):
    """The address of a new session, from the page that leads there."""
    async with client.get(f"{address}/{query}") as answer:
        text = await answer.text()
        assert answer.status == 200, text
    place = re.search(r'url=([^"]+)', text)[1]
    return f"{address}/{place}"


def test_each_visitor_gets_a_session_and_a_folder_of_its_own():
    async def visit(client, address, sessions):
        pages = [await opened(client, address) for _ in range(2)]
        assert pages[0] != pages[1]
        told = []
        for page in pages:
            async with client.get(f"{page}index.html?x=1") as answer:
                told.append(await answer.json())
        return told

    one, two = visiting(visit)
    assert (one["path"], one["query"]) == ("/index.html", {"x": "1"})
    assert one["folder"] != two["folder"]
    assert not Path(one["folder"]).exists()


def test_the_web_socket_passes_text_and_pictures_on_both_ways():
    async def visit(client, address, sessions):
        page = await opened(client, address)
        async with client.ws_connect(f"{page}ws", headers={"Origin": address}, max_msg_size=0) as socket:
            await socket.send_str("text")
            await socket.send_bytes(b"x" * 3_000_000)
            return await socket.receive_str(), len(await socket.receive_bytes())

    assert visiting(visit) == ("text", 3_000_000)


def test_a_session_answers_nobody_but_the_front_door():
    async def visit(client, address, sessions):
        await opened(client, address)
        (session,) = sessions._open.values()
        async with client.get(f"{session.base}/index.html") as answer:
            return answer.status

    assert visiting(visit) == 403


def test_without_the_token_there_is_no_page_no_session_and_no_socket():
    async def visit(client, address, sessions):
        page = await opened(client, address, "?token=right")
        client.cookie_jar.clear()
        statuses = []
        for url in (address, f"{address}/?token=wrong", f"{page}index.html"):
            async with client.get(url) as answer:
                statuses.append(answer.status)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{page}ws", headers={"Origin": address})
        return statuses, refused.value.status, len(sessions._open)

    assert visiting(visit, token="right") == ([403, 403, 403], 403, 1)


def test_the_token_is_kept_as_a_cookie_that_scripts_and_other_sites_do_not_get():
    async def visit(client, address, sessions):
        async with client.get(f"{address}/?token=right") as answer:
            cookie = answer.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        name, value = cookie.partition(";")[0].split("=")
        async with client.get(address, cookies={name: value}) as answer:
            return answer.status

    assert visiting(visit, token="right") == 200


def test_a_socket_of_another_origin_is_refused():
    async def visit(client, address, sessions):
        page = await opened(client, address)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{page}ws", headers={"Origin": "http://attacker.example"})
        async with client.post(f"{page}upload", data=b"x", headers={"Origin": "http://attacker.example"}) as answer:
            return refused.value.status, answer.status

    assert visiting(visit) == (403, 403)


@pytest.mark.parametrize("up", ["../../../../", "%2e%2e/%2e%2e/", "..%2f..%2f"])
def test_a_path_that_climbs_reaches_only_what_lies_below_the_session(up):
    async def visit(client, address, sessions):
        page = await opened(client, address)
        reader, writer = await asyncio.open_connection(*address.removeprefix("http://").split(":"))
        target = page.removeprefix(address)
        writer.write(f"GET {target}{up}etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        return re.search(r'"path": "([^"]*)"', text)[1]  # as the session is told

    assert visiting(visit) == "/etc/passwd"


def test_an_upload_above_the_limit_is_refused_before_it_is_sent_in_a_sentence_for_the_page():
    async def visit(client, address, sessions):
        page = await opened(client, address)
        answers = []
        for size in (LIMIT // 2, LIMIT + 1):
            async with client.post(f"{page}upload", data=b"x" * size, headers={"Origin": address}) as answer:
                answers.append((answer.status, await answer.text()))
        return answers

    (taken, _), refused = visiting(visit)
    assert taken == 200 and refused == (403, f"The upload is larger than the limit of {LIMIT >> 20} MB.")


def test_when_memory_runs_out_the_app_says_that_it_is_in_use(monkeypatch):
    async def visit(client, address, sessions):
        await opened(client, address)
        monkeypatch.setattr(front_module, "free_memory_bytes", lambda kind: front_module.NEEDED_BYTES - 1)
        async with client.get(address) as answer:
            return answer.status, await answer.text()

    status, text = visiting(visit)
    assert status == 503
    assert "in use: 1 sessions are open" in text


def test_a_session_that_has_ended_leads_to_a_new_one():
    async def visit(client, address, sessions):
        page = await opened(client, address)
        (session,) = sessions._open.values()
        session.process.kill()
        while not session.process.has_ended:
            await asyncio.sleep(0.01)
        async with client.get(f"{page}index.html") as answer:
            return await answer.text(), Path(session.folder.name).exists()

    text, exists = visiting(visit)
    assert "has ended" in text
    assert not exists


def test_a_session_that_does_not_start_is_a_sentence_without_paths():
    async def visit(client, address, sessions):
        async with client.get(address) as answer:
            return answer.status, await answer.text()

    status, text = visiting(visit, command=(sys.executable, "-c", "raise SystemExit('secret')"))
    assert status == 403
    assert "ended at once" in text
    assert "secret" not in text


def test_a_port_that_is_taken_is_said():
    async def visit(client, address, sessions):
        port = int(address.rpartition(":")[2])
        with pytest.raises(ValueError, match="choose another --port"):
            await serve(front(Sessions({}, STUB), Door(), LIMIT), "127.0.0.1", port, print, asyncio.Event())

    visiting(visit)
