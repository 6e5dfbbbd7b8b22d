"""A web page on this computer to play with a trained model: `faceattr demo --checkpoint RUN`.

Its tabs follow from what the model can do (`methods.base.Method`): *Edit* has a slider for each attribute, and the mask
of a model that has one; *Exemplar* takes attributes over from another face; *Generate* draws faces of nobody. The
faces are those of photos that people drop, or drawn ones (`data.synthetic`). `serve` starts the page; what it shows is
made in `demo_pictures`.

A slider inverts one attribute of the face: 0 leaves it as it is, 1 is as strong as training showed the model, 2 twice
that. What the face has to begin with is read off it, and can be put right by hand, as has to be done for a model that
cannot read. An edit is shown in the whole photo, or close up, on a copy that is small enough to follow a slider, as a
JPEG. The photo itself, at its own size and without loss, is edited when it is asked for; the model's own picture of
the face, whose reconstruction is coarse, can be had beside it.

The page listens on 127.0.0.1 unless told otherwise and asks no other computer for anything, fonts included. Photos lie
in a temporary folder for minutes and are gone when the server stops. In memory a photo stays as `demo_pictures` says,
for an hour after it was chosen, and for as long as no more than SESSIONS pages were opened since. One photo at a time
is at its full size there.
"""

import base64
import dataclasses
import functools
import html
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from faceattr_jax import demo_pictures as pictures
from faceattr_jax import grids
from faceattr_jax.demo_pictures import Chosen, Edit
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError

MAX_BYTES = 20 * 2**20
"""Larger files are refused by the server before they are read."""

STRONGEST = 2.0
"""Right end of the sliders, in strengths of an edit (`methods.base.EditRequest`)."""

KEPT_SECONDS = 600
"""Files of the page are deleted at this age, and all of them at the end."""

REMEMBERED_SECONDS = 3600
"""So long after it was chosen a picture is forgotten."""

SESSIONS = 20
"""Of how many pages, the last to be used, the pictures are remembered."""

WHOLE, NEAR = "Whole photo", "Face"
"""Ways to look at an edited photo."""

SAVE = "file => { const a = document.createElement('a'); a.href = file.url; a.download = file.orig_name; a.click() }"
"""Has the browser download a file of the page."""

NOTICE = (
    "Use pictures only of people who agreed to it. The results are made up: they show what a model learned from a data "
    "set, its biases included, and say nothing about the person. They may not be passed off as photographs. "
    "Pictures stay on this computer and are deleted when the page's server stops, if not before."
)

CSS = """
footer { display: none !important }
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; overflow: clip !important }
.masthead h1 { font-size: 1.9rem; font-weight: 700; line-height: 1.2; margin: 0 0 .2rem }
.masthead p, .hint p { color: var(--neutral-600) }
.dark .masthead p { color: var(--neutral-300) }
.dark .hint p { color: var(--neutral-300) }
.masthead .notice { font-size: .875rem; border-left: 3px solid var(--color-accent); padding-left: .7rem;
  margin-top: .7rem; max-width: 75rem }
.masthead .model { overflow-wrap: anywhere }
.side { gap: .6rem !important }
.side h3 { font-weight: 700; margin: 0 }
.hint p { font-size: .875rem; margin: 0 }
.thumbnails, .faces, .thumbnails .grid-wrap, .faces .grid-wrap { height: auto !important; min-height: 0 !important }
.thumbnails .grid-wrap { overflow: visible !important; padding: 0 }
.thumbnails .grid-container, .faces .grid-container { grid-auto-rows: auto !important; gap: .4rem !important;
  grid-template: none / repeat(4, minmax(0, 1fr)) !important }
.photo { border: 1px dashed var(--color-accent) !important }
.picture { position: sticky; top: .5rem; align-self: flex-start; z-index: 50; background: var(--body-background-fill) }
.sliders { gap: .6rem !important }
.sliders .label-wrap > span:first-child { font-weight: 700 }
.sliders .block:has(input[type=range]) { padding: .3rem .6rem !important }
.html-container:has(.download), .html-container:has(h1) { padding: 0 !important }
.download { display: block; text-align: center; text-decoration: none !important; font-weight: 600;
  padding: .6rem 1rem; border-radius: var(--button-large-radius); color: #fff !important; background: #0f766e }
.download:hover { background: #115e59 }
.download.beside { padding: 0; background: none; font-weight: 400; font-size: .875rem; color: #0f766e !important }
.dark .download.beside { color: #5eead4 !important }
@media (max-width: 767px) {
  .masthead h1 { font-size: 1.5rem }
  .thumbnails .grid-container { grid-template-columns: repeat(8, minmax(0, 1fr)) !important }
  .picture { top: 0; gap: .4rem !important; padding-bottom: .4rem }
  .wipe img { max-height: 38vh !important }
}
"""


