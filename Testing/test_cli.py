"""The command line as a user meets it: in a real child process, on real files; an error is one line on stderr and leaves no file."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.bodies import body
from Testing.support.bright import BRIGHT_HU, bright_bundle
from Testing.support.sample_files import write_slice
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.files import FORMS
from UNetPlusPlusSegmentLib.files.reading import READERS

ODD = "odd_inputs"


@pytest.fixture
def scan(tmp_path):
    volume = body()
    path = tmp_path / "scan.nrrd"
    files.write_volume(path, volume.array, volume.ijk_to_ras)
    return path


def in_a_child(*arguments, models=None) -> subprocess.CompletedProcess:
    environment = {**os.environ, "UNETPP_MODELS": str(models or "")}
    command = [sys.executable, "-m", "UNetPlusPlusSegmentLib.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_scan_becomes_every_output_that_was_asked_for(scan, shell_models, tmp_path):
    names = {
        "-o": "liver.seg.nrrd",
        "--probability": "p.nrrd",
        "--uncertainty": "u.nii.gz",
        "--report": "r.csv",
        "--overlay": "o.png",
    }
    options = [part for option, name in names.items() for part in (option, tmp_path / name)]
    done = in_a_child("liver", scan, *options, "--json", "--device", "cpu", models=shell_models)
    assert done.returncode == 0 and done.stderr == ""
    summary = json.loads(done.stdout)
    truth = body().array >= BRIGHT_HU
    (segment,) = summary["segments"]
    assert segment["name"] == "Liver"
    assert segment["volume_ml"] == pytest.approx(truth.sum() * 2 * 2 * 3 / 1000)
    assert segment["mean_hu"] == pytest.approx(body().array[truth].mean(), abs=1e-2)
    assert summary["device"].startswith("cpu") and summary["slices"] > 0
    assert 0 < summary["seconds"] < summary["seconds_total"]
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "liver.seg.nrrd")))
    np.testing.assert_array_equal(mask > 0, truth)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names.values(), "scan.nrrd"])


def test_maps_have_the_digits_that_mean_something_and_compress(shared_data, tmp_path):
    scan = shared_data("volumes/abdomen_dicom")
    names = {"-o": "liver.seg.nrrd", "--probability": "p.nrrd", "--uncertainty": "u.nii.gz"}
    options = [part for option, name in names.items() for part in (option, tmp_path / name)]
    assert in_a_child("liver", scan, *options, "--quiet", "--device", "cpu").returncode == 0
    for name in ("p.nrrd", "u.nii.gz"):
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
        np.testing.assert_allclose(values, values.round(3), atol=1e-6)
        assert len(np.unique(values)) > 100
        assert (tmp_path / name).stat().st_size < values.nbytes / 15


def test_the_result_is_told_in_words(scan, with_models, tmp_path, capsys):
    assert main(["liver", str(scan), "-o", str(tmp_path / "l.nii.gz")]) == 0
    printed = capsys.readouterr()
    assert "Liver: 162 ml, mean 90 HU" in printed.out
    assert "research" in printed.err


def refused(capsys, *arguments) -> str:
    """The one line on stderr of a command that must fail with exit code 1."""
    assert main([str(a) for a in arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("unetpp-segment: ")
    assert "unexpected" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{ODD}/MR_Gd.nii.gz", "does not look like CT"),
        ("volumes/not_ct_mr.nii.gz", "does not look like CT"),
        (f"{ODD}/CT_pitch.nii.gz", "8 bits"),
        (f"{ODD}/example4d.nii.gz", "sequence|values in each voxel"),
        (f"{ODD}/functional.nii", "sequence|4D"),
        (f"{ODD}/SC_rgb.dcm", "RGB"),
        (f"{ODD}/liver.dcm", "SEG"),
        (f"{ODD}/corrupt_jpeg2000", "decoded|damaged"),
        (f"{ODD}/example_nifti2.nii.gz", "NIfTI-2"),
    ],
)
def test_an_odd_input_gets_one_clear_sentence_and_no_output(shared_data, with_models, tmp_path, capfd, name, words):
    source = shared_data(name)
    assert main(["liver", str(source), "-o", str(tmp_path / "x.nii.gz")]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.search(words, lines[0]), lines[0]
    assert "unexpected" not in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [f"{ODD}/693_UNCR.dcm", f"{ODD}/gantry_tilt_dicom", f"{ODD}/eCT_Supplemental.dcm"])
def test_an_odd_ct_runs(shared_data, with_models, tmp_path, capfd, name):
    assert main(["liver", str(shared_data(name)), "-o", str(tmp_path / "x.seg.nrrd"), "--json"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out)["segments"][0]["name"] == "Liver"


def test_a_tilted_stack_is_not_squeezed_into_nifti(shared_data, with_models, tmp_path, capsys):
    tilted = shared_data(f"{ODD}/gantry_tilt_dicom")
    assert ".seg.nrrd" in refused(capsys, "liver", tilted, "-o", tmp_path / "x.nii.gz")
    assert not list(tmp_path.iterdir())


def test_no_such_file(with_models, tmp_path, capsys):
    assert "no file or folder" in refused(capsys, "liver", tmp_path / "none.nrrd", "-o", tmp_path / "x.nii.gz")


def test_an_output_folder_that_is_missing_is_refused_before_anything_is_read(with_models, tmp_path, capsys):
    line = refused(capsys, "liver", tmp_path / "none.nrrd", "-o", tmp_path / "missing" / "x.nii.gz")
    assert "missing" in line and "none.nrrd" not in line


def test_an_ending_that_cannot_be_written_is_refused(scan, with_models, tmp_path, capsys):
    assert ".seg.nrrd" in refused(capsys, "liver", scan, "-o", tmp_path / "x.ply")


def test_an_output_over_the_input_or_over_another_output_is_refused(scan, with_models, tmp_path, capsys):
    mask = tmp_path / "m.nii.gz"
    assert "must be different files" in refused(capsys, "liver", scan, "-o", mask, "--probability", mask)
    assert "must be different files" in refused(capsys, "liver", scan, "-o", mask, "--uncertainty", scan)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "weights.pt").unlink(),
        lambda folder: (folder / "weights.pt").write_bytes((folder / "weights.pt").read_bytes()[:-9]),
        lambda folder: (folder / "model.json").write_text('{"schema": 99}'),
    ],
    ids=["missing", "truncated", "newer schema"],
)
def test_a_broken_model_gets_one_sentence_and_leaves_no_output(scan, tmp_path, capsys, damage):
    folder = bright_bundle(tmp_path / "models" / "liver-ct-v1.0.0").folder
    damage(folder)
    line = refused(capsys, "liver", scan, "-o", tmp_path / "x.nii.gz", "--model", folder)
    assert "liver-ct-v1.0.0" in line
    assert not (tmp_path / "x.nii.gz").exists()


def test_a_failed_run_leaves_the_old_result_as_it_was(scan, with_models, tmp_path, capsys):
    old = tmp_path / "x.nii.gz"
    old.write_bytes(b"the old result")
    refused(capsys, "liver", scan, "-o", old, "--device", "mps")
    assert old.read_bytes() == b"the old result"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scan.nrrd", "x.nii.gz"]


def test_force_runs_on_what_does_not_look_like_ct(shared_data, with_models, tmp_path, capsys):
    source = shared_data("volumes/not_ct_mr.nii.gz")
    assert main(["liver", str(source), "-o", str(tmp_path / "x.nii.gz"), "--force", "--json"]) == 0
    assert "does not look like CT" in " ".join(json.loads(capsys.readouterr().out)["notes"])


def test_an_empty_organ_is_a_result(with_models, tmp_path, capsys):
    volume = body(organ=np.s_[0:0, 0:0, 0:0])
    files.write_volume(tmp_path / "empty.nrrd", volume.array, volume.ijk_to_ras)
    assert main(["liver", str(tmp_path / "empty.nrrd"), "-o", str(tmp_path / "x.seg.nrrd"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    (segment,) = summary["segments"]
    assert (segment["name"], segment["volume_ml"], segment["mean_hu"]) == ("Liver", 0.0, None)
    assert "No liver was found." in summary["notes"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["kidney"],
        ["liver"],
        ["liver", "a.nrrd"],
        ["liver", "a", "-o", "b", "--speed", "warp"],
        ["liver", "a", "-o", "b", "--threshold", "2"],
    ],
)
def test_wrong_usage_is_exit_2_with_one_line(arguments, capsys):
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--threads", "two", "--threads: 'two' is not a whole number"),
        ("--threads", "0", "must be a whole number, 1 or more; got 0"),
        ("--threads", "-3", "must be a whole number, 1 or more; got -3"),
        ("--threshold", "half", "--threshold: 'half' is not a number"),
    ],
)
def test_a_wrong_number_is_named_in_plain_english(option, value, words, with_models, capsys):
    assert main(["liver", "a.nrrd", "-o", "b.nrrd", option, value]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--port", "70000", "must be a whole number from 0 to 65535; got 70000"),
        ("--port", "-1", "must be a whole number from 0 to 65535; got -1"),
        ("--upload-mb", "-1", "must be a whole number, 1 or more; got -1"),
        ("--upload-mb", "much", "'much' is not a whole number"),
    ],
)
def test_the_app_is_not_started_with_a_port_or_a_size_that_cannot_be(option, value, words, tmp_path, capsys):
    assert main(["app", str(tmp_path), option, value]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["liver", "", "-o", "b.nrrd"], "INPUT"),
        (["nodule", "a.nrrd", "-o", "b.nrrd", "--points", ""], "--points"),
        (["cohort", "liver", "", "-o", "out"], "INPUT"),
    ],
)
def test_an_empty_value_as_from_a_variable_that_is_not_set_is_refused(arguments, name, with_models, capsys):
    assert main(arguments) == 2
    assert f"argument {name}: it is empty, as from a variable of the shell that is not set" in capsys.readouterr().err


def test_json_is_json_in_whatever_encoding_the_output_has(with_models, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", "UNetPlusPlusSegmentLib.cli.main", "models", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert json.loads(done.stdout.decode("utf-8"))


@pytest.mark.usefixtures("ordinary_user")
def test_a_folder_without_permission_is_named(tmp_path, capsys):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    commands = ["compare", closed / "a.nrrd", "b.nrrd"], ["report", closed], ["series", closed / "sub"]
    for command in (*commands, ["cohort", "liver", closed / "a.nrrd", "-o", tmp_path / "out"]):
        assert main([*map(str, command)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "unexpected" not in line and "closed" in line
    closed.chmod(0o700)


def test_more_threads_than_cores_are_as_many_as_these(scan, with_models, tmp_path, capsys):
    for threads in ("1", str(10**12)):
        assert main(["liver", str(scan), "-o", str(tmp_path / f"{threads}.nii.gz"), "--threads", threads]) == 0
    assert (tmp_path / "1.nii.gz").read_bytes() == (tmp_path / f"{10**12}.nii.gz").read_bytes()


CTRL_C_AT = """
import signal, sys
class CtrlC:
    def find_spec(name, path, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, CtrlC)
