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
from paper.records import Measured, Results
from paper.speeds import COLUMNS
from paper.summary import BASELINES, paper_gain
from paper.table import write_table
from Testing.support.paper_records import LEVELS, counted, record, settings_of

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


def of_cases(*ious: float) -> dict[str, float]:
    """Twelve cases with these IoUs in turn: enough to call a network better."""
    return {f"case {n}": ious[n % len(ious)] for n in range(12)}


def gained(results: Results, dataset: str, *gains: float) -> None:
    """Record twelve cases with these three gains over U-Net in turn, for all networks and two seeds."""
    before = (0.5, 0.6, 0.7)
    for seed in (1, 2):
        record(results, Cell(dataset, "unet", seed), **of_cases(*before))
        for architecture in cells.ARCHITECTURES[1:]:
            after = of_cases(*(iou + g for iou, g in zip(before, gains, strict=True)))
            record(results, Cell(dataset, architecture, seed), **after)


def test_pages_without_records_say_that_nothing_was_run(results, of_line):
    table, said = write_table(results, of_line), page(results, of_line)
    assert line_of(table, "polyp", "U-Net", "0", "not yet run")
    assert "0 of 78 trainings" in said and "nan" not in table + said
    assert "UNet++, compared with U-Net: not yet run." in said and "- liver: not yet run." in said
    assert "The mean gain of UNet++ with deep supervision over U-Net: not yet run." in said
    assert "Whether the trainings have converged has not been decided on nuclei, polyp, liver, nodule." in said


def test_what_holds_for_one_seed_only_says_so(results, of_line):
    for architecture, more in (("unet", 0.0), ("unetpp", 0.1), ("unetpp_ds", 0.1)):
        record(results, Cell("polyp", architecture, 1), **of_cases(0.5 + more, 0.6 + more))
    said = page(results, of_line)
    assert "UNet++, compared with U-Net: better on polyp (one seed)." in said
    assert "over U-Net on polyp is +10.00 (+10.00 to +10.00) points, one seed. By the authors' two measures" in said
    assert "another seed may say otherwise" in said
    assert cells_of(line_of(said, "polyp", "55.00 (1)"))[5] == "+10.00 (+10.00 to +10.00), one seed"


def test_with_few_cases_no_network_is_called_better(results, of_line):
    for architecture, iou in (("unet", 0.5), ("unetpp", 0.6)):
        record(results, Cell("liver", architecture, 1), a=iou, b=iou, c=iou, d=iou)
    assert "UNet++, compared with U-Net: too few cases to tell on liver (one seed)." in page(results, of_line)


def test_the_page_names_trainings_in_another_precision_than_most_of_their_data_set(results, of_line):
    for seed, processor in enumerate(("EPYC, bf16", "EPYC", "EPYC, fp32", "Xeon, bf16"), start=1):
        record(results, Cell("polyp", "unet", seed), processor=processor, a=0.5)
        record(results, Cell("liver", "unet", seed), processor="EPYC, fp32", a=0.5)
    said = page(results, of_line)
    assert "polyp: most trainings computed in bf16, but U-Net's seed 3 (fp32) did not" in said
    assert said.count("most trainings computed in") == 1


def test_a_network_is_called_better_only_if_its_interval_excludes_zero(results, of_line):
    gained(results, "nuclei", 0.02, 0.03, 0.04)
    gained(results, "polyp", -0.05, 0.0, 0.06)
    gained(results, "nodule", -0.02, -0.03, -0.04)
    said = page(results, of_line)
    verdicts = "better on nuclei (2 seeds); no clear difference on polyp (2 seeds); worse on nodule (2 seeds)"
    assert f"UNet++, compared with U-Net: {verdicts}." in said
    assert "over U-Net on nuclei, polyp, nodule is +0.11" in said
    assert " points, from -3.00 on nodule to +3.00 on nuclei; without nuclei it is -1.33 (" in said
    assert "another seed may say otherwise" not in said
    assert (
        "On nuclei wide U-Net has the highest mean IoU per image, 0.630. As the mean over batches of 16 images" in said
    )


def test_the_page_says_how_much_seeds_of_one_network_differ(results, of_line):
    for seed, iou, validation in ((1, 0.5, 0.4), (2, 0.52, 0.45)):
        record(results, Cell("nodule", "wide_unet", seed), validation=validation, **of_cases(iou))
        record(results, Cell("nodule", "unet", seed), **of_cases(0.5))
    said = page(results, of_line)
    begin, unknown = (
        "The largest difference between seeds of one network, in points of",
        "on nuclei, polyp, liver is not known.",
    )
    assert f"- {begin} the IoU of a case: 2.0 on nodule (wide U-Net). How much they differ {unknown}" in said
    assert f"{begin} validation IoU: 5.0 on nodule (wide U-Net). How much they differ {unknown}" in said


