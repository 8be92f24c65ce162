"""The effect's widgets, and the parameters of the segment editor node that they show. Uses Qt; starts no run."""

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.network.bundle import find_bundles, providing
from UNetPlusPlusSegmentUILib.messages import speedTitle
from UNetPlusPlusSegmentUILib.models import DEFAULT, offered, rowOf

SPEEDS = ("balanced", "accurate", "fast")


def setDefaults(host, models):
    """Set missing parameters of the vtkMRMLSegmentEditorNode to defaults; all targets of a model share its threshold.

    Where another model has taken the place of the one that a threshold was stored for, it becomes that of the new model.

    Args:
        host: The effect's C++ side, with such a node.
        models: All models, from `find_bundles`.
    """
    isThere = not models or providing(DEFAULT, models)
    host.setParameterDefault("Target", DEFAULT if isThere else offered(models)[0][1])
    for target in {model.target for model in models}:
        model = providing(target, models)[0]
        threshold, owner = _thresholdOf(model), f"{model.target.capitalize()}Model"
        if host.parameterDefined(owner) and host.parameter(owner) != model.name:
            host.setParameter(threshold, model.threshold)
        host.setParameterDefault(threshold, model.threshold)
        host.setParameter(owner, model.name)
    host.setParameterDefault("Speed", "balanced")
    host.setParameterDefault("NewSegment", 0)