from UNetPlusPlusSegmentLib.cli.main import {start}
code = {start}()
print(code, "torch" in sys.modules)
"""


def interrupted_at(module: str, start: str, *arguments) -> subprocess.CompletedProcess:
    """Start the shell's `shell` or Python's `main`, with Ctrl-C when a module is about to be imported."""
    command = [sys.executable, "-c", CTRL_C_AT.format(module=module, start=start), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_ctrl_c_while_torch_is_imported_waits_for_its_end(scan, shell_models, tmp_path, monkeypatch):
    monkeypatch.setenv("UNETPP_MODELS", str(shell_models))
    done = interrupted_at("torch", "main", "liver", scan, "-o", tmp_path / "x.nii.gz")
    assert (done.stdout, done.stderr) == ("130 True\n", "unetpp-segment: cancelled.\n")
    assert not (tmp_path / "x.nii.gz").exists()


@pytest.mark.parametrize("module", ["ctypes", "numpy", "SimpleITK"])
def test_ctrl_c_while_the_program_is_loaded_ends_it_with_a_word(module):
    done = interrupted_at(module, "shell", "models")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "unetpp-segment: cancelled.\n")


@pytest.mark.skipif(sys.platform != "linux", reason="other OpenMP libraries report otherwise")
def test_threads_of_a_layer_sleep_while_they_wait_in_the_shell_and_in_a_worker(scan, shell_models, tmp_path):
    for module, arguments in (
        ("cli.main", ["liver", scan, "-o", tmp_path / "x.nii.gz", "--device", "cpu"]),
        ("jobs.worker_main", [tmp_path / "arrays"]),
    ):
        (tmp_path / "arrays").mkdir(exist_ok=True)
        ran = subprocess.run(
            [sys.executable, "-m", f"UNetPlusPlusSegmentLib.{module}", *map(str, arguments)],
            env={**os.environ, "UNETPP_MODELS": str(shell_models), "OMP_DISPLAY_ENV": "verbose"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "GOMP_SPINCOUNT = '0'" in ran.stderr


def test_help_is_exit_0(capsys):
    assert main(["liver", "--help"]) == 0
    assert "--threshold" in capsys.readouterr().out


def test_help_names_every_file_that_can_be_read_and_written(capsys):
    assert main(["liver", "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert [ending for ending in (*READERS, *(f".{form}" for form in FORMS)) if ending not in words] == []


def test_without_the_packages_of_the_app_the_message_says_how_to_install_them(monkeypatch, capsys):
    monkeypatch.setattr("UNetPlusPlusSegmentLib.app.start.PACKAGES", ("no_such_package",))
    assert main(["app"]) == 1
    assert '(no_such_package): in a clone, run pip install ".[app]"' in capsys.readouterr().err


def test_models_lists_names_and_folders(with_models, capsys):
    assert main(["models"]) == 0
    assert "liver-ct-v99.0.0" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["target"] == "liver"


def test_the_demo_writes_its_three_files_from_the_real_scan(with_models, tmp_path, capsys):
    pytest.importorskip("slicerio")
    assert main(["demo", "-o", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["liver.seg.nrrd", "measurements.csv", "overlay.png"]
    assert "3D Slicer" in capsys.readouterr().out


def test_an_unforeseen_error_is_one_line_and_debug_shows_where(scan, with_models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(files, "read_volume", lambda *_: 1 / 0)
    command = ["liver", str(scan), "-o", str(tmp_path / "x.nii.gz")]
    assert main(command) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*command, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_listing_models_needs_no_torch():
    code = "import sys; from UNetPlusPlusSegmentLib.cli.main import main; main(['models']); sys.exit('torch' in sys.modules)"
    library = str(Path(files.__file__).parents[2])
    assert (
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": library}, check=False).returncode
        == 0
    )


def test_an_output_that_is_a_slice_of_the_input_is_refused_and_stays(tmp_path, with_models, capsys):
    for index in range(3):
        path = write_slice(tmp_path / f"{index}.dcm", (0, 0, index), FrameOfReferenceUID="1.2.3")
    before = path.read_bytes()
    assert main(["liver", str(tmp_path), "-o", str(path)]) == 1
    assert "is a slice of the input" in capsys.readouterr().err
    assert path.read_bytes() == before
