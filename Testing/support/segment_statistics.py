"""Slicer's Segment Statistics module as seen by a plugin: base class, registry, parameters, and the copy in world coordinates.

Modelled on Modules/Scripted/SegmentStatistics of Slicer 5.13, without its widgets and its own plugins.
"""

from __future__ import annotations

import slicer
import vtk


class SegmentStatisticsPluginBase:
    @staticmethod
    def createCodedEntry(codeValue, codingScheme, codeMeaning, returnAsString=False):
        entry = slicer.vtkCodedEntry()
        entry.SetValueSchemeMeaning(codeValue, codingScheme, codeMeaning)
        return entry.GetAsString() if returnAsString else entry

    @staticmethod
    def createMeasurementInfo(
        name, title, description, units, quantityDicomCode=None, unitsDicomCode=None, derivationDicomCode=None
    ):
        info = {"name": name, "title": title, "description": description, "units": units}
        codes = {
            "DICOM.QuantityCode": quantityDicomCode,
            "DICOM.UnitsCode": unitsDicomCode,
            "DICOM.DerivationCode": derivationDicomCode,
        }
        entry = slicer.vtkCodedEntry()
        return info | {key: code for key, code in codes.items() if code and entry.SetFromString(code)}

    def __init__(self):
        self.name = self.title = ""
        self.keys, self.defaultKeys = [], []
        self.parameterNode = None

    def setDefaultParameters(self, parameterNode):
        defaults = {f"{type(self).__name__}.enabled": True}
        defaults |= {f"{self.toLongKey(key)}.enabled": key in self.defaultKeys for key in self.keys}
        for name, value in defaults.items():
            if not parameterNode.GetParameter(name):
                parameterNode.SetParameter(name, str(value))

    def getRequestedKeys(self):
        if not self.parameterNode:
            return ()
        return [key for key in self.keys if self.parameterNode.GetParameter(f"{self.toLongKey(key)}.enabled") == "True"]

    def toLongKey(self, key):
        return f"{type(self).__name__}.{key}"

    def setParameterNode(self, parameterNode):
        self.parameterNode = parameterNode
        self.setDefaultParameters(parameterNode)
        for key in self.keys:  # the names of its check boxes
            info = self.getMeasurementInfo(key)
            assert info["name"]
            assert info["description"]

    def getParameterNode(self):
        return self.parameterNode


class SegmentStatisticsLogic:
    registeredPlugins = []  # noqa: RUF012 (as there)

    @staticmethod
    def registerPlugin(plugin):
        assert isinstance(plugin, SegmentStatisticsPluginBase)
        assert type(plugin) not in SegmentStatisticsLogic.registeredPlugins
        assert not any("." in key for key in plugin.keys)
        SegmentStatisticsLogic.registeredPlugins.append(type(plugin))

    def __init__(self):
        self.plugins = [each() for each in SegmentStatisticsLogic.registeredPlugins]
        self.statistics = {"SegmentIDs": [], "MeasurementInfo": {}}
        self.parameterNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "SegmentStatistics")
        for plugin in self.plugins:
            plugin.setParameterNode(self.parameterNode)

    def getParameterNode(self):
        return self.parameterNode

    def getStatistics(self):
        return self.statistics

    def computeStatistics(self):
        """Compute the statistics of all visible segments; in world coordinates if the segmentation is under a transform."""
        node = slicer.mrmlScene.GetNodeByID(self.parameterNode.GetParameter("Segmentation"))
        visible, copy = vtk.vtkStringArray(), None
        node.GetDisplayNode().GetVisibleSegmentIDs(visible)
        if node.GetParentTransformNode():
            copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"_tmp_{node.GetName()}")
            copy.CopyContent(node)
            copy.SetAndObserveTransformNodeID(node.GetParentTransformNode().GetID())
            copy.HardenTransform()
            self.parameterNode.SetParameter("Segmentation", copy.GetID())
        for index in range(visible.GetNumberOfValues()):
            self.updateStatisticsForSegment(visible.GetValue(index))
        if copy is not None:
            self.parameterNode.SetParameter("Segmentation", node.GetID())
            slicer.mrmlScene.RemoveNode(copy)

    def updateStatisticsForSegment(self, segmentID):
        self.statistics["SegmentIDs"].append(segmentID)
        for plugin in self.plugins:
            if self.parameterNode.GetParameter(f"{type(plugin).__name__}.enabled") == "True":
                for key, value in plugin.computeStatistics(segmentID).items():
                    self.statistics[segmentID, plugin.toLongKey(key)] = value
                    self.statistics["MeasurementInfo"][plugin.toLongKey(key)] = plugin.getMeasurementInfo(key)

    def exportToTable(self, table):
        """Write a column for each measurement that some segment has. Segments without it get NaN, which is not text."""
        for key in self.statistics["MeasurementInfo"]:
            values = [self.statistics.get((segmentID, key)) for segmentID in self.statistics["SegmentIDs"]]
            first = next(value for value in values if value is not None)
            column = vtk.vtkDoubleArray() if isinstance(first, float) else vtk.vtkStringArray()
            column.SetName(self.statistics["MeasurementInfo"][key]["name"])
            column.SetNumberOfValues(len(values))
            for row, value in enumerate(values):
                column.SetValue(row, float("nan") if value is None else value)
            table.AddColumn(column)
