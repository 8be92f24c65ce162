"""The page: a panel on the left and four views on the right, built from Vuetify widgets; `session` does the work."""

from __future__ import annotations

from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets import vuetify3 as v
from trame_slicer.app.ui import SegmentEditorUI
from trame_slicer.app.ui.segmentation import segment_editor_ui as effects
from trame_slicer.app.ui.segmentation.segment_display_ui import SegmentDisplayUI

from .corrections import FORMATS
from .session import Session
from .views import WINDOWS

TITLE = "UNet++ Segment"
NO_DEVICE = (
    "Not a medical device: do not use it, or its results, for diagnosis or treatment. The models are for research only;"
    " see MODELS_LICENSE.md."
)
NAMES = {"seg.nrrd": ".seg.nrrd", "nifti": "NIfTI", "dicom": "DICOM SEG", "stl": "STL"}
STYLE = """
html { overflow: hidden } .panel { font-size: 14px } .panel .v-btn { text-transform: none }
.panel td, .panel th { padding: 0 6px !important; height: 26px !important } .panel tr { cursor: pointer }
.panel .v-label { font-size: 14px; white-space: nowrap } #results, .panel .v-list { max-height: 220px; overflow-y: auto }
"""
# Files are uploaded with POST, as a web socket would hold them in memory.
UPLOAD = """
window.unetppUpload = async (event, state) => {
  const form = new FormData();
  for (const file of event.target.files) form.append('file', file);
  event.target.value = '';
  state.set('wrong', false); state.set('message', 'Uploading …');
  const answer = await fetch('upload', { method: 'POST', body: form });
  if (!answer.ok) { state.set('wrong', true); state.set('message', await answer.text()); }
};
"""


