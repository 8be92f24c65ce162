"""Questions before a run: about the licence, the installation of PyTorch, and segments that already exist."""

import qt
import slicer
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.scene import pytorch_install
from UNetPlusPlusSegmentLib.scene.scene_runs import segments_of_target

from .messages import LICENCE_URL

LICENCE_ACCEPTED = "UNetPlusPlusSegment/ModelsLicenceAccepted"


def mayRun() -> bool:
    """Ask the user to accept the licence of the models and to install PyTorch, if not yet done; True if both are done.

    Raises:
        PyTorchError: PyTorch is not installed, and could not be installed.
    """
    return _licenceAccepted() and (pytorch_install.is_installed() or pytorch_install.install())


def _licenceAccepted() -> bool:
    if slicer.util.settingsValue(LICENCE_ACCEPTED, False, converter=slicer.util.toBool):
        return True
    accepted = slicer.util.confirmOkCancelDisplay(
        _(
            "The trained models are licensed for non-commercial research and teaching only. They are not a medical device:"
            " do not use their results for diagnosis, treatment or any other decision about a patient."
            "<br><br>Click OK to accept <a href='{url}'>the licence</a>. You will be asked only once."
        ).format(url=LICENCE_URL),
        _("Licence of the models"),
    )
    if accepted:
        qt.QSettings().setValue(LICENCE_ACCEPTED, True)
    return accepted


def replaceOrAdd(segmentationNode, model, target, parent) -> str:
    """If the segmentation already has segments for the target, ask whether to replace them.

    Args:
        segmentationNode: The segmentation to write to; None for a new one.
        model, target: The `Bundle` and the target of the run.
        parent: The parent widget of the question.

    Returns:
        `replace`, `new`, or an empty string if the user cancels.
    """
    segmentIDs = segments_of_target(segmentationNode, model, target)
    if not segmentIDs:
        return "new"
    segmentation = segmentationNode.GetSegmentation()
    names = ", ".join(segmentation.GetSegment(each).GetName() for each in segmentIDs)
    box = qt.QMessageBox(parent)
    box.setIcon(qt.QMessageBox.Question)
    box.setWindowTitle(_("Existing result"))
    box.setText(
        _(
            "{segmentation} already contains {segments}. Replace this result, or add the new one next to it?"
            " All other segments stay unchanged."
        ).format(segmentation=segmentationNode.GetName(), segments=names)
    )
    box.setStandardButtons(qt.QMessageBox.Yes | qt.QMessageBox.No | qt.QMessageBox.Cancel)
    box.button(qt.QMessageBox.Yes).setText(_("Replace"))
    box.button(qt.QMessageBox.No).setText(_("Add new"))
    return {int(qt.QMessageBox.Yes): "replace", int(qt.QMessageBox.No): "new"}.get(int(box.exec_()), "")
