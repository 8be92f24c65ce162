"""The cost of the table's networks: measured once, and again as soon as something else would be measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fit.settings import Settings, load_settings
from paper import cells, speeds
from paper.files import read_rows
from paper.speeds import COLUMNS, measure_speeds

TRAINING = Path(speeds.__file__).parents[1]
TINY = Settings("tiny", "nuclei", "data", filters=(2, 3, 4), patch=(16, 16), batch_size=2)
OF_LINE = {
    (dataset, name): replace(TINY, target=dataset, architecture=name)
    for dataset in ("nuclei", "liver")
    for name in ("unet", "unetpp_ds")
}


@pytest.fixture
def timed(monkeypatch) -> list[str]:
    """The networks that were timed, instead of timing them."""
    timed: list[str] = []

    def seconds(works):
        timed.extend(works)
        return dict.fromkeys(works, 0.5)

    monkeypatch.setattr(speeds, "_seconds", seconds)
    return timed


def test_a_measured_network_has_its_size_and_times(tmp_path):
    measure_speeds(tmp_path / "speed.csv", {("liver", "unetpp_ds"): OF_LINE["liver", "unetpp_ds"]})
    rows = read_rows(tmp_path / "speed.csv")
    assert [row["network"] for row in rows] == ["unetpp_ds", "L1", "L2"] and tuple(rows[0]) == COLUMNS
    assert all(int(row["parameters"]) > 0 and float(row["seconds_per_image"]) > 0 for row in rows)
    assert float(rows[0]["seconds_per_step"]) > 0 and rows[1]["seconds_per_step"] == ""
    expected = "batch 2 x 1 x 16 x 16; filters 2 3 4; batch norm; outputs 1; bce_dice"
    assert {row["measured_with"] for row in rows} == {expected}


def test_costs_on_record_are_kept_unless_one_of_them_is_missing(tmp_path, timed):
    table = tmp_path / "speed.csv"
    measure_speeds(table, OF_LINE)
    measured = table.read_text()
    timed.clear()
    measure_speeds(table, OF_LINE)
    assert not timed and table.read_text() == measured
    table.write_text("\n".join(line for line in measured.splitlines() if not line.startswith("liver,unet,")) + "\n")
    measure_speeds(table, OF_LINE)
    assert timed.count("unet") == 2 and sorted(table.read_text()) == sorted(
        measured
    )  # an image and a step of the liver
    table.write_text("\n".join(line.rpartition(",")[0] for line in measured.splitlines()) + "\n")  # an older file
    measure_speeds(table, OF_LINE)
    assert table.read_text() == measured


@pytest.mark.parametrize(
    "change",
    [{"patch": (32, 16)}, {"batch_size": 4}, {"filters": (4, 3, 2)}, {"batch_norm": False}, {"loss": "hybrid"}],
)
def test_costs_are_measured_anew_where_the_config_of_the_data_set_says_something_else(tmp_path, timed, change):
    table = tmp_path / "speed.csv"
    measure_speeds(table, OF_LINE)
    nuclei = [row for row in read_rows(table) if row["dataset"] == "nuclei"]
    timed.clear()
    changed = {line: replace(each, **change) if line[0] == "liver" else each for line, each in OF_LINE.items()}
    measure_speeds(table, changed)
    assert timed.count("unet") == 2 and [row for row in read_rows(table) if row["dataset"] == "nuclei"] == nuclei
    timed.clear()
    measure_speeds(table, changed)
    assert not timed


def test_what_costs_the_same_is_not_measured_anew(tmp_path, timed):
    measure_speeds(tmp_path / "speed.csv", OF_LINE)
    timed.clear()
    others = {"steps": 500, "learning_rate": 1.0, "pixel_mm": 3.0, "data": "elsewhere", "seed": 9, "threads": 3}
    measure_speeds(tmp_path / "speed.csv", {line: replace(each, **others) for line, each in OF_LINE.items()})
    assert not timed


def test_the_costs_of_the_table_are_those_of_its_configs():
    of_row = {
        (row["dataset"], row["network"]): row["measured_with"] for row in read_rows(TRAINING / "results/speed.csv")
    }
    for dataset in cells.DATASETS:
        config = load_settings(TRAINING / "configs" / "table" / f"{dataset}.yaml")
        for name in cells.ARCHITECTURES:
            assert of_row[dataset, name] == speeds.measured_with(replace(config, architecture=name)), (dataset, name)
        levels = {of_row[dataset, f"L{level}"] for level in (1, 2, 3, 4)}
        assert levels == {of_row[dataset, "unetpp_ds"]}
