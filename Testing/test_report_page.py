"""The report in a real browser: keys, filter, marks that stay, reviews out and in."""

from __future__ import annotations

import csv
import time

import pytest

from Testing.support.cohort_folder import SCRIPT, case, make_cohort
from UNetPlusPlusSegmentLib.jobs.report import SHOWN, make_report
from UNetPlusPlusSegmentLib.jobs.review import add_to_review, read_review


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = make_cohort(tmp_path_factory.mktemp("cohort") / "livers", 12)
    add_to_review(folder, "case0002", "flagged", "Cut", "A")
    return make_report(folder)


def current(page) -> str | None:
    return page.evaluate("document.querySelector('.current')?.dataset.case")


def shown(page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('.case:not([hidden])')].map((each) => each.dataset.case)")


def pressed(page, case: str, button: str) -> bool:
    article = page.locator(f"article[data-case='{case}']")
    return article.locator(button).get_attribute("aria-pressed") == "true"


def until(page, condition: str) -> None:
    """Wait; by `evaluate`, as the page's own policy forbids what Playwright's waiting functions do."""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def reviewed(download) -> list[dict[str, str]]:
    with open(download.path(), encoding="utf-8", newline="") as stream:  # noqa: PTH123
        return [*csv.DictReader(stream)]


def test_the_keys_walk_mark_and_comment(report, open_page):
    page = open_page(report)
    order = shown(page)
    page.keyboard.press("n")
    page.keyboard.press("n")
    assert current(page) == order[1]
    page.keyboard.press("p")
    assert current(page) == order[0]
    assert page.evaluate("document.activeElement.dataset.case") == order[0]
    page.keyboard.press("a")
    assert pressed(page, order[0], ".accept") and not pressed(page, order[0], ".flag")
    page.keyboard.press("f")
    assert pressed(page, order[0], ".flag") and not pressed(page, order[0], ".accept")
    page.keyboard.press("c")
    page.keyboard.type("a fan, nap")  # letters that are keys elsewhere
    page.keyboard.press("Enter")
    assert current(page) == order[0] and pressed(page, order[0], ".flag")
    page.keyboard.press("f")
    assert not pressed(page, order[0], ".flag"), "again takes it back"
    assert "0 accepted, 1 flagged" in page.inner_text("#count")


def test_marks_stay_in_the_browser_and_are_downloaded_with_those_of_the_folder(report, open_page):
    page = open_page(report)
    page.fill("#reviewer", "B, the second")
    page.locator("#reviewer").blur()
    page.keyboard.press("n")
    page.keyboard.press("a")
    first = current(page)
    marked = f"""document.querySelector("article[data-case='{first}'] .accept").ariaPressed === 'true'"""
    until(page, marked)  # a busy browser works keys off later
    page.reload()
    until(page, marked)
    assert page.input_value("#reviewer") == "B, the second"
    with page.expect_download() as saved:
        page.click("#download")
    assert saved.value.suggested_filename == "review.csv"
    rows = reviewed(saved.value)
    assert [(row["case"], row["verdict"], row["reviewer"]) for row in rows] == [
        ("case0002", "flagged", "A"),
        (first, "accepted", "B, the second"),
    ]


def test_a_downloaded_review_in_the_folder_is_in_the_next_report_and_no_line_is_lost(tmp_path, open_page):
    folder = make_cohort(tmp_path / "out", 4)
    add_to_review(folder, "case0000", "flagged", 'a "b", c', "A")
    page = open_page(make_report(folder))
    page.locator("article[data-case='case0000'] .accept").click()
    page.locator("article[data-case='case0002'] .comment").fill("=é, „ü“")
    page.locator("article[data-case='case0002'] .comment").press("Enter")
    with page.expect_download() as saved:
        page.click("#download")
    saved.value.save_as(folder / "review.csv")
    assert '"\'=é, „ü“"' in (folder / "review.csv").read_text(encoding="utf-8")  # no formula in a spreadsheet
    review = read_review(folder)
    assert (review["case0000"]["verdict"], review["case0000"]["comment"]) == ("accepted", 'a "b", c')
    assert (review["case0002"]["verdict"], review["case0002"]["comment"]) == ("", "=é, „ü“")
    page = open_page(make_report(folder))  # another browser, which has kept nothing
    assert pressed(page, "case0000", ".accept")
    assert page.locator("article[data-case='case0002'] .comment").input_value() == "=é, „ü“"