class Page(VAppLayout):
    """The page of one session."""

    def __init__(self, session: Session) -> None:
        """Build the page; it is served under the name `main`."""
        super().__init__(session.server)
        self._session = session
        self.state.trame__title = TITLE
        self.state.trame__favicon = None
        self.root.theme = "dark"
        with self:
            client.Style(STYLE)
            client.Script(UPLOAD)
            with v.VNavigationDrawer(permanent=True, width=380, classes="panel"):
                with html.Div(classes="pa-3"):
                    self._case()
                    self._review()
                    self._run()
                    self._results()
                    self._downloads()
                with html.Div(v_show="loaded", classes="px-3", id="corrections"):
                    self.editor = _Corrections()
                with v.Template(v_slot_append=True), html.Div(classes="px-3 py-1 text-caption text-medium-emphasis"):
                    html.Div(NO_DEVICE, id="no-device")
            with v.VMain(style="height: 100vh"):
                session.views.layout.initialize_layout_grid(self)
        session.editor.set_ui(self.editor)

    def _case(self) -> None:
        v.VSelect(v_model=("case_name",), items=("cases",), label="Case", id="case", **SMALL)
        with html.Div(classes="d-flex align-center my-2"):
            v.VBtn(
                "Upload …",
                size="small",
                click="window.document.getElementById('files').click()",
                prepend_icon="mdi-upload",
            )
            html.Input(
                ref="files", type="file", multiple=True, id="files", change="window.unetppUpload($event, trame.state)",
                style="display: none",
            )  # fmt: skip
            with v.VBtnToggle(
                v_model=("window_name",), mandatory=True, density="compact", classes="ml-auto", id="window"
            ):
                for name in WINDOWS:
                    v.VBtn(name, value=name, size="small")
        v.VAlert(
            "{{ message }}",
            v_if="message",
            type=("wrong ? 'error' : 'info'",),
            density="compact",
            classes="mb-3",
            id="message",
        )

    def _review(self) -> None:
        session = self._session
        with html.Div(v_if="in_cohort", classes="my-2", id="review"):
            with html.Div(classes="d-flex align-center"):
                v.VBtn(icon="mdi-chevron-left", size="small", click=(session.step, "[-1]"), id="previous")
                html.Span("{{ position }}", classes="mx-2", id="position")
                v.VBtn(icon="mdi-chevron-right", size="small", click=(session.step, "[1]"), id="next")
                for verdict, color in (("accepted", "success"), ("flagged", "warning")):
                    v.VBtn(
                        {"accepted": "Accept", "flagged": "Flag"}[verdict], size="small", classes="ml-2", id=verdict,
                        color=(f"verdict === '{verdict}' ? '{color}' : undefined",),
                        click=(session.judge, f"[verdict === '{verdict}' ? '' : '{verdict}']"),  # pressed again, it is withdrawn
                    )  # fmt: skip
            v.VTextField(
                v_model=("comment",), label="Comment", id="comment", change=(session.judge, "[verdict]"), **SMALL
            )
            v.VTextField(v_model=("reviewer",), label="Reviewer", id="reviewer", **SMALL)

    def _run(self) -> None:
        session = self._session
        with html.Div(classes="d-flex", style="gap: 8px"):
            v.VSelect(v_model=("target",), items=("targets",), label="Target", id="target", **SMALL)
            v.VSelect(v_model=("model",), items=("models",), label="Model", id="model", **SMALL)
        with html.Div(classes="d-flex mt-2", style="gap: 8px"):
            v.VSelect(v_model=("speed",), items=("speeds",), label="Speed", id="speed", **SMALL)
            v.VSelect(v_model=("device",), items=("devices",), label="Device", id="device", **SMALL)
        with html.Div(id="threshold"):
            v.VSlider(
                v_model=("threshold",), min=0.01, max=0.99, step=0.01, label="Threshold", thumb_label=True, **SMALL
            )  # fmt: skip
        with html.Div(v_if="decides", id="show-from"):
            v.VSlider(
                v_model=("show_from",), min=0, max=1, step=0.01, label="Show from", thumb_label=True, **SMALL
            )  # fmt: skip
        with html.Div(classes="d-flex align-center", style="gap: 8px"):
            v.VBtn("Apply", v_if="!running", disabled=("!loaded",), color="primary", click=session.apply, id="apply")
            v.VBtn("Cancel", v_if="running", click=session.runs.cancel, id="cancel")
            v.VSwitch(
                v_model=("picking",), v_if="nodules", label="Click nodules", id="picking", color="primary",
                **SMALL,
            )  # fmt: skip
            v.VSwitch(v_model=("overlay",), label="Probability", id="overlay", color="primary", **SMALL)
        with html.Div(v_if="running", classes="my-1", id="progress"):
            v.VProgressLinear(model_value=("progress",), color="primary", height=6)
            html.Span("{{ progress_text }}", classes="text-caption")

    def _results(self) -> None:
        with v.VTable(v_if="rows.length", density="compact", id="results"):
            with html.Thead(), html.Tr():
                html.Th("{{ title }}", v_for="title in header", key="title", click=(self._session.sort_by, "[title]"))
            with (
                html.Tbody(),
                html.Tr(v_for="(row, index) in rows", key="index", click=(self._session.look_at, "[index]")),
            ):
                html.Td("{{ text }}", v_for="(text, column) in row", key="column")

    def _downloads(self) -> None:
        with html.Div(v_if="loaded", classes="my-2"):
            for kind in FORMATS:
                with_series = {"v_if": "dicom"} if kind == "dicom" else {}
                # Without `download` the browser would close the web socket, as if another page were opened.
                at = {"href": f"download/{kind}", "download": True, "id": f"download-{kind}", "classes": "mr-3"}
                html.A(NAMES[kind], **at, **with_series)
            html.Div("{{ took }}", classes="text-caption", id="took")
            style = "saved.startsWith('Not saved') ? 'text-error' : 'text-caption'"
            html.Div("{{ saved }}", classes=(style,), id="saved")
            v.VBtn("Open again", v_if="stale", size="small", click=self._session.open_again, id="again")


class _Corrections(SegmentEditorUI):
    """The segment editor of trame-slicer in a compact layout, with its own buttons for tools, undo and segments."""

    def _build_ui(self) -> None:
        name = self._typed_state.name
        with self:
            self.edit_ui._build_color_dialog()
            self._create_segment_list()
            with html.Div(classes="d-flex flex-wrap", id="tools"):
                self.build_effect_buttons()
                self.build_undo_redo_buttons()
                v.VBtn(
                    "Add segment", size="small", variant="text", click=self.add_segment_clicked, prepend_icon="mdi-plus"
                )
            for effect, ui in EFFECTS.items():
                self._register_effect_ui(getattr(effects, f"SegmentationEffect{effect}"), ui)
            SegmentDisplayUI(typed_state=self.sub_state(name.segment_display), variant="flat")


EFFECTS = {
    "Paint": effects.PaintEffectUI,
    "Erase": effects.PaintEffectUI,
    "Draw": effects.DrawEffectUI,
    "Scissors": effects.ScissorsEffectUI,
    "Threshold": effects.ThresholdEffectUI,
    "LogicalOperators": effects.LogicalOperatorsEffectUI,
    "Islands": effects.IslandsEffectUI,
    "Smoothing": effects.SmoothingEffectUI,
}
SMALL = {"density": "compact", "hide_details": True, "variant": "outlined"}
