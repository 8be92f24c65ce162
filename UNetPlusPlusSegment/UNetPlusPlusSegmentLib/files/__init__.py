"""Files: volumes in (NRRD, NIfTI, MetaImage, DICOM); segmentations, maps, tables and pictures out, whole or not at all."""

from .images import FileError
from .overlay import write_close_ups, write_overlay
from .reading import read_volume
from .writing import check_grid, check_output, write_report, write_segmentation, write_volume

__all__ = [
    "FileError",
    "check_grid",
    "check_output",
    "read_volume",
    "write_close_ups",
    "write_overlay",
    "write_report",
    "write_segmentation",
    "write_volume",
]
