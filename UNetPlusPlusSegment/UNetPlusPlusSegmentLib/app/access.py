"""Access: who may open the app, from which page, and which files it may read. The standard library and `files` only."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..files.images import in_text
from ..files.reading import volume_ending

COOKIE = "unetpp-token"
LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})
HEADER_BYTES = 1 << 20
DATA_FILE = {
    "nrrd": re.compile(rb"^[ \t]*data ?file[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE),
    "meta": re.compile(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE),
}


class RefusedError(ValueError):
    """A visitor, a page or a file that the app does not serve; the message says why."""


@dataclass(frozen=True)
class Door:
    """Who may come in.

    Attributes:
        token: What a visitor must know; None where only this computer can reach the app.
    """

    token: str | None = None

    def check(self, method: str, headers: Mapping[str, str], cookies: Mapping[str, str], given: str | None) -> None:
        """Let a request in, or not.

        Args:
            method: `GET`, `POST`, …; a web socket opens with GET, and browsers send its origin.
            headers, cookies: Those of the request.
            given: The token in the address; a page that is opened with it keeps it as a cookie.

        Raises:
            RefusedError: Wrong token, a name of this computer that is not its own (DNS rebinding), or a page of another origin.
        """
        host = headers.get("Host", "")
        if self.token is None and re.sub(r":\d+$", "", host) not in LOCAL:
            raise RefusedError(f"This app answers only as {' or '.join(sorted(LOCAL))}, not as {host!r}.")
        if self.token is not None and not self._knows(given) and not self._knows(cookies.get(COOKIE)):
            raise RefusedError("The token is missing or wrong: open the address that the app printed when it started.")
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise RefusedError(f"A page of {origin} may not use this app.")
        opens_a_socket = headers.get("Upgrade", "").lower() == "websocket"
        if origin is None and (opens_a_socket or method not in ("GET", "HEAD")):
            raise RefusedError("The request does not say which page it comes from.")
        # A link with the token may come from anywhere, by mail for example.
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not self._knows(given):
            raise RefusedError("Another page may not open this app: type its address.")

    def _knows(self, word: str | None) -> bool:
        return self.token is not None and hmac.compare_digest((word or "").encode(), self.token.encode())


class Folders:
    """The files that the app may read: those inside some folders, whatever a name or a link says."""

    def __init__(self, roots: Iterable[str | Path]) -> None:
        """Take the folders, or single files, that the user gave at the start."""
        self._roots = [Path(root).resolve() for root in roots]

    def inside(self, path: str | Path) -> Path:
        """The true place of a file or folder.

        Raises:
            RefusedError: It is outside, be it by `..`, by a link or as an absolute path.
        """
        place = Path(path).resolve()
        if not any(place.is_relative_to(root) for root in self._roots):
            raise RefusedError(
                f"{in_text(Path(path))} lies outside the folders that the app was started with: give its folder, too."
            )
        return place

    def scan(self, path: str | Path) -> Path:
        """The true place of a scan, after a look at all that reading it would open.

        Raises:
            RefusedError: The scan, a file of the folder, or a file that its header names is outside.
        """
        place = self.inside(path)
        if place.is_dir():
            for each in place.rglob("*"):
                self.inside(each)
        for name in _named_files(place):
            if name.startswith("LIST") or "%" in name or Path(name).name != name:
                raise RefusedError(
                    f"{place.name} names other files than one beside it ({name}): save the scan in one file."
                )
            self.inside(place.parent / name)
        return place


def _named_files(path: Path) -> list[str]:
    """The files with the voxels that a header names, as the readers of ITK find them."""
    kind = {".nrrd": "nrrd", ".nhdr": "nrrd", ".mha": "meta", ".mhd": "meta"}.get(volume_ending(path))
    if kind is None or not path.is_file():
        return []
    with path.open("rb") as stream:
        header = stream.read(HEADER_BYTES).replace(b"\r\n", b"\n")
    if kind == "nrrd":
        header, blank, _ = header.partition(b"\n\n")
        if len(header) == HEADER_BYTES and not blank:
            raise RefusedError(f"{path.name} has a header without end.")
        return [name.decode("latin-1").strip() for name in DATA_FILE[kind].findall(header)]
    first = DATA_FILE[kind].search(header)
    if first is None:
        raise RefusedError(f"{path.name} does not say where its voxels are.")
    name = first[1].decode("latin-1").strip()
    return [] if name.upper() == "LOCAL" else [name]
