"""`slicer.app`, the modules, the frame around a panel, and the fixture that starts it all on a scene."""

from __future__ import annotations

import importlib.util
import sys
import time
import types
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from . import parameter_node, pythonqt, scripted_module
from .pythonqt import StandInGap, dialogs, guarded, proxy_class, slot_errors, wrap
from .widgets import CTK, QMRML, a_property, qMRMLWidget

PATIENCE_S = 600  # before a test says that something hangs: on a busy computer it is only slow


class qSlicerMainWindow(QtWidgets.QMainWindow):
    """Slicer's window, empty; without a window, `errorDisplay` would only log."""


class qSlicerModuleManager(QtCore.QObject):
    """Finds modules by name."""

    SIGNALS = {"moduleAboutToBeUnloaded(QString)": "_about_to_be_unloaded"}
    _about_to_be_unloaded = QtCore.Signal(str)

    def module(self, name: str):
        return getattr(slicer.modules, name.lower(), None)


class qSlicerApplication(QtCore.QObject):
    """The application, as far as scripts reach it."""

    SIGNALS = {"startupCompleted()": "_startup_completed"}
    _startup_completed = QtCore.Signal()

    def __init__(self):
        super().__init__()
        self._manager = qSlicerModuleManager()
        self._window = qSlicerMainWindow()
        self._window.setObjectName("qSlicerMainWindow")
        self._cursors = 0

    applicationName = QtCore.Property(str, lambda self: "Slicer")

    def moduleManager(self):
        return self._manager

    def layoutManager(self):
        """There are no views, as with --no-main-window."""

    def testingEnabled(self) -> bool:
        return False

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()

    def setOverrideCursor(self, cursor) -> None:
        self._cursors += 1

    def restoreOverrideCursor(self) -> None:
        self._cursors -= 1

    def topLevelWidgets(self):
        return [self._window]

    def clipboard(self):
        return QtWidgets.QApplication.clipboard()

    def settings(self):
        return QtCore.QSettings()


class qSlicerScriptedLoadableModule(QtCore.QObject):
    """The C++ side of a scripted module."""

    title = a_property(str, "title", "")
    categories = a_property("QStringList", "categories", [])
    dependencies = a_property("QStringList", "dependencies", [])
    contributors = a_property("QStringList", "contributors", [])
    helpText = a_property(str, "helpText", "")
    acknowledgementText = a_property(str, "acknowledgementText", "")
    icon = a_property(QtGui.QIcon, "icon")
    path = a_property(str, "path", "")

    def widgetRepresentation(self):
        if "_frame" not in self.__dict__:
            self._frame = qSlicerScriptedLoadableModuleWidget(self._module_name)
            self._frame.reload()
        return self._frame


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The frame around a panel, which calls its methods."""

    def __init__(self, module_name: str):
        super().__init__()
        self._module_name, self._entered, self._panel = module_name, False, None
        self.setLayout(QtWidgets.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)

    isEntered = QtCore.Property(bool, lambda self: self._entered)

    def self(self):
        return self._panel

    def _call(self, name: str) -> None:
        guarded(getattr(self._panel, name, lambda: None), name)()

    def reload(self) -> None:
        self._panel = getattr(sys.modules[self._module_name], f"{self._module_name}Widget")(wrap(self))
        setattr(slicer.modules, f"{self._module_name}Widget", self._panel)
        self._call("setup")

    def enter(self) -> None:
        self._entered = True
        self._call("enter")

    def exit(self) -> None:
        self._entered = False
        self._call("exit")


class SampleDataLogic:
    """The logic of the Sample Data module: the registered samples by category."""

    @staticmethod
    def registerCustomSampleDataCategory(category, title):
        vars(slicer.modules).setdefault("sampleDataSourceCategories", {})[category] = {"title": title}

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        thumbnailFileName=None,
        checksums=None,
    ):
        sources = vars(slicer.modules).setdefault("sampleDataSources", {})
        sources.setdefault(category, []).append({
            "sampleName": sampleName, "uris": uris, "fileNames": fileNames, "nodeNames": nodeNames,
            "thumbnailFileName": thumbnailFileName, "checksums": checksums,
        })  # fmt: skip


class _Namespace(types.ModuleType):
    """A module that raises `StandInGap` for what it lacks."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise StandInGap(f"{self.__name__}.{name} is not in the stand-in")


