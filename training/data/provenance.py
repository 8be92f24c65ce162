"""The data that weights were trained on and their licence, passed on from one training to the next."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from UNetPlusPlusSegmentLib.network.card import Source

_NUMBER = re.compile(r" \((\d+) [^()]+\)$")  # as `counted` adds it


@dataclass(frozen=True)
class Provenance:
    """Sources and licence of weights, as a card lists them.

    Attributes:
        sources: Everything that the weights were trained on.
        licence: Licence of the weights; several are separated by `; `, and all apply.
    """

    sources: tuple[Source, ...] = ()
    licence: str = ""

    def going_on_from(self, start: Provenance) -> Provenance:
        """The provenance of a training with these data and this licence that started from weights with the provenance `start`.

        The training's own sources come first. A source with the same name and citation is listed once, with the larger number of
        people, because it is not known how many are in both.
        """
        found: dict[tuple[str, str], Source] = {}
        for source in (*self.sources, *start.sources):
            first = found.setdefault((_NUMBER.sub("", source.name), source.citation), source)
            if _number(source) > _number(first):
                found[_NUMBER.sub("", source.name), source.citation] = replace(first, name=source.name)
        terms = [*self.licence.split("; "), *start.licence.split("; ")]
        return Provenance(tuple(found.values()), "; ".join(dict.fromkeys(filter(None, terms))))


NOTHING = Provenance()


def counted(source: Source, number: int, group: str) -> Source:
    """The source, its name followed by the number of groups (patients, images) from it."""
    return replace(source, name=f"{source.name} ({number} {group}{'s' if number > 1 else ''})")


def _number(source: Source) -> int:
    match = _NUMBER.search(source.name)
    return int(match[1]) if match else 0