def page(editor: Editor) -> Any:
    """The page for a model, a `gradio.Blocks` that is not served yet; `UserError` where it could show nothing."""
    can = editor.method.capabilities
    tabs: dict[str, Callable[..., None]] = {"edit": _edit_tab, "swap": _exemplar_tab, "generate": _generate_tab}
    if not can & tabs.keys():
        raise UserError(
            f"{editor.path or editor.config.method}: this {editor.config.method} model makes no pictures to play with; "
            f"it can {', '.join(sorted(can))}."
        )
    gr = _gradio()
    with gr.Blocks(title="faceattr", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as blocks:
        count = len(editor.attributes)
        model = f"{editor.config.method}, {editor.size} × {editor.size} pixels, {count} attribute{'s' * (count > 1)}"
        gr.HTML(
            f'<h1>Edit a face</h1><p class="model">{html.escape(model)} · {html.escape(str(editor.path or ""))}</p>'
            f'<p class="notice">{NOTICE}</p>',
            elem_classes="masthead",
        )
        with gr.Row():
            choice = None
            if can & {"edit", "swap"}:
                with gr.Column(scale=2, min_width=260, elem_classes="side"):
                    choice = _chooser(gr, editor, blocks, "Choose a face", 0)
            with gr.Column(scale=7, min_width=300), gr.Tabs():
                for name, tab in tabs.items():
                    if name in can:
                        tab(gr, editor, blocks, choice)
    return blocks


def serve(editor: Editor, host: str, port: int) -> None:
    """Serve the page until it is interrupted (Ctrl-C) or terminated; `UserError` where the address cannot be had."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that the folder goes then, too
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="faceattr-") as folder:
        blocks = started(editor, host, port, folder)
        print(f"http://{host}:{port}  (Ctrl-C stops it)", flush=True)
        try:
            blocks.block_thread()
        finally:
            blocks.close(verbose=False)


def started(editor: Editor, host: str, port: int, folder: str) -> Any:
    """The `page`, served from a thread, with its files in `folder`; `UserError` where the address cannot be had."""
    os.environ["GRADIO_TEMP_DIR"] = folder  # which gradio reads when it is imported, too
    blocks, gr = page(editor), _gradio()
    try:
        blocks.launch(
            server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True, footer_links=[],
            run_history=False, ssr_mode=False, max_file_size=MAX_BYTES, css=CSS, theme=_theme(gr),
            state_session_capacity=SESSIONS,
        )  # fmt: skip
    except (OSError, OverflowError) as error:
        raise UserError(f"{host}:{port} cannot be served ({error}); give another --host or --port.") from None
    return blocks


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError:
        raise UserError(
            "the page needs the package gradio; install it with: pip install 'faceattr_jax[demo]'"
        ) from None
    return gradio


def _theme(gr: Any) -> Any:
    # Gradio serves this font itself; what it has of the weight 600 lacks most letters.
    font = gr.themes.utils.fonts.LocalFont("IBM Plex Sans", weights=(400, 700))
    theme = gr.themes.Soft(primary_hue="teal", neutral_hue="slate", font=[font, "system-ui", "sans-serif"])
    return theme.set(
        body_background_fill="*neutral_50",
        block_title_background_fill="none",
        block_title_padding="0",
        block_title_text_color="*body_text_color",
        block_title_text_weight="400",
        **{
            f"button_primary_background_fill{mode}": "*primary_700" for mode in ("", "_dark")
        },  # white can be read on it
        **{f"button_primary_background_fill_hover{mode}": "*primary_800" for mode in ("", "_dark")},
    )


def _told(gr: Any, call: Callable) -> Callable:
    """`call`, whose mistakes of people are shown as one sentence."""

    @functools.wraps(call)
    def wrapped(*values: Any) -> Any:
        try:
            return call(*values)
        except UserError as error:
            raise gr.Error(str(error), title="That does not work", print_exception=False) from None

    return wrapped


class _Choice:
    """A picture that is chosen on the page: where it is (`Chosen`), and what happens when another is."""

    def __init__(self, state: Any, events: Sequence[Any]):
        self.state, self.events = state, events

    def then(self, call: Callable, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for event in self.events:
            event.success(call, inputs, outputs, show_progress="hidden")


def _chooser(gr: Any, editor: Editor, blocks: Any, title: str, first: int) -> _Choice:
    """Controls to drop a photo or take a drawn face; to begin with it is the drawn one of that number."""
    state, number = gr.State(None, time_to_live=REMEMBERED_SECONDS), gr.State(0)
    thumbnails = {
        "columns": 4, "allow_preview": False, "object_fit": "cover", "container": False, "buttons": [],
        "interactive": False, "elem_classes": "thumbnails",
    }  # fmt: skip
    gr.Markdown(f"### {title}")
    photo = gr.File(show_label=False, file_types=["image"], type="filepath", height=130, elem_classes="photo")
    with gr.Column(visible=False, elem_classes="side") as several:
        gr.Markdown("The photo shows several faces. Which one?", elem_classes="hint")
        which = gr.Gallery(show_label=False, format="jpeg", **thumbnails)
    gr.Markdown("A photo, or one of these drawn people:", elem_classes="hint")
    drawn = gr.Gallery(pictures.drawn_faces(editor, 0), show_label=False, format="png", **thumbnails)
    others = gr.Button("Draw others", size="sm")

    def take(path: str) -> tuple[None, Chosen, Any, Any]:
        chosen, reason = pictures.dropped(editor, Path(path).read_bytes(), Path(path).stem)
        if reason:
            gr.Warning(f"{reason} The middle of the photo is taken.")
        faces = chosen.photo.near if chosen.photo else []
        # The place to drop is empty again.
        return None, chosen, gr.Column(visible=len(faces) > 1), gr.Gallery(faces, selected_index=0)

    def turn(chosen: Chosen | None, event: gr.SelectData) -> Chosen:
        return dataclasses.replace(_there(chosen), at=event.index)

    def pick(page: int, event: gr.SelectData) -> tuple[Chosen, Any]:
        return Chosen([pictures.drawn_faces(editor, page)[event.index]]), gr.Column(visible=False)

    def draw(page: int) -> tuple[int, Any]:
        return page + 1, gr.Gallery(pictures.drawn_faces(editor, page + 1), selected_index=None)

    others.click(draw, number, [number, drawn])
    events = [
        photo.upload(_told(gr, take), photo, [photo, state, several, which], concurrency_id="photos"),
        which.select(_told(gr, turn), state, state),
        drawn.select(pick, number, [state, several]),
        blocks.load(lambda: Chosen([pictures.drawn_faces(editor, 0)[first]]), None, state),
    ]
    return _Choice(state, events)


def _there(chosen: Chosen | None) -> Chosen:
    if chosen is None:
        raise UserError("there is no face here yet, or it was forgotten, as faces are after an hour; choose one.")
    return chosen


class _Result:
    """The wipe between before and after, and what can be downloaded.

    outputs: what `show` and `turn_to` return the values of.
    """

    def __init__(self, gr: Any):
        self.gr = gr
        self.view = gr.Radio([WHOLE, NEAR], value=WHOLE, show_label=False, container=False, visible=False)
        self.wipe = gr.ImageSlider(
            label="Before | after", format="jpeg", interactive=False, buttons=["fullscreen"], max_height=560,
            elem_classes="wipe",
        )  # fmt: skip
        self.photo = gr.Button(variant="primary", visible=False, elem_classes="whole")
        self.face = gr.HTML()
        self.file = gr.File(visible=False)
        self.outputs = [self.view, self.wipe, self.photo, self.face]

    def turn_to(self, chosen: Chosen, view: str, edit: Edit) -> list[Any]:
        """`show`, with the wipe where the face is seen as it is after the edit."""
        line = pictures.beside(chosen, whole=view == WHOLE)
        choice, compared, *rest = self.show(chosen, view, edit)
        return [choice, self.gr.ImageSlider(compared, slider_position=line), *rest]

    def show(self, chosen: Chosen, view: str, edit: Edit) -> list[Any]:
        width, height = chosen.photo.size if chosen.photo else (0, 0)
        face = pictures.eight_bit(edit[0])
        link = '<a class="download{}" download="{}.png" href="data:image/png;base64,{}">{} ({} × {} PNG)</a>'.format(
            " beside" if chosen.photo else "",
            html.escape(f"{chosen.name}.{'face' if chosen.photo else 'edited'}"),
            base64.b64encode(grids.png(face)).decode(),
            "The face alone, as the model draws it" if chosen.photo else "Download",
            *face.shape[1::-1],
        )
        return [
            self.gr.Radio(visible=chosen.photo is not None),
            pictures.compared(chosen, edit, whole=view == WHOLE),
            self.gr.Button(f"Download ({width} × {height} PNG)", visible=chosen.photo is not None),
            link,
        ]

    def follow(
        self, choice: _Choice, make: Callable[..., Edit], inputs: Sequence[Any], triggers: Sequence[Any]
    ) -> None:
        """Show what `make` makes of the chosen picture and the values of `inputs` at each trigger, and give it away."""

        def shown_by(show: Callable) -> Callable:
            def move(chosen: Chosen | None, view: str, *values: Any) -> list[Any]:
                return show(_there(chosen), view, make(_there(chosen), *values))

            return _told(self.gr, move)

        def save(maybe: Chosen | None, *values: Any) -> str:
            chosen = _there(maybe)
            # In gradio's own folder, where files get old and go.
            target = Path(tempfile.mkdtemp(dir=self.file.GRADIO_CACHE)) / f"{chosen.name}.edited.png"
            target.write_bytes(pictures.finished(chosen, make(chosen, *values)))
            return str(target)

        for events, show in ((triggers, self.show), ([self.view.input], self.turn_to)):
            self.gr.on(
                events, shown_by(show), [choice.state, self.view, *inputs], self.outputs, trigger_mode="always_last",
                show_progress="hidden",
            )  # fmt: skip
        self.photo.click(
            _told(self.gr, save),
            [choice.state, *inputs],
            self.file,
            concurrency_id="photos",
            show_progress="minimal",
            show_progress_on=self.wipe,
        ).success(None, self.file, None, js=SAVE)


def _edit_tab(gr: Any, editor: Editor, blocks: Any, choice: _Choice) -> None:
    names = [name for group in pictures.groups(editor.attributes).values() for name in group]
    masks = "mask" in editor.method.capabilities
    with gr.Tab("Edit"), gr.Row():
        with gr.Column(scale=4, min_width=280, elem_classes="picture"):
            result = _Result(gr)
        with gr.Column(scale=3, min_width=280, elem_classes="sliders"):
            sliders = []
            for title, members in pictures.groups(editor.attributes).items():
                with gr.Accordion(title):
                    sliders += [gr.Slider(0, STRONGEST, 0, step=0.05, label=_pretty(n), buttons=[]) for n in members]
            mask = gr.Image(
                label="Where the model edits", format="png", interactive=False, buttons=[], height=240, visible=masks,
                elem_classes="mask",
            )  # fmt: skip
            reset = gr.Button("Reset all sliders", size="sm")
            with gr.Accordion("What the face has now", open=False):
                own = gr.CheckboxGroup(
                    _choices(editor), show_label=False, container=False,
                    info="Put right here what the model has misread; each slider turns one of these around.",
                )  # fmt: skip

    def make(chosen: Chosen, own: Sequence[str], *strengths: float) -> Edit:
        return pictures.changed(editor, chosen.face, own, dict(zip(names, strengths, strict=True)))

    def begin(chosen: Chosen, view: str) -> list[Any]:
        own = pictures.owned(editor, chosen.face)
        picture = pictures.enlarged(pictures.masked(editor, chosen.face)) if masks else None
        return [picture, own, *restart(chosen, view, own)]

    def restart(maybe: Chosen | None, view: str, own: Sequence[str]) -> list[Any]:
        chosen = _there(maybe)
        fresh = [
            gr.Slider(
                value=0,
                label=f"{_pretty(name)}: {'yes → no' if name in own else 'no → yes'}",
                interactive=pictures.inverts(editor, own, name),
            )
            for name in names
        ]
        return [*fresh, *result.turn_to(chosen, view, make(chosen, own, *[0.0] * len(names)))]

    choice.then(begin, [choice.state, result.view], [mask, own, *sliders, *result.outputs])
    gr.on(
        [own.input, reset.click], _told(gr, restart), [choice.state, result.view, own], [*sliders, *result.outputs],
        show_progress="hidden",
    )  # fmt: skip
    result.follow(choice, make, [own, *sliders], [slider.input for slider in sliders])


def _exemplar_tab(gr: Any, editor: Editor, blocks: Any, choice: _Choice) -> None:
    with gr.Tab("Exemplar"), gr.Row():
        with gr.Column(scale=4, min_width=280, elem_classes="picture"):
            result = _Result(gr)
        with gr.Column(scale=3, min_width=280):
            which = gr.CheckboxGroup(_choices(editor), value=list(editor.attributes[:1]), label="Take over")
            step = gr.Slider(0, 1, 1, step=0.05, label="How far", buttons=[])
            seen = gr.Image(label="From this face", format="png", interactive=False, buttons=[], height=180)
            reference = _chooser(gr, editor, blocks, "Take over from another face", 1)

    def make(chosen: Chosen, other: Chosen | None, names: Sequence[str], step: float) -> Edit:
        return pictures.swapped(editor, chosen.face, _there(other).face, names, step)

    def begin(chosen: Chosen | None, view: str, other: Chosen | None, names: Sequence[str], step: float) -> list[Any]:
        if chosen is None or other is None:  # the page has only half begun
            return [gr.skip()] * len(result.outputs)
        return result.turn_to(chosen, view, make(chosen, other, names, step))

    inputs = [reference.state, which, step]
    reference.then(lambda chosen: pictures.enlarged(chosen.face), [reference.state], [seen])
    for face in (choice, reference):
        face.then(_told(gr, begin), [choice.state, result.view, *inputs], result.outputs)
    result.follow(choice, make, inputs, [which.input, step.input])


def _generate_tab(gr: Any, editor: Editor, blocks: Any, choice: _Choice | None) -> None:
    usual = [name for name in ("No_Beard", "Smiling", "Young") if name in editor.attributes]
    with gr.Tab("Generate"), gr.Row():
        with gr.Column(scale=4, min_width=280):
            faces = gr.Gallery(show_label=False, columns=4, format="png", object_fit="contain", elem_classes="faces")
        with gr.Column(scale=3, min_width=280):
            which = gr.CheckboxGroup(
                _choices(editor),
                value=usual,
                label="Attributes of the new faces",
                info="They have these and lack the others. Nobody looks like that.",
            )
            count = gr.Slider(1, 16, 8, step=1, label="How many", buttons=[])
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
            draw = gr.Button("Draw faces", variant="primary")

    def make(names: Sequence[str], count: int, seed: int | None) -> list[Image.Image]:
        return [pictures.enlarged(face, 256) for face in pictures.generated(editor, names, int(count), int(seed or 0))]

    draw.click(_told(gr, make), [which, count, seed], faces)
    blocks.load(make, [which, count, seed], faces)


def _choices(editor: Editor) -> list[tuple[str, str]]:
    return [(_pretty(name), name) for name in editor.attributes]


def _pretty(name: str) -> str:
    return name.replace("_", " ").capitalize()
