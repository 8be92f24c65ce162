"""What the card of a model says of its target, as JSON has it; {patients} becomes the number of those trained on."""

from __future__ import annotations

from UNetPlusPlusSegmentLib.nodule.segments import TERMINOLOGY

_LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
CARDS = {
    "liver": {
        "labels": [{"value": 1, "name": "Liver", "terminology": _LIVER, "color": [221, 130, 101]}],
        "postprocessing": {"largest_component": True, "fill_holes": True},
        "speeds": {
            "accurate": {"level": 4, "find_first": False},
            "balanced": {"level": 4, "find_first": True, "step_mm": 4, "change": 0.04},
            "fast": {"level": 4, "find_first": True, "step_mm": 8, "change": 0.08, "margin_mm": 40},
        },
        "training_data": [
            {
                "name": "LiTS (Liver Tumor Segmentation Benchmark): axial slices of {patients} patients, some of them of 3D-IRCADb-01",
                "licence": "CC BY-NC-ND 4.0; 3D-IRCADb-01: CC BY-NC-ND 3.0",
                "citation": "Bilic P et al. The Liver Tumor Segmentation Benchmark (LiTS). Medical Image Analysis 84, 102680, 2023.",
            }
        ],
        "intended_use": "Research: outlining the liver in axial CT of the abdomen. Not for diagnosis or treatment.",
        "limits": [
            "Most of the patients had liver tumours and intravenous contrast; scans without contrast are less certain.",
            "On slices without liver it can take another organ for it: `evaluation.json` names the largest such area (worst_false_mm2).",
            "Trained on images clipped to -40…160 HU.",
            "Each slice is segmented by itself; neighbouring slices are not looked at.",
        ],
    },
    "nodule": {
        "labels": [{"value": 1, "name": "Nodule", "terminology": TERMINOLOGY, "color": [144, 238, 144]}],
        "postprocessing": {},
        "speeds": {
            "accurate": {"level": 4, "find_first": False},
            "balanced": {"level": 4, "find_first": True},
            "fast": {"level": 3, "find_first": True},
        },
        "training_data": [
            {
                "name": "LIDC-IDRI: axial crops around the nodules of {patients} patients, marked by at least two of four readers",
                "licence": "CC BY 3.0",
                "citation": "Armato SG III et al. The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative"
                " (IDRI). Medical Physics 38(2), 915-931, 2011.",
            }
        ],
        "intended_use": "Research: outlining a lung nodule that a user points at in axial CT of the chest. Not for diagnosis, treatment"
        " or screening.",
        "limits": [
            "Trained on crops of 128 x 128 pixels around nodules, never on whole lungs: it outlines nodules that are pointed at. What a"
            " search of a whole chest misses or finds wrongly has not been measured on a set of whole scans.",
            "What counts as nodule is what two of four readers marked; readers differ most at the rims of ground-glass and small nodules.",
            "A search of a whole chest leaves out what continues like a vessel, and with it some nodules that a vessel passes through.",
            "Masses above about 50 mm are larger than what it was trained on.",
            "Each slice is segmented by itself; neighbouring slices are not looked at.",
        ],
    },
}
