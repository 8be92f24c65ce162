"""The panel's list of models, with the targets that there are models for."""

import qt
import slicer

from UNetPlusPlusSegmentLib.network.bundle import find_bundles, user_folder


class ModelList:
    """Offers the models for the chosen target, the newest first. The choice is kept in the parameter node.

    Attributes:
        refused: A sentence about each model folder that cannot be used.
    """

    def __init__(self, ui):
        """Take over the list; nothing is offered before `bind`.

        Args:
            ui: The panel's widgets by name.
        """
        self._ui, self._parameterNode = ui, None
        self._models, self._listed = [], None
        self.refused = []
        ui.modelComboBox.connect("currentIndexChanged(int)", self.onModel)
        ui.modelsFolderButton.connect("clicked(bool)", self.onModelsFolder)

    def bind(self, parameterNode) -> None:
        """Keep the choice in this parameter node; None: nowhere."""
        self._parameterNode = parameterNode

    @property
    def chosen(self):
        """The chosen model, a `Bundle`; None if there is none for the target."""
        return self._models[self._ui.modelComboBox.currentIndex] if self._models else None

    def follow(self) -> None:
        """List the models anew if another target or model was chosen, by a script or by loading a scene."""
        if (self._parameterNode.target, self._parameterNode.model) != self._listed:
            self.refresh()

    def refresh(self) -> None:
        """Look for models, and list those for the target; the saved choice stays if it is still there."""
        parameters = self._parameterNode
        found, self.refused = find_bundles()
        self._models = [model for model in found if model.target == parameters.target.value]
        names = [model.name for model in self._models]
        index = names.index(parameters.model) if parameters.model in names else 0
        box = self._ui.modelComboBox
        wasBlocked = box.blockSignals(True)
        box.clear()
        box.addItems(names)
        box.setCurrentIndex(index if names else -1)
        box.blockSignals(wasBlocked)
        severalTargets = any(model.target != "liver" for model in found)
        for shown, widgets in (
            (severalTargets, (self._ui.targetLabel, self._ui.targetComboBox)),
            (len(names) > 1, (self._ui.modelLabel, box)),
        ):
            for widget in widgets:
                widget.setVisible(shown)
        self._listed = parameters.target, names[index] if names else parameters.model
        self.onModel(index)

    def onModel(self, index) -> None:
        """Take another model, and with it its threshold."""
        if self._parameterNode and 0 <= index < len(self._models):
            model = self._models[index]
            if model.name != self._parameterNode.model:
                with slicer.util.NodeModify(self._parameterNode):
                    self._parameterNode.model = model.name
                    self._parameterNode.threshold = model.threshold

    def onModelsFolder(self) -> None:
        """Open the folder for the user's own models, in the file manager."""
        folder = user_folder()
        folder.mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))