def test_the_mean_gain_stands_beside_the_papers_on_the_same_data_sets(results, of_line):
    gained(results, "nuclei", 0.02, 0.02, 0.02)
    gained(results, "nodule", 0.04, 0.04, 0.04)
    table, said = write_table(results, of_line), page(results, of_line)
    ours, papers = "+3.00 (+3.00 to +3.00)", f"{(92.52 - 90.77 + 77.21 - 71.47) / 2:+.2f}"
    assert cells_of(line_of(table, "**mean of those run**"))[1:4] == [ours, ours, papers]
    assert f"on nuclei, nodule is {ours} points, from +2.00 on nuclei to +4.00 on nodule." in said
    assert f"; the mean of the paper's gains is {papers}." in said
    assert cells_of(line_of(table, "nuclei", "UNet++", "2"))[4:6] == ["+2.00 (+2.00 to +2.00)"] * 2


def test_the_papers_mean_gains_on_all_four_data_sets_are_those_of_its_abstract():
    gains = [paper_gain(cells.DATASETS, other) for other in BASELINES]
    assert gains == pytest.approx([0.039, 0.034], abs=0.0006)


def test_the_paper_has_no_mean_gain_with_a_data_set_that_it_lacks():
    assert paper_gain(["nuclei", "organs"], "unet") is None


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
        assert "liver is measured on 4 people only: an interval over them would contain the true mean 81 %" in text
        assert "better on all of them with a chance of 1 in 8" in text


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
    assert [line.count("not yet run") for line in table.splitlines() if line.startswith("| nuclei | wide U-Net |")][
        -2:
    ] == [5, 5]
    said = page(results, of_line)
    assert "nuclei: not converged after half of the steps. 2000 steps instead of 1000 add at most +1.00 points" in said
    assert "for UNet++ (2 of 4 networks have been compared)" in said
    assert "- The trainings had not converged after half of the steps on nuclei; whether they have after all" in said
    assert "- Whether the trainings have converged has not been decided on polyp, liver, nodule." in said


def test_where_half_of_the_steps_were_too_few_the_page_says_what_the_gain_was_after_them(results, of_line):
    for architecture, half, whole in (("unet", 0.5, 0.6), ("unetpp_ds", 0.45, 0.7)):
        record(results.half, Cell("polyp", architecture, 1), steps=1000, validation=0.5, **of_cases(half))
        record(results, Cell("polyp", architecture, 1), steps=2000, validation=0.6, **of_cases(whole))
        record(results, Cell("polyp", architecture, 2), steps=2000, validation=0.6, **of_cases(0.5))  # without a half
    record(results.half, Cell("liver", "unet", 1), steps=1000, validation=0.5, **of_cases(0.5))  # without a rival
    record(results, Cell("liver", "unet", 1), steps=2000, validation=0.6, **of_cases(0.6))
    begin = "After half of them, the gain of UNet++ with deep supervision over U-Net was, with the same seeds,"
    assert f"{begin} -5.00 instead of +10.00 on polyp." in page(results, of_line)


def test_a_data_set_has_converged_only_once_every_network_was_compared(results, of_line):
    for architecture in cells.ARCHITECTURES:
        assert "- polyp: converged." not in page(results, of_line)
        record(results.half, Cell("polyp", architecture, 1), steps=1000, validation=0.6, a=0.5)
        record(results, Cell("polyp", architecture, 1), steps=2000, validation=0.604, a=0.5)
        if architecture == "unet":
            assert "- polyp: undecided. 2000 steps instead of 1000 add at most +0.40 points" in page(results, of_line)
    said = page(results, of_line)
    assert "- polyp: converged. 2000 steps instead of 1000 add at most +0.40 points, for U-Net (4 of 4" in said
    assert "On average over the networks" not in said
    assert "has not been decided on nuclei, liver, nodule." in said


def test_what_both_doublings_added_is_given_once_every_network_has_them(results, of_line):
    levels = (results.half.half, 500, 0.5), (results.half, 1000, 0.58), (results, 2000, 0.6)
    for add, architecture in enumerate(cells.ARCHITECTURES):
        for each, steps, validation in levels:
            record(each, Cell("polyp", architecture, 1), steps=steps, validation=validation + 0.01 * add, a=0.5)
    record(results, Cell("polyp", "unet", 1), steps=2000, validation=0.64, a=0.5)
    table = write_table(results, of_line)
    assert cells_of(line_of(table, "polyp", "UNet++", "500 → 1000"))[3:5] == ["52.00 → 60.00", "+8.00"]
    assert cells_of(line_of(table, "polyp", "U-Net", "1000 → 2000"))[3:5] == ["58.00 → 64.00", "+6.00"]
    said = page(results, of_line)
    assert "On average over the networks, the doubling from 500 to 1000 added +8.00, and the next one +3.00." in said
    assert "This page is based on 12 of 78 trainings." in said


