"""The pages of the paper's table: their text with complete, with few and with no records."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from paper import cell_runs, cells, sections
from paper.cells import Cell
from paper.files import write_rows
from paper.images import MARGIN, differences
from paper.page import write_page
from paper.records import Results
from paper.speeds import COLUMNS
from paper.summary import BASELINES, paper_gain
from paper.table import write_table
from Testing.support.paper_records import LEVELS, record

ROOT = Path(__file__).parents[1]


@pytest.fixture
def of_line():
    given = Namespace(steps=None, configs=ROOT / "training" / "configs" / "table", data=Path("d"), runs="r", threads=0)
    return {(d, a): cell_runs.settings_of(Cell(d, a, 1), given) for d in cells.DATASETS for a in cells.ARCHITECTURES}


@pytest.fixture
def results(tmp_path):
    """Records that contain only the speeds."""
    networks = (*cells.ARCHITECTURES, *LEVELS)
    rows = [[d, n, 1000 * (1 + k), f"{k}.50", f"0.{k + 1}", k] for d in cells.DATASETS for k, n in enumerate(networks)]
    write_rows(tmp_path / "speed.csv", COLUMNS, rows)
    return Results(tmp_path)


def page(results, of_line) -> str:
    return Path(write_page(results, of_line)).read_text()


def line_of(text: str, *begin: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith("| " + " | ".join(begin) + " |"))
    return line


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def gained(results: Results, dataset: str, *gains: float) -> None:
    """Record three cases, with one gain over U-Net each, for all networks and two seeds."""
    for seed in (1, 2):
        record(results, Cell(dataset, "unet", seed), a=0.5, b=0.6, c=0.7)
        for architecture in cells.ARCHITECTURES[1:]:
            ious = {case: iou + g for case, iou, g in zip("abc", (0.5, 0.6, 0.7), gains, strict=True)}
            record(results, Cell(dataset, architecture, seed), **ious)


def test_pages_without_records_say_that_nothing_was_run(results, of_line):
    table, said = write_table(results, of_line), page(results, of_line)
    assert line_of(table, "polyp", "U-Net", "0", "not yet run")
    assert "0 of 62 trainings" in said and "nan" not in table + said
    assert "UNet++, compared with U-Net: not yet run." in said and "- liver: not yet run." in said
    assert "Deep supervision's gain over U-Net, compared with the paper's: not yet run." in said


def test_what_holds_for_one_seed_only_says_so(results, of_line):
    record(results, Cell("polyp", "unet", 1), a=0.5, b=0.6, c=0.7)
    record(results, Cell("polyp", "unetpp", 1), a=0.6, b=0.7, c=0.8)
    assert "UNet++, compared with U-Net: better on polyp (one seed)." in page(results, of_line)


def test_a_network_is_called_better_only_if_its_interval_excludes_zero(results, of_line):
    gained(results, "nuclei", 0.02, 0.03, 0.04)
    gained(results, "polyp", -0.05, 0.0, 0.06)
    gained(results, "nodule", -0.02, -0.03, -0.04)
    said = page(results, of_line)
    assert "UNet++, compared with U-Net: better on nuclei; no clear difference on polyp; worse on nodule." in said
    assert "Deep supervision's gain over U-Net on nuclei, polyp, nodule is +0.11" in said
    assert "best network on nuclei is wide U-Net, with a mean IoU per image of 0.630, or 0.630 over the pixels" in said
    assert "seeds of U-Net differ by up to 0.0 points on nodules" in said


def test_the_mean_gain_stands_beside_the_papers_on_the_same_data_sets(results, of_line):
    gained(results, "nuclei", 0.02, 0.02, 0.02)
    gained(results, "nodule", 0.04, 0.04, 0.04)
    table, said = write_table(results, of_line), page(results, of_line)
    ours, papers = "+3.00 (+3.00 to +3.00)", f"{(92.52 - 90.77 + 77.21 - 71.47) / 2:+.2f}"
    assert cells_of(line_of(table, "**mean of those run**"))[1:4] == [ours, ours, papers]
    assert f"on nuclei, nodule is {ours} points. The paper's gain on the same data, {papers}, lies outside" in said
    assert cells_of(line_of(table, "nuclei", "UNet++", "2"))[4:6] == ["+2.00 (+2.00 to +2.00)"] * 2


def test_the_papers_mean_gains_on_all_four_data_sets_are_those_of_its_abstract():
    gains = [paper_gain(cells.DATASETS, other) for other in BASELINES]
    assert gains == pytest.approx([0.039, 0.034], abs=0.0006)


def test_one_seed_gives_no_interval_over_seeds(results, of_line):
    for architecture, iou in (("unet", 0.5), ("unetpp_ds", 0.6)):
        record(results, Cell("nuclei", architecture, 1), a=iou, b=iou)
    table = write_table(results, of_line)
    gain = ["+10.00 (+10.00 to +10.00)", "+10.00, one seed"]
    assert cells_of(line_of(table, "nuclei", "UNet++ with deep supervision", "1"))[4:6] == gain
    assert cells_of(line_of(table, "**mean of those run**"))[1:3] == gain


def test_the_page_warns_about_a_data_set_with_four_people(results, of_line):
    record(results, Cell("liver", "unet", 1), a=0.9, b=0.9, c=0.9, d=0.8)
    for text in (write_table(results, of_line), page(results, of_line)):
        assert "liver is measured on 4 people only: an interval over them would contain the true mean in 81 %" in text
        assert "better on all of them in 1 of 8 cases" in text


def test_the_effect_of_twice_the_steps_is_given_for_each_network(results, of_line):
    for architecture, last in (("unet", 0.604), ("unetpp", 0.61)):
        record(results.half, Cell("nuclei", architecture, 1), steps=1000, validation=0.6, a=0.5, b=0.5)
        record(results, Cell("nuclei", architecture, 1), steps=2000, validation=last, a=0.52, b=0.54)
    record(results, Cell("nuclei", "unet", 2), steps=2000, validation=0.9, a=0.9, b=0.9)  # a seed without a half
    table = write_table(results, of_line)
    assert cells_of(line_of(table, "nuclei", "U-Net", "1000 → 2000"))[3:6] == [
        "60.00 → 60.40",
        "+0.40",
        "50.00 → 53.00",
    ]
    assert line_of(table, "nuclei", "wide U-Net", "not yet run")
    said = page(results, of_line)
    assert "nuclei: not converged. 2000 steps instead of 1000 add at most +1.00 points, for UNet++" in said
    assert "(2 of 4 networks have been compared)" in said
    assert (
        "- The trainings on nuclei have not converged (below), so a gain there also says how fast a network learns"
        in said
    )


def test_the_losses_are_compared_by_iou_precision_and_pixels_found(results):
    for loss, iou in (("bce_dice", 0.8), ("hybrid", 0.7)):
        record(results, Cell("nuclei", "unetpp_ds", 1, loss), a=iou, b=iou)
    text = "\n".join(sections.losses(results))
    eq3 = cells_of(line_of(text, "eq. 3 of the paper"))[1:]
    assert eq3 == ["1", "70.00", "-10.00, one seed", "100.00", "70.00", "0.700", "70.00 at 0.50"]
    assert line_of(text, "eq. 3 with the background's cross-entropy", "not yet run")


def test_the_page_gives_the_authors_measures_of_the_same_weights(results, of_line):
    record(results, Cell("nuclei", "unetpp_ds", 1), a=0.8, b=0.8)
    said = page(results, of_line)
    assert "mean IoU per image of 80.00 %" in said
    assert "by `compute_iou`, over the pixels of all images together, the same weights have 80.00 %" in said
    assert " 80.00 | 81.67 | 92.52 " in line_of(
        write_table(results, of_line), "nuclei", "UNet++ with deep supervision", "1"
    )


def test_the_object_on_whose_edge_the_networks_differ_most_is_drawn():
    truth = np.zeros((60, 90), bool)
    truth[2:10, 20:30] = truth[40:50, 60:80] = True
    found = np.stack([truth] * 3)
    found[0, 40] = False  # one of three networks misses a row of the second object
    (first, few), (second, many) = differences(truth, found)
    assert first == (slice(0, 10 + MARGIN), slice(20 - MARGIN, 30 + MARGIN)) and few == 0
    assert second == (slice(40 - MARGIN, 50 + MARGIN), slice(60 - MARGIN, 80 + MARGIN)) and many == 20
