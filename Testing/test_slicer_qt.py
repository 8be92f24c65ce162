"""The stand-in for Slicer's Qt: it does what PythonQt and Slicer's base classes do, and refuses what they refuse."""

import gc
import weakref
from typing import Annotated

import pytest

from Testing.support.mrml_scene import slicer
from Testing.support.slicer_qt import pythonqt
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import StandInGap, StandInRefusal, dialogs, slot_errors
from Testing.support.slicer_qt.widgets import qMRMLNodeComboBox

qt = pythonqt.start()
VOLUME = "vtkMRMLScalarVolumeNode"


def loaded(tmp_path, body: str):
    path = tmp_path / "some.ui"
    path.write_text(f'<?xml version="1.0"?><ui version="4.0"><class>some</class>{body}</ui>')
    return slicer.util.loadUI(str(path))


def taken_slot_errors() -> list[str]:
    errors = [str(error) for _where, error in slot_errors]
    slot_errors.clear()
    return errors


# Attributes


def test_a_property_is_a_value_and_name_means_object_name(slicer_app):
    button = qt.QPushButton("Go")
    assert (button.text, button.checkable, button.isEnabled()) == ("Go", False, True)
    with pytest.raises(TypeError, match="not callable"):
        button.text()
    button.name = "go"
    assert button.objectName == "go"
    button.setText(None)
    assert button.text == "None"
    button.text = 5
    assert button.text == "5"


def test_a_cpp_object_takes_no_new_attributes_no_keywords_and_no_wrong_types(slicer_app):
    box = qt.QSpinBox()
    for name in ("novelty", "setValue", "valueChanged"):
        with pytest.raises(StandInRefusal):
            setattr(box, name, 1)
    with pytest.raises(StandInRefusal, match="does not accept"):
        box.value = "many"
    with pytest.raises(TypeError, match="keyword"):
        box.setRange(minimum=0, maximum=1)
    with pytest.raises(StandInGap, match="no attribute"):
        getattr(box, "novelty")  # noqa: B009 (as an expression it would be a useless one)
    for name in ("Signal", "QtWidgets"):
        with pytest.raises(StandInRefusal):
            getattr(qt, name)


def test_lists_come_back_as_tuples_of_the_same_objects_and_children_are_found_by_name(slicer_app):
    parent = qt.QWidget()
    layout = qt.QVBoxLayout(parent)
    label = qt.QLabel("text")
    label.name = "label"
    layout.addWidget(label)
    assert parent.findChildren(qt.QLabel) == (label,)
    assert parent.label is label
    assert layout.itemAt(0).widget() is label
    assert label in parent.children()


def test_a_private_helper_of_an_emulated_widget_cannot_be_reached(slicer_app):
    assert not hasattr(slicer.qMRMLNodeComboBox(), "_rebuild")


# Signals


def test_slots_get_the_arguments_they_take(slicer_app):
    button, seen = qt.QPushButton(), []
    button.connect("clicked(bool)", lambda: seen.append("none"))
    button.clicked.connect(lambda checked: seen.append(checked))
    button.clicked.connect(lambda checked="default": seen.append(checked))  # a default counts
    button.clicked.connect(lambda *everything: seen.append(everything))
    button.click()
    assert seen == ["none", False, False, (False,)]


def test_a_signal_that_does_not_exist_is_refused_where_slicer_only_prints(slicer_app):
    with pytest.raises(StandInRefusal, match=r"no signal clicked\(int\)"):
        qt.QPushButton().connect("clicked(int)", print)
    with pytest.raises(ValueError, match="signal"):
        qt.QPushButton().disconnect()


def test_a_disconnected_slot_is_silent_and_let_go(slicer_app):
    class Listener:
        def __init__(self):
            self.heard = 0

        def hear(self):
            self.heard += 1

    button, listener = qt.QPushButton(), Listener()
    button.connect("clicked()", listener.hear)
    button.click()
    button.disconnect("clicked()", listener.hear)
    button.click()
    assert listener.heard == 1
    gone = weakref.ref(listener)
    del listener
    gc.collect()
    assert gone() is None


def test_a_timer_runs_with_the_event_loop(slicer_app):
    heard, timer = [], qt.QTimer()
    timer.connect("timeout()", lambda: heard.append(timer.interval))
    timer.setInterval(1)
    timer.start()
    wait_until(lambda: heard)
    assert heard[0] == 1
    with pytest.raises(StandInRefusal, match="can not be overwritten"):
        timer.singleShot = True


def test_an_exception_in_a_slot_goes_no_further_but_is_kept(slicer_app):
    button = qt.QPushButton()
    button.clicked.connect(lambda: 1 / 0)
    button.click()
    assert taken_slot_errors() == ["division by zero"]


# Dialogs and .ui files


