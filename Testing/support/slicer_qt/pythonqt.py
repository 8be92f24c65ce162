"""The module `qt`: PythonQt imitated with PySide6.

Code under test never gets a PySide6 object but a proxy, which behaves as in PythonQt. A Qt property is a value; `name` is
`objectName`; signals are connected by string or attribute; lists are returned as tuples; C++ objects accept no new attributes, and
Qt methods no keywords; an exception in a slot is not passed on, but kept.
"""

from __future__ import annotations

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
# Read when PySide6 is imported: enums are ints, as in PythonQt.
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "2")

import ctypes
import enum
import functools
import sys
import traceback
import types
import weakref
import xml.etree.ElementTree as ElementTree
from collections import deque

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets

CONSTANTS = (int, enum.Enum, enum.EnumMeta)
SOURCES = (QtCore, QtGui, QtWidgets, QtNetwork, QtUiTools)
REFUSED = {
    "Signal": "only newer PythonQt has it, and it is said to crash Slicer: use a plain Python class",
    "Slot": "only newer PythonQt has it",
    "Property": "only newer PythonQt has it",
    "QtCore": "qt is one flat module",
    "QtGui": "qt is one flat module",
    "QtWidgets": "qt is one flat module",
}

slot_errors: list[tuple[str, Exception]] = []  # of slots, timers and VTK observers: Slicer prints them and goes on


class StandInGap(AttributeError):
    """The stand-in lacks this, although Slicer may have it."""


class StandInRefusal(AttributeError):
    """Slicer would not accept this call either."""


# Proxies


class _ProxyType(type):
    """The class of `qt.QPushButton` and all others; each mirrors one native class with its bases."""

    def __new__(cls, name, bases, namespace):
        if "_native_class" not in namespace:
            raise StandInGap(f"class {name}: subclasses of Qt classes are not in the stand-in")
        return super().__new__(cls, name, bases, {"__slots__": (), **namespace})

    def __call__(cls, *arguments, **keywords):
        if keywords:
            raise TypeError(f"{cls.__name__}: PythonQt takes no keyword arguments")
        return wrap(cls._native_class(*map(unwrap, arguments)))

    def __getattr__(cls, name):
        if name.startswith("_"):
            raise AttributeError(name)
        static = STATICS.get((cls.__name__, name))
        if static:
            return static
        try:
            value = getattr(cls._native_class, name)
        except AttributeError:
            raise StandInGap(f"qt.{cls.__name__}.{name} is not known") from None
        if isinstance(value, CONSTANTS):
            return value
        return _Method(cls.__name__, name, value)


class Proxy(metaclass=_ProxyType):
    """A C++ object as Python sees it in Slicer. Of a class that is no QObject there are methods only."""

    _native_class = object
    __slots__ = ("__weakref__", "_native")

    def __getattr__(self, name):
        return _get_attribute(self._native, name)

    def __setattr__(self, name, value):
        _set_attribute(self._native, name, value)

    def __eq__(self, other):
        if isinstance(self._native, QtCore.QObject):
            return self is other
        return isinstance(other, Proxy) and self._native == other._native

    def __hash__(self):
        return id(self._native)

    def __repr__(self):
        return f"<{type(self).__name__} {getattr(self._native, 'objectName', str)()!r}>"

    def __str__(self):
        return repr(self) if isinstance(self._native, QtCore.QObject) else str(self._native)


_proxy_classes: dict[type, _ProxyType] = {}
_proxies: weakref.WeakValueDictionary[int, Proxy] = weakref.WeakValueDictionary()


def proxy_class(native_class: type) -> _ProxyType:
    """The class that code under test sees for a PySide6 class, or for an emulated one (see `widgets`)."""
    if native_class not in _proxy_classes:
        bases = [proxy_class(base) for base in native_class.__bases__ if issubclass(base, shiboken6.Object)]
        namespace = {"_native_class": native_class}
        _proxy_classes[native_class] = _ProxyType(native_class.__name__, tuple(bases) or (Proxy,), namespace)
    return _proxy_classes[native_class]


