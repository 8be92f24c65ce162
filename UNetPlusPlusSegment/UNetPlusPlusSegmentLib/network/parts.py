"""The parts of a request: which models its targets need, and what each of them is asked for. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.request import Point, Request
from .bundle import Bundle, choose_bundle

Part = tuple[Bundle, Request]  # a model, and what is asked of it


def parts_of(request: Request, has_points: bool = False) -> list[Part]:
    """Split a request into one for each model that it needs, with the targets of that model.

    Nodules come before organs: where both claim a voxel, the nodule keeps it.

    Args:
        request: Its `model` is for the first target, and for those of the others that it has.
        has_points: The request will be given points later.

    Raises:
        BundleError, RequestError: There is no model for a target, or the model cannot do what is asked.
    """
    first = choose_bundle(request.target, request.model)
    chosen = [(request.target, first)]
    for target in request.also:
        has_it = request.model is not None and first.labels_of(target)
        chosen.append((target, first if has_it else choose_bundle(target)))
    bundles = {bundle.folder: bundle for _, bundle in chosen}
    any_gives_probability = any(bundle.decision for bundle in bundles.values())
    parts = []
    for bundle in bundles.values():
        target, *also = (target for target, its in chosen if its.folder == bundle.folder)
        show_from = request.show_from if bundle.decision or not any_gives_probability else None
        asked = replace(request, target=target, also=tuple(also), model=None, points=(), show_from=show_from)
        parts.append((bundle, asked))
    parts = with_points(sorted(parts, key=lambda part: not part[0].finds_nodules), request.points)
    for bundle, asked in parts:
        bundle.check_request(asked, has_points and bundle is parts[0][0])
    return parts


def with_points(parts: Sequence[Part], points: Sequence[Point]) -> list[Part]:
    """Give the points to the models that find nodules. If there is none, all parts get them, so that they are refused."""
    any_nodules = any(bundle.finds_nodules for bundle, _ in parts)
    return [
        (bundle, replace(asked, points=tuple(points) if bundle.finds_nodules or not any_nodules else ()))
        for bundle, asked in parts
    ]
