"""`slicer.parameterNodeWrapper`: typed access to a parameter node and its binding to widgets, for the types this project uses."""

from __future__ import annotations

import enum
import typing
import weakref

import slicer
import vtk

from .pythonqt import StandInGap, proxy_class, start
from .widgets import CTK, QMRML

qt = start()


class WithinRange:
    """A number from a lowest to a highest one."""

    def __init__(self, *arguments) -> None:
        self.arguments = arguments

    def validate(self, value) -> None:
        low, high = self.arguments
        if value < low or value > high:
            raise ValueError(f"Value must be within range [{low}, {high}], is {value}")


class _Parameter:
    """A member of a wrapped class: how it is stored, and how widgets show it."""

    def __init__(self, name: str, annotation, default) -> None:
        self.name, self.annotation = name, annotation
        self.kind = typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
        self.validators = list(getattr(annotation, "__metadata__", ()))
        strangers = [each for each in self.validators if not isinstance(each, WithinRange)]
        self.is_node = isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)
        self.is_enum = isinstance(self.kind, type) and issubclass(self.kind, enum.Enum)
        known = self.is_node or self.is_enum or self.kind in (bool, float, str)
        if strangers or not known:
            raise StandInGap(f"parameterNodeWrapper: {name}: {annotation} is not in the stand-in")
        if default is None and not self.is_node:
            default = next(iter(self.kind)) if self.is_enum else self.kind()
        self.default = default

    def is_in(self, node) -> bool:
        return node.HasParameter(self.name)

    def write(self, node, value) -> None:
        if self.is_node:
            if value is not None and not isinstance(value, self.kind):
                raise TypeError(f"Value must be of type '{self.kind}', is type '{type(value)}' value '{value}'")
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if self.is_enum and not isinstance(value, self.kind):
            raise TypeError(f"Value must be of type '{self.kind}', is type '{type(value)}' value '{value}'")
        for validator in self.validators:
            validator.validate(value)
        if self.kind is bool:
            value = "True" if value else "False"
        node.SetParameter(self.name, value.name if self.is_enum else str(value))

    def read(self, node):
        if self.is_node:
            return node.GetNodeReference(self.name)
        if not self.is_in(node):
            self.write(node, self.default)
        text = node.GetParameter(self.name)
        if self.is_enum:
            if text not in self.kind.__members__:
                raise ValueError(f"Found {text!r} in parameter node but it is not a name in {self.kind!r}")
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)


def parameterNodeWrapper(wrapped: type) -> type:
    """Make a class with annotated members one that wraps a `vtkMRMLScriptedModuleNode`."""
    hints = typing.get_type_hints(wrapped, include_extras=True)
    parameters = {name: _Parameter(name, hint, getattr(wrapped, name, None)) for name, hint in hints.items()}
    for name, parameter in parameters.items():
        setattr(wrapped, name, _property(parameter))
    wrapped.allParameters = parameters
    for name, member in vars(_Wrapper).items():
        if not name.startswith("__") or name in ("__init__", "__del__"):
            setattr(wrapped, name, member)
    return wrapped


def _property(parameter: _Parameter) -> property:
    def get(self):
        return self._cache[parameter.name]

    def put(self, value) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            parameter.write(self.parameterNode, value)
            self._cache[parameter.name] = parameter.read(self.parameterNode)

    return property(get, put)


class _Wrapper:
    """The members that a wrapped class gets. Values are kept, and read anew when the parameter node says that it changed."""

    def __init__(self, parameterNode) -> None:
        self.parameterNode, self._guis, self._writing = parameterNode, {}, False
        for parameter in self.allParameters.values():
            if not parameter.is_in(parameterNode):
                parameter.write(parameterNode, parameter.default)
        self._cache = {}
        self._read()
        me = weakref.ref(self)
        self._tag = parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: me() and me()._read())

    def __del__(self) -> None:
        self.parameterNode.RemoveObserver(self._tag)

    def _read(self) -> None:
        self._cache.update({name: each.read(self.parameterNode) for name, each in self.allParameters.items()})

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        self.parameterNode.EndModify(wasModified)

    def Modified(self):
        self.parameterNode.Modified()

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def connectGui(self, gui) -> int:
        """Bind every widget in `gui` (a widget, or an object with widgets as attributes) that names a member."""
        members = gui.findChildren(qt.QWidget) if hasattr(gui, "isWidgetType") else vars(gui).values()
        connectors = [
            _Connector(widget, self.allParameters[widget.property("SlicerParameterName")])
            for widget in members
            if widget.property("SlicerParameterName")
        ]
        for connector in connectors:
            connector.show(self.parameterNode)
            connector.follow(self._taker(connector))
        tag = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show())
        self._guis[tag] = connectors
        return tag

    def disconnectGui(self, tag) -> None:
        """Let go of the widgets."""
        for connector in self._guis.pop(tag, ()):
            connector.let_go()
        self.RemoveObserver(tag)

    def _taker(self, connector):
        def take() -> None:
            with slicer.util.NodeModify(self):
                if not self._writing:
                    setattr(self, connector.parameter.name, connector.value())

        return take

    def _show(self) -> None:
        if self._writing:
            return
        self._writing = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in self._guis.values():
                    for connector in connectors:
                        connector.show(self.parameterNode)
        finally:
            self._writing = False


SLIDER = proxy_class(CTK["ctkSliderWidget"])
SELECTOR = proxy_class(QMRML["qMRMLNodeComboBox"])


class _Connector:
    """A widget and the parameter it shows. Only exact classes of widgets are known, as in Slicer, and of these what the project uses."""

    def __init__(self, widget, parameter: _Parameter) -> None:
        self.widget, self.parameter, self._function = widget, parameter, None
        kind, of = type(widget), parameter.kind
        if kind is qt.QCheckBox and of is bool:
            self.signal = "stateChanged"
        elif kind in (qt.QDoubleSpinBox, SLIDER) and of is float:
            self.signal = "valueChanged"
            self._limit()
        elif kind is qt.QComboBox and parameter.is_enum:
            self.signal = "currentIndexChanged"
            widget.clear()
            for each in of:
                widget.addItem(each.label())
        elif kind is SELECTOR and parameter.is_node:
            self.signal = "currentNodeChanged"
            widget.nodeTypes = (of().GetClassName(),)
        else:
            raise RuntimeError(f"Unable to create GUI connector from datatype '{of}' to widget type '{kind}'.")

    def _limit(self) -> None:
        if self.parameter.validators:
            self.widget.minimum, self.widget.maximum = self.parameter.validators[0].arguments
        elif type(self.widget) is SLIDER:
            raise RuntimeError("Cannot have a connection to ctkSliderWidget where the float types is unbounded.")

    def value(self):
        widget = self.widget
        if self.signal == "stateChanged":
            return widget.checked
        if self.signal == "currentIndexChanged":
            return list(self.parameter.kind)[widget.currentIndex]
        return widget.currentNode() if self.signal == "currentNodeChanged" else widget.value

    def show(self, node) -> None:
        widget, value = self.widget, self.parameter.read(node)
        if self.signal == "stateChanged":
            widget.checked = value
        elif self.signal == "currentIndexChanged":
            widget.currentIndex = list(self.parameter.kind).index(value)
        elif self.signal == "currentNodeChanged":
            widget.setCurrentNode(value)
        else:
            widget.value = value

    def follow(self, function) -> None:
        self._function = function
        getattr(self.widget, self.signal).connect(function)

    def let_go(self) -> None:
        getattr(self.widget, self.signal).disconnect(self._function)