def wrap(value):
    """Give what Python gets in Slicer for a native value: a proxy, the same one each time for one object; tuples for lists."""
    if isinstance(value, (list, tuple)):
        return tuple(map(wrap, value))
    if not isinstance(value, shiboken6.Object):
        return value
    is_object = isinstance(value, QtCore.QObject)
    proxy = _proxies.get(_address(value)) if is_object else None
    if proxy is None or proxy._native is not value:
        proxy = object.__new__(proxy_class(type(value)))
        object.__setattr__(proxy, "_native", value)
        if is_object:
            _proxies[_address(value)] = proxy
    return proxy


def unwrap(value):
    """The native value for a proxy, or for a list of them."""
    if isinstance(value, Proxy):
        return value._native
    return [unwrap(each) for each in value] if isinstance(value, (list, tuple)) else value


def _address(native: QtCore.QObject) -> int:
    return shiboken6.getCppPointer(native)[0]


class _Method:
    """A method of a C++ object, or a static one of its class."""

    def __init__(self, owner, name: str, function) -> None:
        self._owner, self._name, self._function = owner, name, function

    def __call__(self, *arguments, **keywords):
        if keywords:
            raise TypeError(f"{self._name}: PythonQt takes no keyword arguments")
        arguments = [unwrap(each) for each in arguments]
        if self._name.startswith("set") and len(arguments) == 1 and isinstance(self._owner, QtCore.QObject):
            kind = _property_type(self._owner, self._name[3:4].lower() + self._name[4:])
            if kind == "QString":
                arguments = [str(arguments[0])]  # PythonQt shows None as "None"
        return wrap(self._function(*arguments))

    def __eq__(self, other):
        return isinstance(other, _Method) and (other._owner, other._name) == (self._owner, self._name)

    def __hash__(self):
        return hash((id(self._owner), self._name))


def _property_index(native, name: str) -> int:
    if name == "singleShot" and isinstance(native, QtCore.QTimer):
        return -1  # PythonQt hides it behind the static function: setSingleShot
    return native.metaObject().indexOfProperty("objectName" if name == "name" else name)


def _property_type(native, name: str) -> str:
    index = _property_index(native, name)
    return native.metaObject().property(index).typeName() if index >= 0 else ""


def _get_attribute(native, name: str):
    if name.startswith("_"):  # helpers of emulated classes are no part of Slicer
        raise AttributeError(name)
    if not shiboken6.isValid(native):
        raise ValueError(f"Trying to call {name!r} on a destroyed {type(native).__name__} object")
    if isinstance(native, QtCore.QObject):
        if _property_index(native, name) >= 0:
            return wrap(native.property("objectName" if name == "name" else name))
        signatures = _signals_of(native).get(name)
        if signatures:
            return _Signal(native, signatures[0])
        own = OBJECT_METHODS.get(name)
        if own:
            return types.MethodType(own, native)
    for base in type(native).__mro__:
        if (base.__name__, name) in OVERRIDES:
            return types.MethodType(OVERRIDES[base.__name__, name], native)
    try:
        value = getattr(native, name)
    except AttributeError:
        return _last_resort(native, name)
    return value if isinstance(value, CONSTANTS) else _Method(native, name, value)


def _last_resort(native, name: str):
    if isinstance(native, QtCore.QObject):
        if native.property(name) is not None:  # a dynamic one
            return wrap(native.property(name))
        for child in native.children():
            if child.objectName() == name:
                return wrap(child)
    raise StandInGap(f"{type(native).__name__} has no attribute named {name!r}")


CONVERSIONS = {
    "QString": str,  # None becomes "None"
    "bool": bool,
    "int": int,
    "uint": int,
    "double": float,
    "QStringList": lambda value: [value] if isinstance(value, str) else [str(each) for each in value],
}


