"""The app without a browser: frames per second while scrolling, and the times of a surface, a saved stroke, and a click until its mask.

    python benchmarks/app_views.py --size 512 512 200

Without a graphics card, views are rendered in software (Mesa). Needs the extra `[app]`, and the scans of `scans.py` for the clicks.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scans


def seconds(call: Callable[[], object]) -> float:
    """The duration of a call in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


async def clicks(server: Any, views: Any, folder: Path) -> None:
    """Print the seconds from a click to the mask in the views, for a liver in 512 × 512 × 200 voxels and a nodule in a chest."""
    from UNetPlusPlusSegmentLib import files
    from UNetPlusPlusSegmentLib.app.cases import find
    from UNetPlusPlusSegmentLib.app.session import Session

    marked = np.argwhere(scans.readers() == scans.readers().max())
    for name in ("tiled_200", "chest_111"):
        volume = scans.load(name)
        files.write_volume(folder / f"{name}.nrrd", volume.array, volume.ijk_to_ras)
    session = Session(server, views, find([folder]))

    async def took(points: list | None = None) -> str:
        started = time.perf_counter()
        session.apply(points)
        while session.state.running and not session.state.took:
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - started
        while session.state.running:  # until the probability map has arrived
            await asyncio.sleep(0.01)
        return f"{seconds:.1f} s for {', '.join(row[0] for row in session.state.rows)}"

    await session.open("tiled_200")
    print(f"from the first click on Apply to the mask: {await took()}; from the second: {await took()}")
    await session.open("chest_111")
    session.state.target = "Nodule"
    session.choice.target_changed()  # without a page, nothing else reports the change
    middle = marked[np.abs(marked - np.median(marked, axis=0)).sum(axis=1).argmin()]
    point = (scans.load("chest_111").ijk_to_ras @ [*middle[::-1], 1])[:3].tolist()
    print(
        f"from the first click on a nodule to the mask: {await took([point])}; from the second: {await took([point])}"
    )
    await session.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 200), metavar=("I", "J", "K"))
    parser.add_argument(
        "--view", type=int, nargs=2, default=(560, 430), metavar=("X", "Y"), help="size of a view in pixels"
    )
    given = parser.parse_args()

    from UNetPlusPlusSegmentLib.app.views import Views, render_without_a_screen

    render_without_a_screen()
    from trame.app import get_server
    from trame_rca.encoders import RcaImageEncoder

    from UNetPlusPlusSegmentLib import files
    from UNetPlusPlusSegmentLib.core.segment import Segment
    from UNetPlusPlusSegmentLib.core.volume import Volume
    from UNetPlusPlusSegmentLib.scene import showing
    from UNetPlusPlusSegmentLib.scene.snapshots import snapshot

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server = get_server("benchmark", client_type="vue3")
    views = Views(server)
    shape = given.size[::-1]
    k, j, i = (
        np.linspace(-1, 1, n).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape)
    )
    liver = ((k / 0.6) ** 2 + ((j + 0.2) / 0.35) ** 2 + ((i + 0.3) / 0.4) ** 2 < 1).astype(np.uint8)
    hu = np.random.default_rng(0).normal(0, 20, shape).astype(np.int16) + 100 * liver.astype(np.int16)
    volume = Volume(hu, np.diag([-0.75, -0.75, 1.5, 1.0]))
    print(f"show: {seconds(lambda: views.show(volume, 'CT')):.2f} s")
    node, found = views.volume, Segment(1, "Liver", "", (221, 130, 101), {})
    segmentation = showing.show_segmentation(liver, [found], node)
    windows = {view: view.render_window() for view in views.slices}
    for view in views.slices:
        view.update_size(*given.view)
        view.interactor().InvokeEvent("WindowResizeEvent")
    views.app.display_manager.reset_views()

    from trame_slicer.rca_view.rca_view_factory import RcaWindow

    for view, window in windows.items():
        grab = RcaWindow(window, server.state, "cursor")
        low, high = view.get_slice_range()
        places = np.linspace(low, high, 60)

        def scroll(view=view, grab=grab, places=places) -> None:  # noqa: ANN001
            for place in places:
                view.set_slice_value(float(place))
                image, columns, rows = grab.img_cols_rows
                RcaImageEncoder.JPEG.encode(image, columns, rows, 50)

        worked = time.process_time()
        frames_per_s = len(places) / seconds(scroll)
        worked_ms = 1000 * (time.process_time() - worked) / len(places)
        print(f"scrolling {view.name}: {frames_per_s:.0f} frames per second, {worked_ms:.0f} ms of processor time each")
    print(f"surface: {seconds(segmentation.CreateClosedSurfaceRepresentation):.2f} s")
    print(f"snapshot: {seconds(lambda: snapshot(segmentation, node)):.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        taken = snapshot(segmentation, node)
        path = Path(folder) / "a.seg.nrrd"
        write = seconds(lambda: files.write_segmentation(path, taken.labelmap, taken.ijk_to_ras, taken.segments))
    print(f"saved: {write:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        loop.run_until_complete(clicks(server, views, Path(folder)))


if __name__ == "__main__":
    main()
