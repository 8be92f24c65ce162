"""The panel's lists of targets and models, from the models that are installed."""

from contextlib import suppress

import qt
import slicer

from UNetPlusPlusSegmentLib.core.segment import plain_name
from UNetPlusPlusSegmentLib.network.bundle import find_bundles, providing, targets_of, user_folder

from .messages import severalLabelsTitle

DEFAULT = "liver"  # the target of a new scene, if there is a model for it
LOOK_MS = 2000  # interval for checking the models folder, once the user has opened it


class ModelList:
    """Lists the targets, and the models for the chosen target in the order of `providing`; the parameter node stores both choices.

    Attributes:
        refused: A sentence about each model folder that cannot be used.
    """

    def __init__(self, ui, whenFolderChanged):
        """Connect the lists, which stay empty until `bind` and `refresh`.

        Args:
            ui: The panel's widgets by name.
            whenFolderChanged: Called after the lists were updated to a change in the models folder.
        """
        self._ui, self._parameterNode, self._whenFolderChanged = ui, None, whenFolderChanged
        self._targets, self._models, self._listed, self._seen = [], [], None, None
        self.refused = []
        ui.targetComboBox.connect("currentIndexChanged(int)", self.onTarget)
        ui.modelComboBox.connect("currentIndexChanged(int)", self.onModel)
        ui.modelsFolderButton.connect("clicked(bool)", self.onModelsFolder)
        self._timer = qt.QTimer()
        self._timer.setInterval(LOOK_MS)
        self._timer.connect("timeout()", self.onLook)

    def bind(self, parameterNode) -> None:
        """Store the choices in this parameter node; None for nowhere."""
        self._parameterNode = parameterNode

    def close(self) -> None:
        """Stop watching the models folder."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self.onLook)  # the connection would keep this object alive

    @property
    def chosen(self):
        """The chosen model, a `Bundle`; None if there is none for the target."""
        index = self._ui.modelComboBox.currentIndex
        return self._models[index] if 0 <= index < len(self._models) else None

    def follow(self) -> None:
        """Update the lists if the user, a script or a loaded scene has chosen another target or model."""
        if (self._parameterNode.target, self._parameterNode.model) != self._listed:
            self.refresh()

    def refresh(self) -> None:
        """Search for models, and list targets and the models for the chosen target; choices are kept if they still exist."""
        parameters = self._parameterNode
        found, self.refused = find_bundles()
        self._targets = offered(found)
        if not parameters.target and self._targets:
            targets = [target for _title, target in self._targets]
            parameters.target = next((each for each in targets if each.casefold() == DEFAULT), targets[0])
        self._models = providing(parameters.target, found)
        names = [model.name for model in self._models]
        index = names.index(parameters.model) if parameters.model in names else 0
        _fill(
            self._ui.targetComboBox,
            [title for title, _target in self._targets],
            rowOf(parameters.target, self._targets, self._models[0] if self._models else None),
        )
        _fill(self._ui.modelComboBox, names, index if names else -1)
        for shown, widgets in (
            (len(self._targets) > 1, (self._ui.targetLabel, self._ui.targetComboBox)),
            (len(names) > 1, (self._ui.modelLabel, self._ui.modelComboBox)),
        ):
            for widget in widgets:
                widget.setVisible(shown)
        self._listed = parameters.target, names[index] if names else parameters.model
        self.onModel(index)

    def onTarget(self, index) -> None:
        """Choose another target and its first model, even if the current model has the target, too."""
        if self._parameterNode and 0 <= index < len(self._targets):
            with slicer.util.NodeModify(self._parameterNode):
                self._parameterNode.target, self._parameterNode.model = self._targets[index][1], ""

    def onModel(self, index) -> None:
        """Choose another model, with its threshold and lowest probability of findings."""
        if self._parameterNode and 0 <= index < len(self._models):
            model = self._models[index]
            if model.name != self._parameterNode.model:
                with slicer.util.NodeModify(self._parameterNode):
                    self._parameterNode.model = model.name
                    self._parameterNode.threshold = model.threshold
                    if model.decision:
                        self._parameterNode.showFrom = model.decision.least

    def onModelsFolder(self) -> None:
        """Open the folder for the user's own models in the file manager, and watch it for changes."""
        folder = user_folder()
        folder.mkdir(parents=True, exist_ok=True)
        self._seen = _filesIn(folder)
        self._timer.start()
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    def onLook(self) -> None:
        """Update the lists if models were added, removed or changed."""
        there = _filesIn(user_folder())
        if self._parameterNode and there != self._seen:
            self._seen = there
            self.refresh()
            self._whenFolderChanged()


def offered(bundles) -> list[tuple[str, str]]:
    """Title and target of everything that bundles can segment."""
    models = {target: providing(target, bundles)[0] for target in targets_of(bundles)}
    return [
        (severalLabelsTitle(model, target) if len(model.labels_of(target)) > 1 else target, target)
        for target, model in models.items()
    ]


def rowOf(target: str, targets: list, model) -> int:
    """The row of a target, however a script or an older scene spells it; -1 if it is not listed.

    Args:
        target: A target for the logic.
        targets: The list from `offered`.
        model: The `Bundle` that has the target; None if there is none.
    """
    labels = model.labels_of(target) if model else ()
    if len(labels) == 1:
        target = labels[0].name
    elif labels:
        target = next((each for each in model.groups if model.labels_of(each) == labels), target)
    rows, row = [plain_name(each) for _title, each in targets], plain_name(target)
    return rows.index(row) if row in rows else -1


def _fill(box, texts, index) -> None:
    """Replace the rows of a list, without a signal."""
    wasBlocked = box.blockSignals(True)
    box.clear()
    box.addItems(texts)
    box.setCurrentIndex(index)
    box.blockSignals(wasBlocked)


def _filesIn(folder) -> set:
    """The files in model folders, with their size and modification time."""
    found = set()
    for path in folder.glob("*/*"):
        with suppress(OSError):  # removed meanwhile
            found.add((path, path.stat().st_size, path.stat().st_mtime_ns))
    return found