def test_a_loaded_review_counts_where_it_is_later(report, open_page, tmp_path):
    page = open_page(report)
    (tmp_path / "r.csv").write_bytes(
        "\ufeffcase;verdict;comment;reviewer;time\r\ncase0002;accepted;old;C;2001-01-01T00:00:00Z\r\n"
        'case0004;flagged;"\'-x; ""y""\nz";C;2026-01-01T00:00:00Z\r\ngone;flagged;;C;2026-01-01T00:00:00Z\r\n'.encode()
    )
    page.set_input_files("#load", tmp_path / "r.csv")
    until(page, "document.getElementById('message').textContent.includes('1 lines')")
    assert pressed(page, "case0002", ".flag")
    assert pressed(page, "case0004", ".flag")
    assert page.locator("article[data-case='case0004'] .comment").input_value() == '-x; "y"z'  # a field of one line
    with page.expect_download() as saved:
        page.click("#download")
    assert {row["case"] for row in reviewed(saved.value)} == {"case0002", "case0004", "gone"}
    (tmp_path / "x.csv").write_text("name,age\n")
    page.set_input_files("#load", tmp_path / "x.csv")
    until(page, "document.getElementById('message').textContent.includes('x.csv is not a review')")


def test_the_filter_goes_by_text_by_note_and_by_the_bars_of_the_histogram(report, open_page):
    page = open_page(report)
    page.fill("#filter", "case0003")
    assert shown(page) == ["case0003"]
    page.fill("#filter", "")
    page.select_option("#show", "failed")
    assert shown(page) == ["case0009"]
    page.select_option("#show", label="note: There is only one slice; it is assumed to be … mm thick.")
    assert sorted(shown(page)) == ["case0002", "case0006", "case0010"]
    page.select_option("#show", "flagged")
    assert shown(page) == ["case0002"]
    page.select_option("#show", "")
    page.locator(".bar:not([disabled])").last.click()
    assert shown(page) == ["case0003"], "the largest liver"
    page.click("#all")
    assert len(shown(page)) == 12
    page.click(".outlier >> text=case0003")
    assert current(page) == "case0003"


def test_next_goes_on_from_a_case_that_its_mark_has_hidden(report, open_page):
    page = open_page(report)
    page.select_option("#show", "open")
    page.locator("body").click(position={"x": 2, "y": 2})
    order = shown(page)
    for _ in range(3):
        page.keyboard.press("n")
        page.keyboard.press("a")
    assert shown(page) == order[3:]
    page.keyboard.press("n")
    assert current(page) == order[3]


def test_a_name_like_a_script_is_shown_as_it_is(report, open_page):
    page = open_page(report)
    assert page.locator("h2", has_text="<script>").text_content() == SCRIPT


def test_pictures_are_loaded_as_they_are_scrolled_to(tmp_path, open_page):
    page = open_page(make_report(make_cohort(tmp_path / "out", 1000)))
    page.locator("img").first.scroll_into_view_if_needed()
    until(page, "document.images[0].naturalWidth > 0")
    assert page.evaluate("[...document.images].filter((each) => each.naturalWidth).length") < 60
    page.locator("img").last.scroll_into_view_if_needed()
    until(page, "[...document.images].at(-1).naturalWidth > 0")


def test_all_figures_of_a_case_are_seen_at_once(tmp_path, open_page):
    def line(number):
        found = dict.fromkeys(SHOWN, 123.4) | {
            "expected_dice_low": 0.84,
            "expected_dice_high": 0.95,
            "kind": "part-solid",
        }
        slices = [{"k": 100 + n, "s_mm": -660.8} for n in range(3)]
        found |= {"doubtful_slices": slices, "cut_by_scan": ["inferior", "superior"]}
        of_nodules = "long_axis_mm", "short_axis_mm", "mean_diameter_mm", "kind", "solid_long_axis_mm", "probability"
        found |= dict.fromkeys(of_nodules)
        return {**case(0), "measurements": {"Liver": found}}

    page = open_page(make_report(make_cohort(tmp_path / "out", 1, line)))
    assert page.evaluate("(([table]) => table.scrollWidth <= table.clientWidth)(document.querySelectorAll('.scroll'))")


def contrast(page, selector: str) -> float:
    """Contrast of a text with the page, as WCAG 2 defines it."""

    def luminance(color: str) -> float:
        channels = [int(x) / 255 for x in color.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in channels]
        return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    text = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    low, high = sorted(luminance(each) for each in (text, back))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_and_everything_is_reached_without_a_mouse(report, open_page, scheme):
    page = open_page(report, color_scheme=scheme)
    for selector in ("h1", ".warning", ".about", "figcaption", "a", "small", ".accept"):
        assert contrast(page, selector) >= 4.5, selector
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"filter", "show", "reviewer", "download", "load", "bar", "outlier", "accept", "flag", "comment"} <= reached
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter((each) => !each.hidden && !each.textContent.trim()"
        " && !each.labels?.length && !each.ariaLabel).length"
    )
    assert unnamed == 0
