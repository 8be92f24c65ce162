"""`ctk` and the qMRML widgets that the project uses, as PySide6 widgets on a real MRML scene.

Properties and signals follow the headers of CTK and Slicer. Everything else in a class starts with an underscore, and the code under
test cannot reach it. `SIGNALS` maps the C++ signature of a signal to the PySide6 signal behind it.
"""

from __future__ import annotations

import contextlib
import weakref

import shiboken6
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from .pythonqt import QUiLoader

Signal, QWidget = QtCore.Signal, QtWidgets.QWidget
HEADER_PX = 24


def a_property(kind, name: str, default=None, changed: str = ""):
    """A Qt property kept in `_<name>`; the method `changed` runs after it was written."""

    def get(self):
        return self.__dict__.get(f"_{name}", default)

    def put(self, value) -> None:
        self.__dict__[f"_{name}"] = value
        if changed:
            getattr(self, changed)()

    return QtCore.Property(kind, get, put)


def in_a_row(parent: QWidget, *widgets: QWidget) -> None:
    """Lay widgets out side by side, without a margin."""
    layout = QtWidgets.QHBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)


@contextlib.contextmanager
def quiet(*objects: QtCore.QObject):
    """Block the signals of objects."""
    before = [each.blockSignals(True) for each in objects]
    yield
    for each, was in zip(objects, before, strict=True):
        each.blockSignals(was)


_observers: list = []  # else Python clears one whose subject it cannot reach any more, though C++ still calls it


def observe(widget: QtCore.QObject, subject, event, method: str, with_node: bool = False, priority: float = 0.0) -> int:
    """Call a method of a widget on a VTK event, for as long as the widget lives."""
    reference = weakref.ref(widget)

    def call(_subject, _event, node=None) -> None:
        alive = reference()
        if alive is not None and shiboken6.isValid(alive):
            getattr(alive, method)(*[node] * with_node)

    _observers.append(call)
    return subject.AddObserver(event, vtk.calldata_type(vtk.VTK_OBJECT)(call) if with_node else call, priority)


# CTK


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header over a frame; collapsed, it hides its children."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._hidden_children: list[QWidget] = []
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, HEADER_PX, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Fixed)
        self.toggled.connect(self._apply)

    collapsed = QtCore.Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))

    def _apply(self, expanded: bool) -> None:
        if expanded:
            for child in self._hidden_children:
                child.setVisible(True)
            self._hidden_children = []
        else:
            self._hide_children()
        self.updateGeometry()

    def _hide_children(self) -> None:
        for child in self.children():
            if isinstance(child, QWidget) and not child.isHidden():
                self._hidden_children.append(child)
                child.setVisible(False)

    def childEvent(self, event):
        if event.polished() and not self.isChecked():
            self._hide_children()  # those that came since

    def showEvent(self, _event):
        if not self.isChecked():
            self._hide_children()

    def hitButton(self, point):
        return point.y() <= HEADER_PX

    def sizeHint(self):
        if not self.isChecked() or self.layout() is None:
            return QtCore.QSize(100, HEADER_PX)
        return self.layout().totalSizeHint()

    minimumSizeHint = sizeHint

    def paintEvent(self, _event):
        painter = QtGui.QPainter(self)
        bar = QtCore.QRect(0, 0, self.width(), HEADER_PX - 3)
        painter.fillRect(bar, QtGui.QColor(223, 229, 237))
        painter.setPen(self.palette().color(QtGui.QPalette.ColorRole.WindowText))
        arrow = "▾" if self.isChecked() else "▸"
        text = self.text().replace("&&", "&")
        painter.drawText(bar.adjusted(8, 0, 0, 0), int(QtCore.Qt.AlignmentFlag.AlignVCenter), f"{arrow}  {text}")
        painter.end()


class ctkSliderWidget(QWidget):
    """A slider and a spin box for one number."""

    SIGNALS = {"valueChanged(double)": "_value_changed"}
    _value_changed = Signal(float)
    STEPS = 10000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider, self._box = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        self._slider.setRange(0, self.STEPS)
        in_a_row(self, self._slider, self._box)
        self._slider.valueChanged.connect(self._slid)
        self._box.valueChanged.connect(self._take)
        self._show()

    value = QtCore.Property(float, lambda self: self.__dict__.get("_value", 0.0), lambda self, value: self._take(value))
    minimum = a_property(float, "minimum", 0.0, "_bound")
    maximum = a_property(float, "maximum", 99.0, "_bound")
    singleStep = a_property(float, "singleStep", 1.0, "_show")
    decimals = a_property(int, "decimals", 2, "_show")

    def _slid(self, position: int) -> None:
        exact = (self.maximum - self.minimum) * position / self.STEPS
        self._take(self.minimum + round(exact / self.singleStep) * self.singleStep)

    def _take(self, value: float) -> None:
        before, self._value = self.value, min(max(value, self.minimum), self.maximum)
        self._show()
        if self._value != before:
            self._value_changed.emit(self._value)

    def _bound(self) -> None:
        self._take(self.value)

    def _show(self) -> None:
        with quiet(self._slider, self._box):
            self._box.setDecimals(self.decimals)
            self._box.setRange(self.minimum, self.maximum)
            self._box.setSingleStep(self.singleStep)
            self._box.setValue(self.value)
            span = self.maximum - self.minimum
            self._slider.setValue(round(self.STEPS * (self.value - self.minimum) / span) if span > 0 else 0)


