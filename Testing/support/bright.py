"""A bundle whose network can be checked by hand: a real UNet++ with deep supervision that finds what is brighter than 60 HU."""

import torch

from UNetPlusPlusSegmentLib.api import Engine
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.network.bundle import Bundle, write_bundle
from UNetPlusPlusSegmentLib.network.card import card_from_json
from UNetPlusPlusSegmentLib.network.unetpp import NodeGrid, build_network

BRIGHT_HU = 60


def segmented(engine: Engine, volume: Volume, **asked) -> Result:
    """The result of a request for the engine's own target."""
    return engine.predict(volume, Request(engine.bundle.target, **asked)).at()


def bright_network(architecture: str = "unetpp_ds", depth: int = 4) -> NodeGrid:
    """A network that passes the image along X[0][0] to every X[0][j]; each head gives sigmoid(40·(x − ½)), with x 0…1 over −40…160 HU."""
    network = passing_through(build_network(architecture, filters=[1] * (depth + 1)))
    with torch.no_grad():
        for head in network.outputs.values():
            head.weight.fill_(40)
            head.bias.fill_(-20)
    return network


def passing_through(network: NodeGrid) -> NodeGrid:
    """The network, with one filter, and weights that pass the image along X[0][0] to every X[0][j]; its heads are not set yet."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for key, node in network.nodes.items():
            if key.startswith("0_"):
                node[0].weight[0, 0, 1, 1] = 1
                node[2].weight[0, 0, 1, 1] = 1
    return network


def bright_bundle(folder, pixel_mm: float = 2.0, architecture: str = "unetpp_ds", depth: int = 4, **changes) -> Bundle:
    """Write the bundle to `folder`, as a model of the liver; `changes` are made to its card, as in JSON."""
    card = {
        "target": "liver",
        "architecture": {"name": architecture, "arguments": {"filters": [1] * (depth + 1)}},
        "labels": [
            {
                "value": 1,
                "name": "Liver",
                "terminology": "Segmentation category and type - 3D Slicer General Anatomy list"
                "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^",
                "color": [221, 130, 101],
            }
        ],
        "input": {"pixel_mm": pixel_mm, "window_hu": [-40, 160]},
        "threshold": 0.5,
        "average_from": 1,
        "postprocessing": {"largest_component": True, "fill_holes": True},
        "speeds": {
            "accurate": {"level": 4, "find_first": False},
            "balanced": {"level": 4, "find_first": True, "step_mm": 4, "change": 0.04},
            "fast": {"level": 3, "find_first": True, "step_mm": 8, "change": 0.08, "margin_mm": 40},
        },
        **changes,
    }
    return write_bundle(folder, card_from_json(card), bright_network(architecture, depth).state_dict())


def bright_nodule_bundle(folder, **changes) -> Bundle:
    """The same for nodules: what is brighter than -300 HU, in darker lung."""
    label = {
        "value": 1,
        "name": "Nodule",
        "terminology": "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure"
        "~SCT^27925004^Nodule~^^~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^",
        "color": [255, 200, 0],
    }
    given = {"target": "nodule", "labels": [label], "input": {"pixel_mm": 0.7, "window_hu": [-1000, 400]}}
    return bright_bundle(folder, **{**given, "postprocessing": {}, **changes})