def test_a_dialog_takes_the_answer_that_was_prepared_and_nobody_else_s(slicer_app):
    dialogs.answers.append("Cancel")
    assert not slicer.util.confirmOkCancelDisplay("Go on?")
    with pytest.raises(AssertionError, match="did not expect: Really"):
        slicer.util.confirmOkCancelDisplay("Really?")
    dialogs.answers.append("Perhaps")
    with pytest.raises(AssertionError, match="no button 'Perhaps'"):
        slicer.util.errorDisplay("Too bad")
    dialogs.answers.append("/tmp/x.csv")
    assert qt.QFileDialog.getSaveFileName(None, "Save") == "/tmp/x.csv"


def test_a_ui_file_with_what_is_not_known_is_refused(slicer_app, tmp_path):
    with pytest.raises(StandInGap, match="no widget class ctkNovelty"):
        loaded(tmp_path, '<widget class="ctkNovelty" name="x"/>')
    wrong = '<widget class="QLabel" name="x"><property name="colour"><string>red</string></property></widget>'
    with pytest.raises(StandInGap, match="QLabel has no property colour"):
        loaded(tmp_path, wrong)
    dynamic = wrong.replace('name="colour"', 'name="colour" stdset="0"')
    assert loaded(tmp_path, dynamic).property("colour") == "red"


def test_a_collapsed_button_hides_its_children_until_it_is_opened(slicer_app, tmp_path):
    box = loaded(
        tmp_path,
        '<widget class="ctkCollapsibleButton" name="box"><property name="collapsed"><bool>true</bool></property>'
        '<layout class="QVBoxLayout" name="l"><item><widget class="QLabel" name="inside"/></item></layout></widget>',
    )
    box.show()
    slicer_app.processEvents()
    assert not box.inside.visible
    box.collapsed = False
    assert box.inside.visible


# Node selectors


@pytest.mark.parametrize("late", [True, False])
def test_a_selector_without_none_takes_the_first_node_that_is_there_and_perhaps_a_later_one(
    slicer_app, scene, monkeypatch, late
):
    monkeypatch.setattr(qMRMLNodeComboBox, "selects_late", late)
    early, empty = slicer.qMRMLNodeComboBox(), slicer.qMRMLNodeComboBox()
    for selector in (early, empty):
        selector.nodeTypes = (VOLUME,)
    assert not empty.enabled
    empty.setMRMLScene(scene)
    node = scene.AddNewNodeByClass(VOLUME)
    early.setMRMLScene(scene)
    assert early.currentNode() is node
    assert (empty.currentNode() is node) == late


def test_a_selector_shows_exact_classes_follows_what_leaves_and_says_so(slicer_app, scene):
    selector, seen = slicer.qMRMLNodeComboBox(), []
    selector.setBaseName("too early")
    selector.nodeTypes, selector.showChildNodeTypes = (VOLUME,), False
    selector.currentNodeChanged.connect(lambda node: seen.append(node and node.GetName()))
    selector.setMRMLScene(scene)
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    first, second = (scene.AddNewNodeByClass(VOLUME, name) for name in ("first", "second"))
    assert selector.nodeCount() == 2
    selector.setCurrentNode(first)
    scene.RemoveNode(first)
    assert selector.currentNode() is second
    scene.RemoveNode(second)
    assert (seen, selector.currentNodeID) == (["first", "second", None], "")
    assert selector.addNode().GetName() != "too early"


# The parameter node


def test_a_wrapped_parameter_node_and_its_widgets_follow_each_other(slicer_app, scene):
    wrapper = slicer.parameterNodeWrapper

    class Choices:
        volume: slicer.vtkMRMLScalarVolumeNode
        share: Annotated[float, wrapper.WithinRange(0, 1)] = 0.5
        on: bool

    Choices = wrapper.parameterNodeWrapper(Choices)
    choices = Choices(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    panel = qt.QWidget()
    box, check = qt.QDoubleSpinBox(panel), qt.QCheckBox(panel)
    box.setProperty("SlicerParameterName", "share")
    check.setProperty("SlicerParameterName", "on")
    tag = choices.connectGui(panel)
    box.value, check.checked = 0.25, True
    assert (choices.share, choices.on, box.maximum) == (0.25, True, 1.0)
    choices.share = 0.75
    assert box.value == 0.75
    with pytest.raises(ValueError, match="within range"):
        choices.share = 1.5
    choices.disconnectGui(tag)
    box.value = 0.1
    assert choices.share == 0.75
    node = scene.AddNewNodeByClass(VOLUME)
    choices.volume = node
    assert Choices(choices.parameterNode).volume is node


def test_a_widget_of_another_class_than_slicer_knows_is_refused(slicer_app, scene):
    class Choices:
        on: bool

    choices = slicer.parameterNodeWrapper.parameterNodeWrapper(Choices)(
        scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    )
    panel = qt.QWidget()
    qt.QRadioButton(panel).setProperty("SlicerParameterName", "on")
    with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
        choices.connectGui(panel)
