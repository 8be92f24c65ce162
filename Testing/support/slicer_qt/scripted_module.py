"""`slicer.ScriptedLoadableModule`: the base classes of a scripted module, as far as this project's module uses them."""

from __future__ import annotations

import importlib
import unittest
from pathlib import Path

import slicer

from .pythonqt import start

qt = start()


class ScriptedLoadableModule:
    """Describes a module to Slicer."""

    def __init__(self, parent) -> None:
        super().__init__()
        self.parent, self.moduleName = parent, type(self).__name__
        for ending in (".svg", ".png"):
            icon = Path(self.resourcePath(f"Icons/{self.moduleName}{ending}"))
            if icon.is_file():
                parent.icon = qt.QIcon(str(icon))
                break
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def runTest(self) -> None:
        getattr(importlib.import_module(self.__module__), f"{self.moduleName}Test")().runTest()


class ScriptedLoadableModuleWidget:
    """A panel."""

    def __init__(self, parent=None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Nothing without the developer's section."""

    def cleanup(self) -> None:
        """For those who derive from it."""

    def _onModuleAboutToBeUnloaded(self, moduleName) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    """The logic, with one parameter node for a scene."""

    def __init__(self, parent=None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node:
            if node.GetAttribute("ModuleName") != self.moduleName:  # closing the scene removes it
                node.SetAttribute("ModuleName", self.moduleName)
            return node
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The self-test of a module."""

    def delayDisplay(self, message, requestedDelay=None, msec=None) -> None:
        """Nobody reads it here."""

    def runTest(self) -> None:
        self.setUpClass()
        for name in [each for each in dir(self) if "test" in each and callable(getattr(self, each))]:
            self.setUp()
            getattr(self, name)()
            self.tearDown()
        self.tearDownClass()


def tr(text: str) -> str:
    """`slicer.i18n.tr`: no translation is installed."""
    return text


def translate(context: str, text: str) -> str:
    """`slicer.i18n.translate`."""
    return text