class ctkMenuButton(QtWidgets.QPushButton):
    """A button with a menu beside its text."""


class ctkMessageBox(QtWidgets.QMessageBox):
    """As far as it is a QMessageBox."""


CTK = {each.__name__: each for each in (ctkCollapsibleButton, ctkSliderWidget, ctkMenuButton, ctkMessageBox)}


# qMRML


class qMRMLWidget(QWidget):
    """A widget that hands the scene on."""

    SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "_scene_changed"}
    _scene_changed = Signal(object)

    def mrmlScene(self):
        return self.__dict__.get("_scene")

    def setMRMLScene(self, scene) -> None:
        if scene is not self.mrmlScene():
            self._scene = scene
            self._scene_changed.emit(scene)


class qMRMLNodeComboBox(QWidget):
    """The node selector.

    Whether one without "None" takes a node that comes into its empty list is not settled from Slicer's sources: tests run
    with `selects_late` both ways.
    """

    selects_late = True
    SIGNALS = {
        "currentNodeChanged(vtkMRMLNode*)": "_current_node_changed",
        "nodeActivated(vtkMRMLNode*)": "_node_activated",
        "nodeAddedByUser(vtkMRMLNode*)": "_node_added_by_user",
        "mrmlSceneChanged(vtkMRMLScene*)": "_scene_changed",
    }
    _current_node_changed, _node_activated = Signal(object), Signal(object)
    _node_added_by_user, _scene_changed = Signal(object), Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._tags, self._settled = None, [], False
        self._ids: list[str] = []  # rows; "" is "None"
        self._current, self._names, self._name_tags = "", {}, {}
        self._box = QtWidgets.QComboBox()
        self._box.activated.connect(self._picked)
        in_a_row(self, self._box)
        self.setEnabled(False)  # until it has a scene

    nodeTypes = a_property("QStringList", "nodeTypes", [], "_rebuild")
    showChildNodeTypes = a_property(bool, "showChildNodeTypes", True, "_rebuild")
    noneEnabled = a_property(bool, "noneEnabled", False, "_rebuild")
    noneDisplay = a_property(str, "noneDisplay", "None", "_rebuild")
    addEnabled = a_property(bool, "addEnabled", True, "_rebuild")
    removeEnabled = a_property(bool, "removeEnabled", True, "_rebuild")
    renameEnabled = a_property(bool, "renameEnabled", False, "_rebuild")
    currentNodeID = QtCore.Property(str, lambda self: self._current, lambda self, value: self._select(value))
    baseName = QtCore.Property(
        str, lambda self: self._names.get((self.nodeTypes or [""])[0], ""), lambda self, value: self.setBaseName(value)
    )

    def setBaseName(self, name: str) -> None:
        for kind in self.nodeTypes:  # none yet: nothing happens
            self._names[kind] = name

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        if scene is self._scene:
            return
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags, self._settled = scene, [], False
        if scene:  # as qMRMLSceneModel does, whose rows the box shows
            self._tags = [
                observe(self, scene, scene.NodeAddedEvent, "_rebuild", priority=10),
                observe(self, scene, scene.NodeAboutToBeRemovedEvent, "_rebuild", with_node=True, priority=-10),
                observe(self, scene, scene.EndCloseEvent, "_fill_anew"),
                observe(self, scene, scene.EndImportEvent, "_fill_anew"),
            ]
        self._rebuild()
        self._settled = True
        self.setEnabled(scene is not None)
        self._scene_changed.emit(scene)

    def currentNode(self):
        return self._scene.GetNodeByID(self._current) if self._scene and self._current else None

    def setCurrentNode(self, node) -> None:
        if node is not None and not isinstance(node, vtk.vtkObject):
            raise TypeError(f"setCurrentNode takes a node or None, not {type(node).__name__}")
        self._select((node.GetID() or "") if node is not None else "")

    def nodeCount(self) -> int:
        return len([each for each in self._ids if each])

    def addNode(self):
        (kind, *_) = self.nodeTypes
        node = self._scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(self._names.get(kind) or node.GetNodeTagName()))
        self._scene.AddNode(node)
        self.setCurrentNode(node)
        self._node_added_by_user.emit(node)
        return node

    def _accepts(self, node) -> bool:
        if node.GetHideFromEditors():
            return False
        if self.showChildNodeTypes:
            return any(node.IsA(each) for each in self.nodeTypes)
        return node.GetClassName() in self.nodeTypes

    def _fill_anew(self) -> None:
        """All rows go and come again: what was current is not any more."""
        if self._current:
            self._select("")
        self._rebuild()

    def _rebuild(self, leaving=None) -> None:
        if "_box" not in self.__dict__:
            return
        scene = self._scene
        nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())] if scene else []
        rows = {node.GetID(): node.GetName() or "" for node in nodes if node is not leaving and self._accepts(node)}
        for node_id in rows.keys() - self._name_tags.keys():
            tag = observe(self, scene.GetNodeByID(node_id), vtk.vtkCommand.ModifiedEvent, "_show_names")
            self._name_tags[node_id] = tag
        before, self._ids = self._ids, [""] * self.noneEnabled + list(rows)
        self._show_names()
        if self._current in rows or not (self._current or rows):
            self._show_current()
        elif self._current:  # it left: the next row counts, or the last
            old = [each for each in before if each]
            place = old.index(self._current) if self._current in old else len(rows)
            self._select(list(rows)[min(place, len(rows) - 1)] if rows else "")
        elif not self.noneEnabled and (not self._settled or self.selects_late):
            self._select(next(iter(rows)))
        else:
            self._show_current()

    def _show_names(self) -> None:
        with quiet(self._box):
            self._box.clear()
            for node_id in self._ids:
                node = self._scene.GetNodeByID(node_id) if node_id else None
                self._box.addItem(node.GetName() or "" if node else self.noneDisplay)
            if self.addEnabled and self._scene:
                self._box.addItem("Create new")
        self._show_current()

    def _show_current(self) -> None:
        with quiet(self._box):
            self._box.setCurrentIndex(self._ids.index(self._current) if self._current in self._ids else -1)

    def _picked(self, row: int) -> None:
        if row < len(self._ids):
            self._select(self._ids[row])
            self._node_activated.emit(self.currentNode())
        else:
            self.addNode()

    def pick(self, node) -> None:
        """For tests: what a choice of the user does."""
        row = self._ids.index(node.GetID() if node else "")
        self._box.setCurrentIndex(row)
        self._box.activated.emit(row)

    def _select(self, node_id: str) -> None:
        before, self._current = self._current, node_id if node_id in self._ids else ""
        self._show_current()
        if self._current != before:
            self._current_node_changed.emit(self.currentNode())


