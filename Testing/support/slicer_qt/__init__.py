"""Slicer without Slicer: the real MRML of slicer-core, with PySide6 (offscreen) behind an imitation of PythonQt.

It has those parts of `qt`, `ctk` and `slicer` that the panel and the effect of this project need, and they behave like the real
classes. A missing part raises `StandInGap`; a call that Slicer would not accept raises `StandInRefusal`; an exception in a
slot, which Slicer would only print, is kept in `pythonqt.slot_errors`, and the fixture `slicer_app` fails if there is one. The
code under test does not notice the difference.

    pythonqt          attributes, signals, dialogs, `.ui` files: the module `qt`
    widgets           `ctk` and the qMRML widgets, as PySide6 widgets
    scripted_module   `slicer.ScriptedLoadableModule` and `slicer.i18n`
    parameter_node    `slicer.parameterNodeWrapper`
    application       `slicer.app`, modules, the frame around a panel, and the fixture
"""