def _namespace(name: str, **members) -> types.ModuleType:
    module = _Namespace(name)
    vars(module).update(members)
    return module


def _public(module: types.ModuleType, *names: str) -> dict:
    return {name: getattr(module, name) for name in names}


def application(scene, monkeypatch, tmp_path):
    """`slicer` as the application fills it, on an empty scene; fails if a slot did, or if a dialog was left unanswered."""
    qt = pythonqt.start()
    QtCore.QCoreApplication.setOrganizationName("Slicer")
    QtCore.QCoreApplication.setApplicationName("Slicer")
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    for of in (QtCore.QSettings.Scope.UserScope, QtCore.QSettings.Scope.SystemScope):
        QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, of, str(tmp_path / "settings"))
    monkeypatch.setitem(sys.modules, "qt", qt)
    base = _public(
        scripted_module, "ScriptedLoadableModule", "ScriptedLoadableModuleWidget", "ScriptedLoadableModuleLogic",
        "ScriptedLoadableModuleTest",
    )  # fmt: skip
    wrapper = _public(parameter_node, "parameterNodeWrapper", "WithinRange")
    modules = {
        "ctk": _namespace("ctk", **{name: proxy_class(each) for name, each in CTK.items()}),
        "SampleData": _namespace("SampleData", SampleDataLogic=SampleDataLogic),
        "slicer.i18n": _namespace("slicer.i18n", **_public(scripted_module, "tr", "translate")),
        "slicer.ScriptedLoadableModule": _namespace("slicer.ScriptedLoadableModule", **base),
        "slicer.parameterNodeWrapper": _namespace("slicer.parameterNodeWrapper", **wrapper),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        if name.startswith("slicer."):
            monkeypatch.setattr(slicer, name.partition(".")[2], module, raising=False)
    for name, each in {
        **QMRML,
        "qSlicerScriptedLoadableModule": qSlicerScriptedLoadableModule,
        "qSlicerScriptedLoadableModuleWidget": qSlicerScriptedLoadableModuleWidget,
    }.items():
        monkeypatch.setattr(slicer, name, proxy_class(each), raising=False)
    application = qSlicerApplication()
    monkeypatch.setattr(slicer, "app", wrap(application), raising=False)
    monkeypatch.setattr(slicer, "selfTests", {}, raising=False)
    monkeypatch.setattr(sys, "excepthook", pythonqt.in_observer)
    slot_errors.clear()
    dialogs.reset()
    yield slicer.app
    assert not slot_errors, f"exceptions in slots: {slot_errors}"
    assert not dialogs.answers, f"answers that no dialog asked for: {list(dialogs.answers)}"
    assert application._cursors == 0, "a wait cursor was left behind"


def load_module(path: Path):
    """Import a scripted module as Slicer's factory does, and finish the start-up; returns its C++ side."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[path.stem])
    finally:
        sys.path.remove(str(path.parent))
    native = qSlicerScriptedLoadableModule()
    native._module_name = path.stem
    native.setObjectName(path.stem)
    native.path = str(path)
    module = wrap(native)
    setattr(slicer.modules, path.stem.lower(), module)
    setattr(slicer.modules, f"{path.stem}Instance", getattr(sys.modules[path.stem], path.stem)(module))
    slicer.app.startupCompleted()
    return module


def wait_until(condition) -> None:
    """Run the event loop until a condition is met."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for too long"
        slicer.app.processEvents()
        time.sleep(0.002)