def _set_attribute(native, name: str, value) -> None:
    kind = type(native).__name__
    if not isinstance(native, QtCore.QObject):
        raise StandInRefusal(f"{name!r} does not exist on {kind}, and a C++ object takes no new attributes")
    index = _property_index(native, name)
    if index < 0:
        if name.encode() in [bytes(each.data()) for each in native.dynamicPropertyNames()]:
            native.setProperty(name, unwrap(value))
            return
        if not name.startswith("_") and (name in _signals_of(native) or hasattr(native, name)):
            raise StandInRefusal(f"Slot {name!r} can not be overwritten on {kind} object")
        raise StandInRefusal(f"{name!r} does not exist on {kind}, and a C++ object takes no new attributes")
    meta = native.metaObject().property(index)
    if not meta.isWritable():
        raise StandInRefusal(f"Property {name!r} of {kind} object is not writable")
    try:
        converted = value if meta.isEnumType() else CONVERSIONS.get(meta.typeName(), unwrap)(value)
    except (TypeError, ValueError):
        converted = None
    if converted is None or not native.setProperty(meta.name(), converted):
        raise StandInRefusal(
            f"Property {name!r} of type {meta.typeName()!r} does not accept an object of type {type(value).__name__} ({value!r})"
        )


# Signals


def guarded(function, description: str):
    """A slot as PythonQt calls it: surplus arguments dropped for plain functions, exceptions printed and not passed on."""
    plain = function.__func__ if isinstance(function, types.MethodType) else function
    takes = None
    if isinstance(plain, types.FunctionType) and not plain.__code__.co_flags & 0x04:  # no *args
        takes = plain.__code__.co_argcount - (plain is not function)

    def slot(*arguments):
        try:
            function(*map(wrap, arguments[:takes]))
        except Exception as error:
            slot_errors.append((description, error))
            traceback.print_exc()

    return slot


def normalized(signature: str) -> str:
    """As moc writes it, without the digit that `SIGNAL()` puts before it."""
    return bytes(QtCore.QMetaObject.normalizedSignature(signature.lstrip("012")).data()).decode()


_signal_tables: dict[type, dict[str, list[str]]] = {}


def _signals_of(native) -> dict[str, list[str]]:
    """Signatures by name, first the one that counts when a signal is connected by attribute."""
    kind = type(native)
    if kind not in _signal_tables:
        table: dict[str, list[str]] = {}
        for base in kind.__mro__:
            for signature in base.__dict__.get("SIGNALS", {}):
                table.setdefault(signature.partition("(")[0], []).append(signature)
        meta = native.metaObject()
        for method in map(meta.method, range(meta.methodCount())):
            signature = bytes(method.methodSignature().data()).decode()
            name = signature.partition("(")[0]
            if method.methodType() == QtCore.QMetaMethod.MethodType.Signal and not name.startswith("_"):
                table.setdefault(name, []).append(signature)
        _signal_tables[kind] = table
    return _signal_tables[kind]


def _emulated_signal(native, signature: str):
    """The PySide6 signal behind one of an emulated class; None for Qt's own."""
    for base in type(native).__mro__:
        attribute = base.__dict__.get("SIGNALS", {}).get(signature)
        if attribute:
            return getattr(native, attribute)
    return None


_connections: dict[tuple[int, str], list[tuple]] = {}  # address and signature → (function, slot)


def connect(native, signature: str, function) -> bool:
    """Connect; Slicer only prints a word about a signal that does not exist, here it raises."""
    signature = normalized(signature)
    name = signature.partition("(")[0]
    if signature not in _signals_of(native).get(name, ()):
        known = sorted(each for group in _signals_of(native).values() for each in group)
        raise StandInRefusal(f"{type(native).__name__} has no signal {signature}; it has {', '.join(known)}")
    if not callable(function):
        raise TypeError(f"connect({signature!r}): {function!r} is not callable")
    slot = guarded(function, f"{type(native).__name__}.{signature} → {getattr(function, '__qualname__', function)}")
    emulated = _emulated_signal(native, signature)
    if emulated:
        emulated.connect(slot)
    elif not QtCore.QObject.connect(native, f"2{signature}", slot):
        raise StandInGap(f"{type(native).__name__}.{signature} cannot be connected")
    key = _address(native), signature
    if key not in _connections:
        native.destroyed.connect(lambda *_: _connections.pop(key, None))
    _connections.setdefault(key, []).append((function, slot))
    return True


