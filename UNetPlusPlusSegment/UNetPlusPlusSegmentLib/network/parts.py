"""The parts of a request: a model for each of its targets, one run for each model. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.request import Point, Request
from .bundle import Bundle, choose_bundle

Part = tuple[Bundle, Request]  # a model, and what is asked of it


def parts_of(request: Request, has_points: bool = False) -> list[Part]:
    """A request for each model that is needed, with those of the targets that it has; nodules before organs, which may be cut.

    Args:
        request: Its `model` is that of the first target, and of all others that it has.
        has_points: It will get points that it has not yet.

    Raises:
        BundleError, RequestError: There is no model for a target, or it does not do what is asked.
    """
    first = choose_bundle(request.target, request.model)
    chosen = [(request.target, first)]
    for target in request.also:
        has_it = request.model is not None and first.labels_of(target)
        chosen.append((target, first if has_it else choose_bundle(target)))
    bundles = {bundle.folder: bundle for _, bundle in chosen}
    any_decides = any(bundle.decision for bundle in bundles.values())
    parts = []
    for bundle in bundles.values():
        target, *also = (target for target, its in chosen if its.folder == bundle.folder)
        show_from = request.show_from if bundle.decision or not any_decides else None
        asked = replace(request, target=target, also=tuple(also), model=None, points=(), show_from=show_from)
        parts.append((bundle, asked))
    parts = with_points(sorted(parts, key=lambda part: not part[0].finds_nodules), request.points)
    for bundle, asked in parts:
        bundle.check_request(asked, has_points and bundle is parts[0][0])
    return parts


def with_points(parts: Sequence[Part], points: Sequence[Point]) -> list[Part]:
    """The same parts with points for nodules; where no model finds any, the points stay, so that they are refused."""
    any_nodules = any(bundle.finds_nodules for bundle, _ in parts)
    return [
        (bundle, replace(asked, points=tuple(points) if bundle.finds_nodules or not any_nodules else ()))
        for bundle, asked in parts
    ]
