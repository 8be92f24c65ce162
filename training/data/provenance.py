"""The data and people that weights were trained on and their licence, passed on from one training to the next."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from UNetPlusPlusSegmentLib.network.card import Source

_NUMBER = re.compile(r" \((\d+) [^()]+\)$")  # as `counted` adds it


@dataclass(frozen=True)
class Provenance:
    """What weights were trained on: sources and licence, as a card lists them, and people, whom no card names.

    Attributes:
        sources: Everything that the weights were trained on.
        licence: Licence of the weights; several are separated by `; `, and all apply.
        people: Names of the people who are known to be among it, sorted.
        unnamed: The sources of which it is not known who was trained on.
    """

    sources: tuple[Source, ...] = ()
    licence: str = ""
    people: tuple[str, ...] = ()
    unnamed: tuple[Source, ...] = ()

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
        return Provenance(
            tuple(found.values()),
            "; ".join(dict.fromkeys(filter(None, terms))),
            tuple(sorted({*self.people, *start.people})),
            tuple(dict.fromkeys((*self.unnamed, *start.unnamed))),
        )


NOTHING = Provenance()


def counted(source: Source, number: int, group: str) -> Source:
    """The source, its name followed by the number of groups (patients, images) from it."""
    return replace(source, name=f"{source.name} ({number} {group}{'s' if number > 1 else ''})")


def may_overlap(one: Source, other: Source) -> bool:
    """True unless both name and citation say that two sources are different data; a citation may be a part of a longer one."""
    same_name = _NUMBER.sub("", one.name) == _NUMBER.sub("", other.name)
    return same_name or one.citation in other.citation or other.citation in one.citation


def _number(source: Source) -> int:
    match = _NUMBER.search(source.name)
    return int(match[1]) if match else 0
