"""Files: reads volumes (NRRD, NIfTI, MetaImage, DICOM); writes segmentations, maps, tables and pictures."""

from .dicom import list_series, slices_of
from .dicom_seg import check_dicom_seg, write_dicom_seg
from .fingerprint import fingerprint_of, fingerprints_differ
from .forms import FORMS, beside, check_forms, form_of, write_forms
from .images import FileError
from .label_maps import label_maps
from .overlay import write_close_ups, write_overlay
from .points import read_points, read_points_table
from .reading import read_volume
from .segmentations import masks_of, segments_in
from .series_table import read_series_table
from .surfaces import write_surfaces
from .writing import check_grid, check_output, write_report, write_segmentation, write_volume

__all__ = [
    "FORMS",
    "FileError",
    "beside",
    "check_dicom_seg",
    "check_forms",
    "check_grid",
    "check_output",
    "fingerprint_of",
    "fingerprints_differ",
    "form_of",
    "label_maps",
    "list_series",
    "masks_of",
    "read_points",
    "read_points_table",
    "read_series_table",
    "read_volume",
    "segments_in",
    "slices_of",
    "write_close_ups",
    "write_dicom_seg",
    "write_forms",
    "write_overlay",
    "write_report",
    "write_segmentation",
    "write_surfaces",
    "write_volume",
]
