"""Slicer without Slicer: real MRML of slicer-core below, PySide6 (offscreen) above, with PythonQt's manners in between.

What the panel and the effect of this project need of `qt`, `ctk` and `slicer`, and no more. It behaves as the real classes
do, as far as it goes: what it lacks raises `StandInGap`, what Slicer would not accept raises `StandInRefusal`, and what
Slicer would print and forget (an exception in a slot) is kept in `pythonqt.slot_errors`, which the fixture `slicer_app`
finds empty or fails. The code under test does not know that it is here.

    pythonqt          attributes, signals, dialogs, `.ui` files: the module `qt`
    widgets           `ctk` and the qMRML widgets, as PySide6 widgets
    scripted_module   `slicer.ScriptedLoadableModule` and `slicer.i18n`
    parameter_node    `slicer.parameterNodeWrapper`
    application       `slicer.app`, modules, the frame around a panel, and the fixture
"""
