"""The target and the model that are chosen on the page. Uses the state of the page, not its widgets."""

from __future__ import annotations

from typing import Any

from ..network.bundle import Bundle, find_bundles, providing, targets_of

FIRST = "liver"  # the target that is chosen at first, if there is a model for it


class Choice:
    """The chosen target, the models that provide it, and the settings that a model begins with."""

    def __init__(self, state: Any) -> None:
        """Choose the first target, and follow the page from then on.

        Args:
            state: The state of the page (`trame_server.state.State`).
        """
        self._state = state
        self._bundles, _ = find_bundles()
        targets = targets_of(self._bundles)
        target = min(targets, key=lambda each: each.casefold() != FIRST, default="")
        state.update({"targets": targets, "target": target, "picking": False})
        self.target_changed()
        state.change("target")(lambda **_: self.target_changed())
        state.change("model")(lambda **_: self._model_changed())

    @property
    def bundle(self) -> Bundle | None:
        """The chosen model; None if it does not have the chosen target, as a page may send anything."""
        found = providing(self._state.target or "", self._bundles)
        return next((each for each in found if each.name == self._state.model), None)

    def target_changed(self) -> None:
        """Choose the first model of a target that has been chosen."""
        self._state.models = [each.name for each in providing(self._state.target or "", self._bundles)]
        self._state.model = next(iter(self._state.models), None)
        self._model_changed()

    def _model_changed(self) -> None:
        bundle = self.bundle
        decision = bundle.decision if bundle else None
        nodules = bundle is not None and bundle.finds_nodules
        self._state.update(
            {
                "nodules": nodules, "picking": self._state.picking and nodules, "threshold": bundle.threshold if bundle else 0.5,
                "decides": decision is not None, "show_from": decision.least if decision else 0.5,
            }
        )  # fmt: skip
