"""The process that runs a cohort for Slicer's panel: `python -m UNetPlusPlusSegmentLib.jobs.cohort_main`.

From the parent, one JSON line: {"inputs": folder, "folder": folder, "request": Request.to_json()}. When stdin closes, it ends.
To the parent, one JSON object per line:
    {"say": "progress", "done": 3, "total": 40, "case": the next one}
    {"say": "ended", "record": line of the manifest}
    {"say": "done"}
    {"say": "failed", "message": one sentence}
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import NoReturn

from ..core.request import Request
from .cohort import one_after_the_other, run_cohort
from .pipes import take_pipes
from .worker_client import Worker


def main() -> int:
    """Run one cohort; returns 0 if it ran to its end, even if cases failed."""
    requests, answers = take_pipes()

    def say(what: str, **more: object) -> None:
        answers.write(json.dumps({"say": what, **more}).encode("ascii") + b"\n")
        answers.flush()

    asked = json.loads(requests.readline())
    threading.Thread(target=_end_with_parent, args=[requests], daemon=True).start()
    try:
        with Worker() as worker:
            run_cohort(
                one_after_the_other(worker),
                asked["inputs"],
                asked["folder"],
                Request.from_json(asked["request"]),
                lambda done, total, case: say("progress", done=done, total=total, case=case),
                ended=lambda record: say("ended", record=record),
            )
    except ValueError as error:
        say("failed", message=str(error))
        return 1
    say("done")
    return 0


def _end_with_parent(requests) -> NoReturn:  # noqa: ANN001
    while requests.readline():
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