def disconnect(native, signature: str, function=None) -> bool:
    """Disconnect one function, or all."""
    signature = normalized(signature)
    known = _connections.get((_address(native), signature), [])
    chosen = [each for each in known if function is None or each[0] == function][: None if function is None else 1]
    for each in chosen:
        known.remove(each)
        emulated = _emulated_signal(native, signature)
        if emulated:
            emulated.disconnect(each[1])
        else:
            QtCore.QObject.disconnect(native, f"2{signature}", each[1])
    return bool(chosen) or function is None


class _Signal:
    """`widget.clicked`."""

    def __init__(self, native, signature: str) -> None:
        self._native, self._signature = native, signature

    def connect(self, *arguments):
        """Take exactly one function."""
        (function,) = arguments
        return connect(self._native, self._signature, function)

    def disconnect(self, *arguments):
        """Of one function, or of all."""
        return disconnect(self._native, self._signature, *arguments)

    def __call__(self, *arguments):
        name = self._signature.partition("(")[0]
        (_emulated_signal(self._native, self._signature) or getattr(self._native, name)).emit(*map(unwrap, arguments))

    emit = __call__


def _disconnect_by_string(native, signal=None, function=None):
    if signal is None:
        raise ValueError("disconnect() needs a signal")
    return disconnect(native, signal, function)


def _find_children(native, kind):
    """PythonQt's needs a class."""
    return wrap(native.findChildren(kind._native_class))


OBJECT_METHODS = {
    "connect": connect,
    "disconnect": _disconnect_by_string,
    "findChildren": _find_children,
    "className": lambda native: type(native).__name__,
    "isWidgetType": lambda native: isinstance(native, QtWidgets.QWidget),
}


# Dialogs: nobody is there to answer