class Options:
    """The widgets in the options frame of the effect. The choices themselves are stored as parameters.

    Attributes:
        targetBox, speedBox, thresholdSlider, roiSelector, placeWidget, newSegmentBox: Widgets for the choices.
        previewButton, refineButton, applyButton, cancelButton, progressBar, message: The other widgets.
        models: All usable models.
        refused: A sentence about each model that cannot be used.
    """

    def __init__(self, host):
        """Build the widgets.

        Args:
            host: The effect's C++ side.
        """
        self._host, self._connections, self.models, self.refused = host, [], [], []
        self._addChoices()
        self._addBox()
        self._addButtons()
        self.progressBar = qt.QProgressBar()
        host.addOptionsWidget(self.progressBar)
        self.message = qt.QLabel()
        self.message.setTextFormat(qt.Qt.PlainText)
        self.message.setWordWrap(True)
        host.addOptionsWidget(self.message)
        self.connect(self.targetBox, "currentIndexChanged(int)", self.onTarget)
        self.connect(self.speedBox, "currentIndexChanged(int)", self.store)
        self.connect(self.thresholdSlider, "valueChanged(double)", self.store)
        self.connect(self.newSegmentBox, "stateChanged(int)", self.store)
        self.connect(self.roiSelector, "nodeActivated(vtkMRMLNode*)", self.onRoi)
        self.connect(self.roiSelector, "nodeAddedByUser(vtkMRMLNode*)", self.onNewRoi)

    def _addChoices(self):
        self.targetBox, self.speedBox = qt.QComboBox(), qt.QComboBox()
        for name in SPEEDS:
            self.speedBox.addItem(speedTitle(name), name)
        self._targetLabel = self._host.addLabeledOptionsWidget(_("Target:"), self.targetBox)
        self._host.addLabeledOptionsWidget(_("Speed:"), self.speedBox)
        self.thresholdSlider = ctk.ctkSliderWidget()
        self.thresholdSlider.minimum, self.thresholdSlider.maximum = 0.01, 0.99
        self.thresholdSlider.singleStep = 0.01
        self.thresholdSlider.decimals = 2
        self.thresholdSlider.setToolTip(
            _(
                "Voxels with at least this probability belong to the target. Click Preview to see the effect of a change."
            )
        )
        self._host.addLabeledOptionsWidget(_("Threshold:"), self.thresholdSlider)

    def _addBox(self):
        self.roiSelector = slicer.qMRMLNodeComboBox()
        self.roiSelector.nodeTypes = ["vtkMRMLMarkupsROINode"]
        self.roiSelector.noneEnabled = True
        self.roiSelector.noneDisplay = _("Whole volume")
        self.roiSelector.setMRMLScene(slicer.mrmlScene)
        self.roiSelector.setToolTip(
            _("Box to analyse. The segment is replaced inside the box and stays unchanged outside it.")
        )
        self.placeWidget = slicer.qSlicerMarkupsPlaceWidget()
        self.placeWidget.setMRMLScene(slicer.mrmlScene)
        self.placeWidget.deleteAllControlPointsOptionVisible = False
        row = qt.QHBoxLayout()
        row.addWidget(self.roiSelector, 1)
        row.addWidget(self.placeWidget)
        self._host.addLabeledOptionsWidget(_("Region of interest:"), row)

    def _addButtons(self):
        self.newSegmentBox = qt.QCheckBox(_("New segment for each finding"))
        self.newSegmentBox.setToolTip(
            _("If not checked, the selected segment is replaced by all nodules or organs together.")
        )
        self._host.addOptionsWidget(self.newSegmentBox)
        self.previewButton = qt.QPushButton(_("Preview"))
        self.refineButton = qt.QPushButton(_("Refine here"))
        self.applyButton = qt.QPushButton(_("Apply"))
        self.cancelButton = qt.QPushButton(_("Cancel"))
        for button, name in (
            (self.previewButton, "Preview"),
            (self.refineButton, "Refine"),
            (self.applyButton, "Apply"),
            (self.cancelButton, "Cancel"),
        ):
            button.objectName = f"SegmentEditorEffect{name}"
        self.previewButton.setToolTip(_("Show the result without changing the segment."))
        self.refineButton.setToolTip(_("Analyse the box again, with the full network on every slice."))
        for pair in ((self.previewButton, self.refineButton), (self.cancelButton, self.applyButton)):
            row = qt.QHBoxLayout()
            for button in pair:
                row.addWidget(button)
            self._host.addOptionsWidget(row)

    def connect(self, sender, signal, slot):
        """Connect a signal until `disconnect`."""
        sender.connect(signal, slot)
        self._connections.append((sender, signal, slot))

    def disconnect(self):
        """Disconnect all slots, as a connection keeps its object alive (Slicer#7392)."""
        for sender, signal, slot in self._connections:
            sender.disconnect(signal, slot)
        self._connections.clear()

    # The parameters; there are none without a vtkMRMLSegmentEditorNode

    @property
    def there(self):
        """True if there is a node to store the parameters."""
        return self._host.parameterSetNode() is not None

    @property
    def target(self):
        """The target for the logic: `liver`, `nodule`, or one of any other model."""
        return self._host.parameter("Target") if self.there else ""

    @property
    def model(self):
        """The model that the logic will use for the target; None if there is none."""
        return next(iter(providing(self.target, self.models)), None)

    @property
    def speed(self):
        """`balanced`, `accurate` or `fast`."""
        return self._host.parameter("Speed")

    @property
    def threshold(self):
        """The threshold for the target's model; 0.5 if there is no model."""
        return self._host.doubleParameter(_thresholdOf(self.model)) if self.model else 0.5

    @property
    def roiNode(self):
        """The box; None for the whole volume."""
        return self._host.nodeReference("ROI") if self.there else None

    @property
    def newSegments(self):
        """True if each nodule or label becomes a segment of its own."""
        return self.findsSeveral and self._host.integerParameter("NewSegment") != 0

    @property
    def findsSeveral(self):
        """True if the target can have several segments."""
        model = self.model
        return model is not None and (model.finds_nodules or len(model.labels_of(self.target)) > 1)

    def show(self):
        """Show the parameters, without a signal."""
        widgets = (self.targetBox, self.speedBox, self.thresholdSlider, self.roiSelector, self.newSegmentBox)
        blocked = [widget.blockSignals(True) for widget in widgets]
        self.targetBox.setCurrentIndex(rowOf(self.target, offered(self.models), self.model))
        self.speedBox.setCurrentIndex(self.speedBox.findData(self.speed))
        self.thresholdSlider.value = self.threshold
        self.roiSelector.setCurrentNode(self.roiNode)
        self.newSegmentBox.checked = self._host.integerParameter("NewSegment") != 0
        for widget, was in zip(widgets, blocked, strict=True):
            widget.blockSignals(was)
        self.placeWidget.setCurrentNode(self.roiNode)

    def store(self):
        """Store the choices as parameters."""
        if self.there:
            self._host.setParameter("Speed", self.speedBox.currentData)
            if self.model:
                self._host.setParameter(_thresholdOf(self.model), self.thresholdSlider.value)
            self._host.setParameter("NewSegment", int(self.newSegmentBox.checked))

    def onTarget(self, index):
        """Choose another target; its threshold is shown with it."""
        if self.there and index >= 0:
            self._host.setParameter("Target", self.targetBox.itemData(index))

    def onRoi(self, node):
        """Choose another box, or the whole volume."""
        if self.there and self.roiNode is not node:
            self._host.setNodeReference("ROI", node)

    def onNewRoi(self, node):
        """Let the user draw the new box."""
        self.onRoi(node)
        self.placeWidget.setCurrentNode(node)
        self.placeWidget.placeModeEnabled = True

    def refreshModels(self):
        """List all targets of the models, as the panel does."""
        self.models, self.refused = find_bundles()
        if self.there:
            setDefaults(self._host, self.models)
        blocked = self.targetBox.blockSignals(True)
        self.targetBox.clear()
        for title, target in offered(self.models):
            self.targetBox.addItem(title, target)
        self.targetBox.blockSignals(blocked)

    def enable(self, running, ready, canCancel):
        """Enable and show the widgets.

        Args:
            running: A run is in progress.
            ready: A run can be started.
            canCancel: There is a run or a preview to cancel.
        """
        severalTargets, hasBox = self.targetBox.count > 1, self.roiNode is not None
        self.targetBox.setVisible(severalTargets)
        self._targetLabel.setVisible(severalTargets)
        self.newSegmentBox.setVisible(self.findsSeveral)
        self.progressBar.setVisible(running)
        for widget in (self.targetBox, self.speedBox, self.thresholdSlider, self.roiSelector, self.newSegmentBox):
            widget.setEnabled(not running)
        self.placeWidget.setEnabled(hasBox and not running)
        self.previewButton.setEnabled(ready)
        self.refineButton.setEnabled(ready and hasBox)
        self.applyButton.setEnabled(ready)
        self.cancelButton.setEnabled(canCancel)


def _thresholdOf(model):
    """Name of the parameter that stores the threshold for a model."""
    return f"{model.target.capitalize()}Threshold"
