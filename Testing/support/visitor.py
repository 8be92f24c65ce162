"""A visitor of the app: what a person does in a headless Chromium, and sees there."""

from __future__ import annotations

import io
import time

import numpy as np
from PIL import Image
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

AXIAL, THREED, CORONAL, SAGITTAL = range(4)


def wait_until(seen, what, seconds=60):
    """Wait for a true value of `seen()`, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = seen()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain: {what}")


class Visitor:
    """A browser on the page of the app."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        wait_until(lambda: self.has("apply"), "the page")

    def has(self, name):
        return self.browser.find_elements(By.ID, name)

    def click(self, name):
        wait_until(lambda: self.has(name) and self.has(name)[0].is_enabled(), name)
        self.has(name)[0].click()

    def text(self, name):
        return self.browser.execute_script("return document.getElementById(arguments[0])?.innerText ?? ''", name)

    def set(self, name, value):
        """As the widget would, which opens a menu."""
        self.browser.execute_script("window.trame.state.set(arguments[0], arguments[1])", name, value)

    def state(self, name):
        return self.browser.execute_script("return window.trame.state.get(arguments[0])", name)

    def rows(self):
        return self.browser.execute_script(
            "return [...document.querySelectorAll('#results tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
        )

    def look_at(self, row):
        self.browser.find_elements(By.CSS_SELECTOR, "#results tbody tr")[row].click()

    def view(self, number):
        return self.browser.find_elements(By.CLASS_NAME, "layout-grid-item")[number]

    def pixels(self, number):
        """(Y, X, RGB) of a view as it is on the screen, the top first."""
        return np.array(Image.open(io.BytesIO(self.view(number).screenshot_as_png)).convert("RGB")).astype(int)

    def colored(self, number):
        """True where a view has colour: the segmentation, for the CT is grey."""
        return np.ptp(self.pixels(number), axis=-1) > 25

    def tool(self, icon):
        self.browser.find_element(By.CSS_SELECTOR, f"#tools .mdi-{icon}").click()

    def press(self, number, place):
        """Click in a view; the place is from its middle, as a share of width and height."""
        view = self.view(number)
        offset = (round(place[0] * view.size["width"]), round(place[1] * view.size["height"]))
        ActionChains(self.browser).move_to_element_with_offset(view, *offset).click().perform()

    def drag(self, number, start, way):
        view = self.view(number)
        ActionChains(self.browser, duration=50).move_to_element_with_offset(
            view, *start
        ).click_and_hold().move_by_offset(way[0] // 2, way[1] // 2).move_by_offset(
            way[0] // 2, way[1] // 2
        ).release().perform()

    def picture(self, path):
        """Save the page, once the views have come to rest."""
        time.sleep(3)
        self.browser.save_screenshot(str(path))

    def segment(self):
        self.set("took", "")
        self.set("wrong", False)
        self.click("apply")
        wait_until(lambda: self.state("took") or self.state("wrong"), "a result")
        assert not self.state("wrong"), self.text("message")
