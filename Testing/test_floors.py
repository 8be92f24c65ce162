"""Imports: which folder of the library and of training/ may import which, and what neither `core` nor the start of Slicer may import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[1] / "UNetPlusPlusSegment"
LIBRARY = MODULE / "UNetPlusPlusSegmentLib"
FLOORS = ("cli", "app", "scene", "jobs", "api", "nodule", "engine", "files", "network", "core")  # from the top down
FILES = [path for path in sorted(LIBRARY.rglob("*.py")) if path != LIBRARY / "__init__.py"]
TRAINING = MODULE.parent / "training"
TRAINING_FLOORS = ("paper", "card", "measure", "fit", "data", "prepare")
SLOW_TO_LOAD = "torch", "SimpleITK", "scipy"


def imports_of(file: Path, root: Path = MODULE) -> Iterator[tuple[int, list[str]]]:
    """Line and parts of the absolute name of all that a file imports: at its top, in functions, and for type hints alone."""
    package = file.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield node.lineno, each.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            for each in node.names:
                yield node.lineno, [*start, *(node.module.split(".") if node.module else ()), each.name]


def folder_of(file: Path) -> str:
    return file.relative_to(LIBRARY).with_suffix("").parts[0]


def loads(code: str, *names: str) -> list[str]:
    """Which of these packages a Python has loaded after the code."""
    code += f"\nimport sys; print(*{set(names)} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(MODULE)}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return done.stdout.split()


def test_every_file_of_the_library_is_in_a_known_folder():
    assert {folder_of(file) for file in FILES} == set(FLOORS)


def test_a_folder_imports_only_from_folders_below_it():
    wrong = [
        f"{file.relative_to(MODULE)}:{line}: {folder_of(file)} imports {'.'.join(name[1:])}"
        for file in FILES
        for line, name in imports_of(file)
        if name[0] == LIBRARY.name and name[1] in FLOORS[: FLOORS.index(folder_of(file))]
    ]
    assert not wrong, "\n".join([f"A folder imports only what stands after it in: {', '.join(FLOORS)}.", *wrong])


def test_a_folder_of_training_imports_only_from_folders_below_it():
    assert {path.parent.name for path in TRAINING.glob("*/*.py")} == set(TRAINING_FLOORS)
    wrong = [
        f"{floor}/{file.name}:{line}: imports {'.'.join(name)}"
        for at, floor in enumerate(TRAINING_FLOORS)
        for file in sorted((TRAINING / floor).glob("*.py"))
        for line, name in imports_of(file, TRAINING)
        if name[0] in TRAINING_FLOORS[:at]
    ]
    assert not wrong, "\n".join(
        [f"A folder imports only what stands after it in: {', '.join(TRAINING_FLOORS)}.", *wrong]
    )


def test_the_core_does_not_import_torch():
    files = [file for file in FILES if folder_of(file) == "core"]
    assert not [file.name for file in files for _, name in imports_of(file) if name[0] == "torch"]


def test_slicer_starts_without_slow_imports():
    """Of the module, its panel, the effect and the plugin: all that they import of the library before anybody asks for it."""
    pytest.importorskip("slicer")
    files = [file for file in MODULE.rglob("*.py") if file not in FILES]
    lines = [
        ast.unparse(statement)
        for file in files
        for statement in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] == LIBRARY.name
    ]
    assert any("scene.logic" in line for line in lines)
    assert loads("\n".join(lines), *SLOW_TO_LOAD) == []


def test_reading_cards_sending_jobs_and_receiving_results_needs_no_slow_imports():
    names = ("network.bundle", "core.segment", "core.volume", "jobs.protocol", "jobs.worker_client")
    assert loads("\n".join(f"import {LIBRARY.name}.{name}" for name in names), *SLOW_TO_LOAD) == []


def test_the_package_imports_its_public_functions_when_they_are_used():
    slow = (*SLOW_TO_LOAD, "numpy")
    assert loads(f"import {LIBRARY.name} as library; library.__version__; dir(library)", *slow) == []
    assert loads(f"from {LIBRARY.name} import Volume", *slow) == ["numpy"]
    assert "torch" not in loads(f"from {LIBRARY.name} import read_volume", *slow)
    assert "torch" in loads(f"from {LIBRARY.name} import load_engine, segment", *slow)
    with pytest.raises(ImportError, match="cannot import name 'kidney'"):
        from UNetPlusPlusSegmentLib import kidney  # noqa: F401


def test_slicer_s_process_never_loads_torch():
    pytest.importorskip("slicer")
    assert loads(f"import {LIBRARY.name}.scene.logic, {LIBRARY.name}.jobs.cohort", "torch") == []
