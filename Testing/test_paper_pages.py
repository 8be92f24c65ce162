"""The pages of the paper's table: what they say of records that are whole, that are few, and that are none."""

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
from paper.table import write_table
from Testing.support.paper_records import LEVELS, record

ROOT = Path(__file__).parents[1]


@pytest.fixture
def of_line():
    given = Namespace(steps=None, configs=ROOT / "training" / "configs" / "table", data=Path("d"), runs="r", threads=0)
    return {(d, a): cell_runs.settings_of(Cell(d, a, 1), given) for d in cells.DATASETS for a in cells.ARCHITECTURES}


@pytest.fixture
def results(tmp_path):
    """Records of nothing but times."""
    networks = (*cells.ARCHITECTURES, *LEVELS)
    rows = [[d, n, 1000 * (1 + k), f"{k}.50", f"0.{k + 1}"] for d in cells.DATASETS for k, n in enumerate(networks)]
    write_rows(tmp_path / "speed.csv", ["dataset", "network", "parameters", "gflop", "seconds_per_image"], rows)
    return Results(tmp_path)


def page(results, of_line) -> str:
    return Path(write_page(results, of_line)).read_text()


def line_of(text: str, *begin: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith("| " + " | ".join(begin) + " |"))
    return line


def gained(results: Results, dataset: str, *gains: float) -> None:
    """Three cases with one gain each, of every network but U-Net, with two seeds."""
    for seed in (1, 2):
        record(results, Cell(dataset, "unet", seed), a=0.5, b=0.6, c=0.7)
        for architecture in cells.ARCHITECTURES[1:]:
            ious = {case: iou + g for case, iou, g in zip("abc", (0.5, 0.6, 0.7), gains, strict=True)}
            record(results, Cell(dataset, architecture, seed), **ious)


def test_pages_of_nothing_say_of_everything_that_it_was_not_run(results, of_line):
    table, said = write_table(results, of_line), page(results, of_line)
    assert line_of(table, "polyp", "U-Net", "0", "not yet run")
    assert "0 of 62 trainings" in said and "nan" not in table + said
    assert "UNet++ against U-Net: not yet run." in said and "- liver: not yet run." in said
    assert "The paper's +3.9 points over U-Net: not yet run." in said


def test_a_network_is_called_better_only_if_its_interval_leaves_out_nought(results, of_line):
    gained(results, "nuclei", 0.02, 0.03, 0.04)
    gained(results, "polyp", -0.05, 0.0, 0.06)
    gained(results, "nodule", -0.02, -0.03, -0.04)
    said = page(results, of_line)
    assert "UNet++ against U-Net: better on nuclei; not to be told from it on polyp; worse on nodule." in said
    assert (
        "+3.9 points over U-Net, the mean of its four data sets, lie outside our interval for nuclei, polyp, nodule: +0.11"
        in said
    )
    assert "best network on nuclei, wide U-Net, has an IoU of 0.630" in said
    assert "seeds of U-Net on nodules lie 0.0 points apart" in said


def test_the_mean_gain_stands_beside_the_papers(results, of_line):
    gained(results, "nuclei", 0.02, 0.02, 0.02)
    gained(results, "nodule", 0.04, 0.04, 0.04)
    table = write_table(results, of_line)
    assert "+3.00 (+3.00 to +3.00)" in line_of(table, "**mean of those run**")
    assert "+3.9" in line_of(table, "the paper's mean of its four")
    assert line_of(table, "nuclei", "UNet++", "2").split("|")[5:7] == [" +2.00 (+2.00 to +2.00) "] * 2


def test_four_people_are_said_to_be_few(results, of_line):
    record(results, Cell("liver", "unet", 1), a=0.9, b=0.9, c=0.9, d=0.8)
    for text in (write_table(results, of_line), page(results, of_line)):
        assert "liver is measured on 4 people: the interval over them would hold the truth in 81 % of trials" in text
        assert "by chance in 1 of 8," in text


def test_what_twice_the_steps_added_is_told_for_each_network(results, of_line):
    for architecture, last in (("unet", 0.604), ("unetpp", 0.61)):
        record(results.half, Cell("nuclei", architecture, 1), steps=1000, validation=0.6, a=0.5, b=0.5)
        record(results, Cell("nuclei", architecture, 1), steps=2000, validation=last, a=0.52, b=0.54)
    record(results, Cell("nuclei", "unet", 2), steps=2000, validation=0.9, a=0.9, b=0.9)  # a seed without a half
    table = write_table(results, of_line)
    cells_of = line_of(table, "nuclei", "U-Net", "1000 → 2000").split("|")
    assert [cell.strip() for cell in cells_of[4:7]] == ["60.00 → 60.40", "+0.40", "50.00 → 53.00"]
    assert line_of(table, "nuclei", "wide U-Net", "not yet run")
    said = page(results, of_line)
    assert "2000 steps instead of 1000 add at most +1.00 points" in said
    assert "(UNet++; 2 of 4 networks), not less than 0.5" in said


def test_the_losses_are_compared_with_what_they_mark(results):
    for loss, iou in (("bce_dice", 0.8), ("hybrid", 0.7)):
        record(results, Cell("nuclei", "unetpp_ds", 1, loss), a=iou, b=iou)
    text = "\n".join(sections.losses(results))
    eq3 = [cell.strip() for cell in line_of(text, "eq. 3 of the paper").split("|")[2:-1]]
    assert eq3 == ["1", "70.00", "-10.00 (-10.00 to -10.00)", "100.00", "70.00", "0.700", "70.00 at 0.50"]
    assert line_of(text, "eq. 3 and the background's cross-entropy", "not yet run")


def test_a_step_costs_what_it_took_while_the_machine_did_the_least_else(results, of_line):
    record(results, Cell("nuclei", "unet", 1), steps=10, a=0.5)
    assert line_of(write_table(results, of_line), "nuclei", "U-Net", "1").endswith("| 12.00 |")


def test_the_same_weights_are_given_in_the_authors_measures_too(results, of_line):
    record(results, Cell("nuclei", "unetpp_ds", 1), a=0.8, b=0.8)
    assert "80.00 % as mean IoU of an image, 80.00 % by the authors' `compute_iou`" in " ".join(
        page(results, of_line).split()
    )
    assert " 80.00 | 81.67 | 92.52 " in line_of(
        write_table(results, of_line), "nuclei", "UNet++, deep supervision", "1"
    )


def test_of_two_objects_the_one_is_drawn_on_whose_edge_the_networks_differ_most():
    truth = np.zeros((60, 90), bool)
    truth[2:10, 20:30] = truth[40:50, 60:80] = True
    found = np.stack([truth] * 3)
    found[0, 40] = False  # one of three networks misses a row of the second object
    (first, few), (second, many) = differences(truth, found)
    assert first == (slice(0, 10 + MARGIN), slice(20 - MARGIN, 30 + MARGIN)) and few == 0
    assert second == (slice(40 - MARGIN, 50 + MARGIN), slice(60 - MARGIN, 80 + MARGIN)) and many == 20
