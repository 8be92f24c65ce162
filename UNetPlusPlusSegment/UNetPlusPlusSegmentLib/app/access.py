"""Access: who may open the app, from which page, and which files it may read. The standard library and `files` only."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..files.detached import named_in, pair_of
from ..files.images import printable

COOKIE = "unetpp-token"
LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})


class RefusedError(ValueError):
    """A visitor, a page or a file that the app refuses; the message says why."""


@dataclass(frozen=True)
class Door:
    """Decides which requests are let in.

    Attributes:
        token: The token that a visitor must have; None if only this computer can reach the app.
    """

    token: str | None = None

    def check(self, method: str, headers: Mapping[str, str], cookies: Mapping[str, str], given: str | None) -> None:
        """Refuse a request that must not be let in.

        Args:
            method: `GET`, `POST`, …; a web socket opens with GET, and browsers then send its origin.
            headers, cookies: Those of the request.
            given: The token in the address; once opened with it, the page keeps it as a cookie.

        Raises:
            RefusedError: The token is wrong, the host name is not this computer's (DNS rebinding), or the page has another origin.
        """
        host = headers.get("Host", "")
        if self.token is None and re.sub(r":\d+$", "", host) not in LOCAL:
            raise RefusedError(
                f"This app can only be opened as {' or '.join(sorted(LOCAL))}, not as {host!r}: correct the address."
            )
        if self.token is not None and not self._knows(given) and not self._knows(cookies.get(COOKIE)):
            raise RefusedError("The token is missing or wrong: open the address that the app printed when it started.")
        origin = headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise RefusedError(f"A page from {origin} may not use this app: open the app's own address.")
        opens_a_socket = headers.get("Upgrade", "").lower() == "websocket"
        if origin is None and (opens_a_socket or method not in ("GET", "HEAD")):
            raise RefusedError("The request does not say which page it comes from: open the app in a browser.")
        # A link that contains the token may come from anywhere, such as an e-mail.
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not self._knows(given):
            raise RefusedError("Other pages may not open this app: type its address into the browser.")

    def _knows(self, word: str | None) -> bool:
        return self.token is not None and hmac.compare_digest(
            (word or "").encode(errors="replace"), self.token.encode()
        )


class Folders:
    """The folders that the app may read; file names and links cannot lead out of them."""

    def __init__(self, roots: Iterable[str | Path]) -> None:
        """Allow the folders, and single files, that the user gave at the start."""
        self._roots = [Path(root).resolve() for root in roots]

    def inside(self, path: str | Path) -> Path:
        """The resolved path of a file or folder.

        Raises:
            RefusedError: It is outside the folders, whether by `..`, by a link or by an absolute path.
        """
        place = Path(path).resolve()
        if not any(place.is_relative_to(root) for root in self._roots):
            raise RefusedError(
                f"{printable(Path(path))} lies outside the folders that the app was started with: start it with that folder, too."
            )
        return place

    def scan(self, path: str | Path) -> Path:
        """The resolved path of a scan, after checking every file that reading it would open.

        Raises:
            RefusedError: The scan, a file in its folder, the other file of its pair, or a file that its header names is outside.
            FileError: The header is damaged.
        """
        place = self.inside(path)
        if place.is_dir():
            for each in place.rglob("*"):
                self.inside(each)
        for each in pair_of(place):
            self.inside(each)
        for name in named_in(place):
            if name.strip().upper().startswith("LIST") or "%" in name or Path(name).name != name:
                raise RefusedError(
                    f"{place.name} names other files than one next to it ({name}): save the scan as a single file."
                )
            self.inside(place.parent / name)
        return place