def test_the_table_says_on_what_the_validation_is_computed(results, of_line):
    table = write_table(results, of_line)
    assert "(1/3 of nuclei, 1/5 of polyp, 1/16 of liver, 1/4 of nodule)" in table
    assert "Dice is that of all images together (nuclei, polyp) or the mean over patients" in table


def test_the_page_says_where_people_who_are_measured_also_serve_for_the_validation(results, of_line):
    said = page(results, of_line)
    assert "- liver, nodule: the people of `val` serve for the validation while learning and for the" in said
    assert "- nuclei, polyp: a case is an image." in said


def test_the_gain_of_the_deepest_head_over_the_mean_of_all_is_paired_by_case(results, of_line):
    cell = Cell("nuclei", "unetpp_ds", 1)
    counts, deeper = counted(of_cases(0.5, 0.6)), counted(of_cases(0.53, 0.63))
    counts.of |= {name: deeper.of[name] for name in ("found L4", "right L4")}
    settings = settings_of(cell)
    results.record(cell, Measured(settings, 1.0, counts, [(1, 1.0, "val_iou", 0.5)], {}))
    (line, *_) = (line for line in sections.heads(results, ["nuclei"]) if line.startswith("| nuclei"))
    assert cells_of(line)[1:] == ["55.00", "55.00", "55.00", "55.00", "58.00", "+3.00 (+3.00 to +3.00)"]
    record(results, Cell("nuclei", "unet", 1), **of_cases(0.58, 0.68))
    said = page(results, of_line)
    assert "L4, alone, compared with the mean of its four heads: better on nuclei (one seed)." in said
    assert "L4, alone, compared with U-Net: worse on nuclei (one seed)." in said


def test_the_losses_are_compared_by_iou_precision_and_pixels_found(results):
    for loss, iou in (("bce_dice", 0.8), ("hybrid", 0.7)):
        record(results, Cell("nuclei", "unetpp_ds", 1, loss), a=iou, b=iou)
    text = "\n".join(sections.losses(results))
    eq3 = cells_of(line_of(text, "eq. 3 of the paper"))[1:]
    assert eq3 == ["1", "70.00", "-10.00, one seed", "100.00", "70.00", "0.700", "70.00 at 0.50"]
    assert line_of(text, "eq. 3 with the background's cross-entropy", "not yet run")


def test_the_mean_gain_is_given_by_the_authors_measures_too(results, of_line):
    for architecture, iou in (("unet", 0.5), ("unetpp_ds", 0.8)):
        record(results, Cell("nuclei", architecture, 1), a=iou, b=iou)
    record(results, Cell("nuclei", "unet", 2), a=0.1, b=0.1)  # a seed without a rival
    seeds = {network: results.counts(Cell("nuclei", network, 1)) for network in ("unet", "unetpp_ds")}
    mean = 100 * (seeds["unetpp_ds"].mean_iou() - seeds["unet"].mean_iou())
    said = f"By the authors' two measures it is +30.00 (`compute_iou`) and {mean:+.2f} (`mean_iou`); the mean of the"
    assert said in page(results, of_line)


def test_the_page_gives_the_authors_measures_of_the_same_weights(results, of_line):
    record(results, Cell("nuclei", "unetpp_ds", 1), a=0.8, b=0.8)
    said = page(results, of_line)
    assert "mean IoU per image of 80.00 %" in said
    assert "by `compute_iou`, over the pixels of all images together, the same weights have 80.00 %" in said
    assert " 80.00 | 81.67 | 92.52 " in line_of(
        write_table(results, of_line), "nuclei", "UNet++ with deep supervision", "1"
    )


def test_the_page_says_how_much_is_found_at_the_highest_threshold(results, of_line):
    for architecture, iou in (("unet", 0.5), ("unetpp_ds", 0.8)):
        record(results, Cell("nuclei", architecture, 1), a=iou, b=iou)
        assert ("0.95" in page(results, of_line)) == (architecture == "unetpp_ds"), "compared with U-Net"
    unsure = Cell("nuclei", "unetpp_ds", 1)
    counts = results.counts(unsure)
    counts.of["found all>0.95"] //= 4
    counts.write(results.folder / "cells" / unsure.name / "cases.csv")
    assert "for each true pixel, 0.20 (0.50) on nuclei: the figures in brackets are" in page(results, of_line)


def test_the_object_on_whose_edge_the_networks_differ_most_is_drawn():
    truth = np.zeros((60, 90), bool)
    truth[2:10, 20:30] = truth[40:50, 60:80] = True
    found = np.stack([truth] * 3)
    found[0, 40] = False  # one of three networks misses a row of the second object
    (first, few), (second, many) = differences(truth, found)
    assert first == (slice(0, 10 + MARGIN), slice(20 - MARGIN, 30 + MARGIN)) and few == 0
    assert second == (slice(40 - MARGIN, 50 + MARGIN), slice(60 - MARGIN, 80 + MARGIN)) and many == 20