class qMRMLSegmentationShow3DButton(ctkMenuButton):
    """Makes and removes the closed surfaces of a segmentation."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node = self._tag = None
        self.setText("Show 3D")
        self.setCheckable(True)
        self.setEnabled(False)
        self.toggled.connect(self._toggle)

    def setSegmentationNode(self, node) -> None:
        if node is self._node:
            return
        if self._node is not None:
            self._node.RemoveObserver(self._tag)
        self._node = node
        if node is not None:
            self._tag = observe(self, node, vtk.vtkCommand.AnyEvent, "_follow")
        self._follow()

    def _follow(self) -> None:
        segmentation = self._node.GetSegmentation() if self._node else None
        self.setEnabled(bool(segmentation and segmentation.GetNumberOfSegments()))
        with quiet(self):
            self.setChecked(bool(segmentation and segmentation.ContainsRepresentation("Closed surface")))

    def _toggle(self, on: bool) -> None:
        if self._node is not None:
            (self._node.CreateClosedSurfaceRepresentation if on else self._node.RemoveClosedSurfaceRepresentation)()


class qSlicerMarkupsPlaceWidget(QWidget):
    """A button that starts placing control points in the views, of which there are none here."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = self._node = None
        self._button = QtWidgets.QToolButton()
        self._button.setText("Place")
        self._button.setCheckable(True)
        in_a_row(self, self._button)

    placeModeEnabled = a_property(bool, "placeModeEnabled", False, "_mode")
    deleteAllControlPointsOptionVisible = a_property(bool, "deleteAllControlPointsOptionVisible", True)

    def _mode(self) -> None:
        self._button.setChecked(self.placeModeEnabled)

    def setMRMLScene(self, scene) -> None:
        self._scene = scene

    def currentNode(self):
        return self._node

    def setCurrentNode(self, node) -> None:
        self._node = node
        self.setEnabled(node is not None)


QMRML = {
    each.__name__: each
    for each in (qMRMLWidget, qMRMLNodeComboBox, qMRMLSegmentationShow3DButton, qSlicerMarkupsPlaceWidget)
}
QUiLoader.EMULATED.update(CTK | QMRML)
