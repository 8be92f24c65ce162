"""The target of a user's own organ, as in its YAML file."""

TERM = "c~SCT^123037004^Anatomical Structure~SCT^78961009^Spleen~^^~Anatomic codes - DICOM master list~^^~^^"
SPLEEN = {
    "name": "spleen",
    "labels": [{"name": "Spleen", "terminology": TERM, "color": [157, 108, 162], "made_of": ["spleen"]}],
    "slices": {
        "window_hu": [-100, 240],
        "structures": {"spleen": [1]},
        "pixel_mm": {"usual": 1.5},
        "sources": [{"name": "Our ten patients", "licence": "CC BY 4.0", "citation": "We, 2025."}],
    },
    "licence": "CC BY 4.0",
    "intended_use": "Research.",
    "limits": ["Ten patients."],
}
