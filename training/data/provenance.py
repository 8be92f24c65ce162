"""What weights have learned from, and under which licence they may be used, from one training to the next."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from UNetPlusPlusSegmentLib.network.card import Source

_NUMBER = re.compile(r" \((\d+) [^()]+\)$")  # as `counted` adds it


@dataclass(frozen=True)
class Provenance:
    """Sources and licence of weights, as a card names them.

    Attributes:
        sources: Of all that the weights have learned from.
        licence: Of the weights; of several, apart by `; `, all hold.
    """

    sources: tuple[Source, ...] = ()
    licence: str = ""

    def going_on_from(self, start: Provenance) -> Provenance:
        """What a training with this provenance of its own makes of weights that have that of `start`.

        Its own sources come first. One of the same name and citation is named once, with the larger of its numbers: how many people
        are in both is not known.
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
    """The source with the number of patients, images or whatever a group is, that it gave."""
    return replace(source, name=f"{source.name} ({number} {group}{'s' if number > 1 else ''})")


def _number(source: Source) -> int:
    match = _NUMBER.search(source.name)
    return int(match[1]) if match else 0
