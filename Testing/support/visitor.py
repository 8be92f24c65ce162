"""A visitor of the app: drives a headless Chromium like a person, and reads what it shows."""

from __future__ import annotations

import io
import time

import numpy as np
from PIL import Image

PATIENCE_S = 600  # before a test says that something hangs: on a busy computer it is only slow
AXIAL, THREED, CORONAL, SAGITTAL = range(4)


def wait_until(seen, what):
    """Wait for a true value of `seen()`."""
    until = time.monotonic() + PATIENCE_S
    while not seen():
        assert time.monotonic() < until, f"waited {PATIENCE_S} s in vain: {what}"
        time.sleep(0.05)


class Visitor:
    """A page of the app, driven by Playwright."""

    def __init__(self, page, address):
        self.page = page
        page.set_default_timeout(1000 * PATIENCE_S)
        page.goto(address)
        page.wait_for_selector("#apply")

    def has(self, name):
        return self.page.locator(f"#{name}").count() > 0

    def click(self, name):
        self.page.locator(f"#{name}").click()

    def text(self, name):
        return self.page.evaluate("name => document.getElementById(name)?.innerText ?? ''", name)

    def set(self, name, value):
        """Set a value as its widget, which opens a menu, would."""
        self.page.evaluate("([name, value]) => window.trame.state.set(name, value)", [name, value])

    def state(self, name):
        return self.page.evaluate("name => window.trame.state.get(name)", name)

    def rows(self):
        rows = "[...document.querySelectorAll('#results tbody tr')]"
        return self.page.evaluate(f"{rows}.map(row => [...row.cells].map(cell => cell.innerText))")

    def look_at(self, row):
        self.page.locator("#results tbody tr").nth(row).click()

    def view(self, number):
        return self.page.locator(".layout-grid-item").nth(number)

    def pixels(self, number):
        """The pixels of a view as on the screen, (Y, X, RGB), from the top."""
        return np.array(Image.open(io.BytesIO(self.view(number).screenshot())).convert("RGB")).astype(int)

    def colored(self, number):
        """True where a view has colour: the segmentation, because the CT is grey."""
        return np.ptp(self.pixels(number), axis=-1) > 25

    def tool(self, icon):
        self.page.locator(f"#tools .mdi-{icon}").click()

    def place(self, number, share):
        """A position on the page, given in a view as the offset from its middle in shares of width and height."""
        box = self.view(number).bounding_box()
        return box["x"] + (0.5 + share[0]) * box["width"], box["y"] + (0.5 + share[1]) * box["height"]

    def press(self, number, share):
        self.page.mouse.click(*self.place(number, share))

    def drag(self, number, start, end):
        """Drag as slowly as a hand, because of simultaneous events the page sends only the last one."""
        for share, act in ((start, None), (start, self.page.mouse.down), (end, None), (end, self.page.mouse.up)):
            self.page.mouse.move(*self.place(number, share), steps=4)
            time.sleep(0.2)
            if act:
                act()
                time.sleep(0.2)

    def send(self, path):
        self.page.locator("#files").set_input_files(path)

    def download(self, kind, path):
        with self.page.expect_download() as downloading:
            self.page.locator(f"[id='download-{kind}']").click()
        downloading.value.save_as(path)
        return path

    def picture(self, path):
        """Save the page when the views no longer change, in 256 colours, which takes a third of the bytes."""
        time.sleep(3)
        Image.open(io.BytesIO(self.page.screenshot())).convert("RGB").quantize(256).save(path, optimize=True)

    def segment(self):
        self.set("took", "")
        self.set("wrong", False)
        self.click("apply")
        wait_until(lambda: self.state("took") or self.state("wrong"), "a result")
        assert not self.state("wrong"), self.text("message")