class Dialogs:
    """Dialogs take the next answer that a test has prepared, instead of waiting for a person; without an answer they are an error.

    Attributes:
        answers: Answers for the next dialogs: the text of a button, or a path or text for dialogs that ask for one.
        seen: Texts of the dialogs that were shown.
        opened: Addresses that were opened with the desktop.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.answers: deque[str] = deque()
        self.seen: list[str] = []
        self.opened: list[str] = []

    def ask(self, text: str) -> str:
        """The answer to a dialog."""
        self.seen.append(text)
        if not self.answers:
            raise AssertionError(f"A dialog that the test did not expect: {text}")
        return self.answers.popleft()

    def ask_buttons(self, box: QtWidgets.QMessageBox) -> int:
        """Press the button with the text that the answer names."""
        answer = self.ask(box.text())
        texts = {button.text().replace("&", "").lower(): button for button in box.buttons()}
        if answer.lower() not in texts:
            raise AssertionError(f"The dialog {box.text()!r} has no button {answer!r}; it has {', '.join(texts)}")
        button = texts[answer.lower()]
        return int(box.standardButton(button))


dialogs = Dialogs()


def _open_url(url) -> bool:
    dialogs.opened.append(url.toString())
    return True


def _single_shot(milliseconds, function) -> None:
    slot = guarded(function, "QTimer.singleShot")
    QtCore.QTimer.singleShot(int(milliseconds), slot)


STATICS = {
    ("QTimer", "singleShot"): _single_shot,
    ("QDesktopServices", "openUrl"): lambda url: _open_url(unwrap(url)),
    **{
        ("QFileDialog", kind): lambda parent=None, caption="", *_: dialogs.ask(caption)  # the name alone, no tuple
        for kind in ("getSaveFileName", "getExistingDirectory")
    },
}
OVERRIDES = {("QMessageBox", name): lambda native: dialogs.ask_buttons(native) for name in ("exec", "exec_")}


# .ui files


class QUiLoader(QtUiTools.QUiLoader):
    """Loads .ui files with the emulated widgets; a class, property or slot that is not known is an error."""

    EMULATED: dict[str, type] = {}  # filled by `widgets`

    def createWidget(self, class_name, parent=None, name=""):
        kind = self.EMULATED.get(class_name) or getattr(QtWidgets, class_name)
        widget = kind(parent) if parent is not None else kind()
        widget.setObjectName(name)
        return widget

    def load(self, file, parent=None):
        root = ElementTree.fromstring(bytes(file.readAll().data()))
        connections = root.find("connections")
        wanted = list(connections) if connections is not None else []
        if connections is not None:
            root.remove(connections)  # those to MRML slots are beyond PySide6
        self._check(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer, parent)
        if widget is None:
            raise RuntimeError(self.errorString())
        members = {each.objectName(): each for each in [widget, *widget.findChildren(QtCore.QObject)]}
        for name in members.keys() & vars(widget).keys():
            del vars(widget)[name]  # PySide6 offers every child as an attribute of the root, PythonQt does not
        for each in wanted:
            sender, signal, receiver, slot = (each.findtext(k) for k in ("sender", "signal", "receiver", "slot"))
            if not {sender, receiver} <= members.keys():
                raise StandInRefusal(f".ui connection between {sender} and {receiver}: one of them is not there")
            connect(members[sender], signal, getattr(wrap(members[receiver]), slot.partition("(")[0]))
        return widget

    def _check(self, root) -> None:
        for element in root.iter("widget"):
            name = element.get("class")
            kind = self.EMULATED.get(name) or getattr(QtWidgets, name, None)
            if kind is None:
                raise StandInGap(f".ui: no widget class {name} ({element.get('name')})")
            for each in element.findall("property"):
                if each.get("stdset") != "0" and each.get("name") not in _property_names(kind):
                    raise StandInGap(f".ui: {name} has no property {each.get('name')} ({element.get('name')})")


@functools.cache
def _property_names(kind: type) -> set[str]:
    widget = kind()  # its meta object does not outlive it
    meta = widget.metaObject()
    names = {meta.property(i).name() for i in range(meta.propertyCount())}
    return names | {"orientation"}  # of a line or a spacer, which Designer writes so


class _Qt(types.ModuleType):
    """`import qt`: one flat name space."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        if name in REFUSED:
            raise StandInRefusal(f"qt.{name}: {REFUSED[name]}")
        value = QUiLoader if name == "QUiLoader" else None
        for source in SOURCES:
            value = value or getattr(source, name, None)
        if value is None:
            raise StandInGap(f"qt.{name} is not known")
        if isinstance(value, type) and issubclass(value, shiboken6.Object) and value is not QtCore.Qt:
            return proxy_class(value)
        return value


def in_observer(kind, error, trace) -> None:
    """VTK passes an exception in an observer to `sys.excepthook` and continues."""
    slot_errors.append(("an observer", error))
    sys.__excepthook__(kind, error, trace)


def _make_immortal() -> None:
    """Do for None, True and False what Python does from 3.12 on.

    PySide6 is built for Pythons that never count them, and each call takes a reference away: after some thousand of them an
    older Python aborts ("deallocating None").
    """
    if sys.version_info < (3, 12):
        for constant in (None, True, False, NotImplemented, Ellipsis):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 48


def start() -> types.ModuleType:
    """Make `import qt` work; the Qt application is started once for the process."""
    if "qt" not in sys.modules:
        _make_immortal()
        _Qt.application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
        sys.modules["qt"] = _Qt("qt")
    return sys.modules["qt"]
