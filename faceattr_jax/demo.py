"""A web page on this computer to play with a trained model: `faceattr demo --checkpoint RUN`.

Its tabs follow from what the model can do (`methods.base.Method`): *Edit* has a slider for each attribute, and the mask
of a model that has one; *Exemplar* takes attributes over from another face; *Generate* draws faces of nobody. The
faces are photos that people drop, or drawn ones (`data.synthetic`). `serve` starts the page.

A slider inverts one attribute of the face: 0 leaves it as it is, 1 is as strong as training showed the model, 2 twice
that. What the face has to begin with is read off it, and can be put right by hand, as has to be done for a model that
cannot read. The right-hand picture is the model's output, which is a reconstruction where every slider is at 0.

The page listens on 127.0.0.1 unless told otherwise and asks no other computer for anything, fonts included. Photos lie
in a temporary folder for minutes and are gone when the server stops; nothing but the cut-out face stays in memory, and
that for an hour after its last use at most.

The first half of this module needs no gradio: pictures and numbers in, pictures out. Pictures are uint8 RGB, faces
(S, S, 3) at the model's size.
"""

import base64
import contextlib
import functools
import html
import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from faceattr_jax import photos
from faceattr_jax.attributes import CONFLICTS, parse
from faceattr_jax.data import crops
from faceattr_jax.data.images import read_image, to_uint8
from faceattr_jax.data.synthetic import PER_PERSON, SIZES, SyntheticSource
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.pretrained.detector import yunet

MAX_BYTES = 20 * 2**20
"""Larger files are refused by the server before they are read."""

MAX_PIXELS = 50_000_000
"""Larger photos are refused before they are decoded."""

STRONGEST = 2.0
"""Right end of the sliders, in strengths of an edit (`methods.base.EditRequest`)."""

DRAWN = 8
"""Drawn faces to choose from at a time."""

KEPT_SECONDS = 600
"""Files of the page are deleted at this age, and all of them at the end."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Hair": (
        "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Receding_Hairline", "Straight_Hair",
        "Wavy_Hair",
    ),
    "Beard": ("5_o_Clock_Shadow", "Goatee", "Mustache", "No_Beard", "Sideburns"),
    "Eyes, nose and mouth": (
        "Arched_Eyebrows", "Bags_Under_Eyes", "Big_Lips", "Big_Nose", "Bushy_Eyebrows", "Mouth_Slightly_Open",
        "Narrow_Eyes", "Pointy_Nose", "Smiling",
    ),
    "Skin and shape": ("Chubby", "Double_Chin", "High_Cheekbones", "Oval_Face", "Pale_Skin", "Rosy_Cheeks"),
    "Worn": (
        "Eyeglasses", "Heavy_Makeup", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace",
        "Wearing_Necktie",
    ),
}  # fmt: skip
"""Attributes that lie together on the page; all others come last."""


# --- pictures ---------------------------------------------------------------------------------------------------


def read_photo(data: bytes) -> Image.Image:
    """The photo in a file, upright and in RGB; `UserError` where it is none, or has more than MAX_PIXELS."""
    pixels = 0
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as image:  # `read_image` says what is wrong
        pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise UserError(f"the photo has {pixels:,} pixels; this page takes up to {MAX_PIXELS:,}, so scale it down.")
    return read_image(io.BytesIO(data), "the photo")


def face_in(editor: Editor, photo: Image.Image) -> tuple[np.ndarray, str]:
    """The largest face that is seen in a photo, cut as the model was trained; and "".

    Where none is seen, or the extra that looks for faces is not there: the largest centred square; and why.
    """
    try:
        return photos.face_in(editor, photo, "the photo", _detector), ""
    except UserError as error:
        return crops.crop(photo, "center", editor.size), f"{str(error).rstrip('.')}."


_detector = functools.cache(yunet)


def drawn_faces(editor: Editor, page: int) -> list[np.ndarray]:
    """DRAWN faces of as many drawn people; every page from 0 on has others."""
    size = min(max(editor.size, SIZES[0]), SIZES[1])
    people = np.arange(page * DRAWN, (page + 1) * DRAWN) % (len(_drawer(size).table) // PER_PERSON)
    return [
        crops.crop(Image.fromarray(image), "center", editor.size) for image in _drawer(size).images(people * PER_PERSON)
    ]


@lru_cache
def _drawer(size: int) -> SyntheticSource:
    return SyntheticSource(4096, size=size)


def owned(editor: Editor, face: np.ndarray) -> list[str]:
    """The attributes that a face has, as far as the model can tell."""
    if "classify" in editor.method.capabilities:
        read = np.asarray(editor.classify(face)) > 0.5
        return [name for name, has in zip(editor.attributes, read, strict=True) if has]
    # One that edits in one direction only is made for faces that lie at the other end.
    return [name for name, value in editor.method.towards.items() if not value]


def inverts(editor: Editor, own: Collection[str], name: str) -> bool:
    """Whether the model can invert that attribute of a face that has `own`."""
    value = int(name not in own)
    return editor.method.towards.get(name, value) == value


def changed(editor: Editor, face: np.ndarray, own: Collection[str], strengths: Mapping[str, float]) -> np.ndarray:
    """The face with each attribute of `strengths` inverted so strongly, if above 0.

    own: the attributes that it has. What an added attribute rules out goes as strongly as that one comes. Raises
    `UserError` for two added attributes that exclude each other.
    """
    edits = {name: int(name not in own) for name, strength in strengths.items() if strength > 0}
    if edits:
        parse(",".join(f"{name}={value}" for name, value in edits.items()), editor.attributes)

    def strength(name: str) -> float:
        causes = [name] if name in edits else [by for by in edits if edits[by] and name in CONFLICTS.get(by, ())]
        return max((strengths[by] for by in causes), default=1.0)

    source = np.isin(editor.attributes, list(own))
    each = np.array([strength(name) for name in editor.attributes])
    return _eight_bit(editor.edit(face, edits, strength=each, source=source))


def masked(editor: Editor, face: np.ndarray) -> np.ndarray:
    """The face, tinted where the model would change it."""
    tint = 0.6 * np.asarray(editor.mask(face))
    return np.rint((1 - tint) * face + tint * np.array([255, 0, 90])).astype(np.uint8)


def swapped(editor: Editor, face: np.ndarray, reference: np.ndarray, names: Sequence[str], step: float) -> np.ndarray:
    """The face with the named attributes on the way, from 0 to 1, to how the reference wears them."""
    if not names:
        raise UserError("choose at least one attribute to take over.")
    return _eight_bit(editor.linear(face, reference, names, [step])[0])


def generated(editor: Editor, names: Sequence[str], count: int, seed: int) -> list[np.ndarray]:
    """`count` new faces that have the named attributes and no others."""
    if names:
        parse(",".join(f"{name}=1" for name in names), editor.attributes)
    labels = np.tile(np.isin(editor.attributes, list(names)), (count, 1))
    return list(_eight_bit(editor.generate(labels, seed=seed)))


def enlarged(picture: np.ndarray, side: int = 512) -> Image.Image:
    """A picture to look at: one with shorter sides than `side` is magnified to it."""
    image = Image.fromarray(picture)
    scale = max(1.0, side / max(image.size))
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def groups(attributes: Sequence[str]) -> dict[str, list[str]]:
    """The attributes under the headings of GROUPS, those that no heading has under a last one; none is empty."""
    found = {title: [name for name in attributes if name in names] for title, names in GROUPS.items()}
    placed = {name for names in found.values() for name in names}
    found["The whole face" if placed else "Attributes"] = [name for name in attributes if name not in placed]
    return {title: names for title, names in found.items() if names}


def _eight_bit(images: Any) -> np.ndarray:
    return np.asarray(to_uint8(images))


# --- the page ---------------------------------------------------------------------------------------------------

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
.dark .masthead p, .dark .hint p { color: var(--neutral-300) }
.masthead .notice { font-size: .875rem; border-left: 3px solid var(--color-accent); padding-left: .7rem;
  margin-top: .7rem; max-width: 75rem }
.masthead .model { overflow-wrap: anywhere }
.side { gap: .6rem !important }
.side h3 { font-weight: 700; margin: 0 }
.hint p { font-size: .875rem; margin: 0 }
.drawn, .drawn .grid-wrap { height: auto !important; min-height: 0 !important }
.drawn .grid-wrap { overflow: visible !important; padding: 0 }
.drawn .grid-container, .faces .grid-container { grid-auto-rows: auto !important; gap: .4rem !important;
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
@media (max-width: 767px) {
  .masthead h1 { font-size: 1.5rem }
  .drawn .grid-container { grid-template-columns: repeat(8, minmax(0, 1fr)) !important }
  .picture { top: 0; gap: .4rem !important; padding-bottom: .4rem }
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
            chosen = None
            if can & {"edit", "swap"}:
                with gr.Column(scale=2, min_width=260, elem_classes="side"):
                    chosen = _chooser(gr, editor, blocks, "Choose a face", 0)
            with gr.Column(scale=7, min_width=300), gr.Tabs():
                for name, tab in tabs.items():
                    if name in can:
                        tab(gr, editor, blocks, chosen)
    return blocks


def serve(editor: Editor, host: str, port: int) -> None:
    """Serve the page until it is interrupted (Ctrl-C) or terminated; `UserError` where the address cannot be had."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that the folder goes then, too
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="faceattr-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # which gradio reads when it is imported, too
        blocks, gr = page(editor), _gradio()
        try:
            blocks.launch(
                server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True, footer_links=[],
                run_history=False, ssr_mode=False, max_file_size=MAX_BYTES, css=CSS, theme=_theme(gr),
            )  # fmt: skip
        except (OSError, OverflowError) as error:
            raise UserError(f"{host}:{port} cannot be served ({error}); give another --host or --port.") from None
        print(f"http://{host}:{port}  (Ctrl-C stops it)", flush=True)
        try:
            blocks.block_thread()
        finally:
            blocks.close(verbose=False)


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


class _Chosen:
    """A face that is chosen on the page: where it is, and what happens when another is."""

    def __init__(self, state: Any, events: Sequence[Any]):
        self.state, self.events = state, events

    def then(self, call: Callable, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for event in self.events:
            event.success(call, inputs, outputs, show_progress="hidden")


def _chooser(gr: Any, editor: Editor, blocks: Any, title: str, first: int) -> _Chosen:
    """Controls to drop a photo or take a drawn face; to begin with it is the drawn one of that number."""
    state, number = gr.State(None, time_to_live=3600), gr.State(0)
    gr.Markdown(f"### {title}")
    photo = gr.File(show_label=False, file_types=["image"], type="binary", height=130, elem_classes="photo")
    gr.Markdown("A photo, of which the largest face is taken, or one of these drawn people:", elem_classes="hint")
    drawn = gr.Gallery(
        drawn_faces(editor, 0), show_label=False, columns=4, allow_preview=False, object_fit="cover", container=False,
        format="png", buttons=[], interactive=False, elem_classes="drawn",
    )  # fmt: skip
    others = gr.Button("Draw others", size="sm")

    def take(data: bytes) -> tuple[None, np.ndarray]:
        face, reason = face_in(editor, read_photo(data))
        if reason:
            gr.Warning(f"{reason} The middle of the photo is taken.")
        return None, face  # the place to drop is empty again

    def pick(page: int, event: gr.SelectData) -> np.ndarray:
        return drawn_faces(editor, page)[event.index]

    def draw(page: int) -> tuple[int, Any]:
        return page + 1, gr.Gallery(drawn_faces(editor, page + 1), selected_index=None)

    others.click(draw, number, [number, drawn])
    events = [
        # One at a time, on the whole page: there is one detector.
        photo.upload(_told(gr, take), photo, [photo, state], concurrency_id="faces"),
        drawn.select(pick, number, state),
        blocks.load(lambda: drawn_faces(editor, 0)[first], None, state),
    ]
    return _Chosen(state, events)


def _result(gr: Any) -> list[Any]:
    """The wipe between before and after, and the link under it; `_show` makes their values."""
    wipe = gr.ImageSlider(
        label="Before | after", format="png", interactive=False, buttons=["fullscreen"], max_height=560,
        elem_classes="wipe",
    )  # fmt: skip
    return [wipe, gr.HTML()]


def _show(face: np.ndarray, after: np.ndarray) -> list[Any]:
    file = io.BytesIO()
    Image.fromarray(after).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    height, width = after.shape[:2]
    link = (
        f'<a class="download" download="face.edited.png" href="data:image/png;base64,{data}">'
        f"Download ({width} × {height} PNG)</a>"
    )
    return [(enlarged(face), enlarged(after)), link]


def _edit_tab(gr: Any, editor: Editor, blocks: Any, chosen: _Chosen) -> None:
    names = [name for group in groups(editor.attributes).values() for name in group]
    masks = "mask" in editor.method.capabilities
    with gr.Tab("Edit"), gr.Row():
        with gr.Column(scale=4, min_width=280, elem_classes="picture"):
            result = _result(gr)
        with gr.Column(scale=3, min_width=280, elem_classes="sliders"):
            sliders = []
            for title, members in groups(editor.attributes).items():
                with gr.Accordion(title):
                    sliders += [gr.Slider(0, STRONGEST, 0, step=0.05, label=_pretty(n), buttons=[]) for n in members]
            mask = gr.Image(
                label="Where the model edits", format="png", interactive=False, buttons=[], height=240, visible=masks
            )
            reset = gr.Button("Reset all sliders", size="sm")
            with gr.Accordion("What the face has now", open=False):
                own = gr.CheckboxGroup(
                    _choices(editor), show_label=False, container=False,
                    info="Put right here what the model has misread; each slider turns one of these around.",
                )  # fmt: skip

    def begin(face: np.ndarray) -> list[Any]:
        own = owned(editor, face)
        picture = enlarged(masked(editor, face)) if masks else None
        return [picture, own, *restart(face, own)]

    def restart(face: np.ndarray | None, own: Sequence[str]) -> list[Any]:
        fresh = [
            gr.Slider(
                value=0,
                label=f"{_pretty(name)}: {'yes → no' if name in own else 'no → yes'}",
                interactive=inverts(editor, own, name),
            )
            for name in names
        ]
        return [*fresh, *move(face, own, *[0.0] * len(names))]

    def move(face: np.ndarray | None, own: Sequence[str], *strengths: float) -> list[Any]:
        if face is None:  # the page has only half begun
            return [None, ""]
        return _show(face, changed(editor, face, own, dict(zip(names, strengths, strict=True))))

    chosen.then(begin, [chosen.state], [mask, own, *sliders, *result])
    own.input(restart, [chosen.state, own], [*sliders, *result], show_progress="hidden")
    reset.click(restart, [chosen.state, own], [*sliders, *result], show_progress="hidden")
    gr.on(
        [slider.input for slider in sliders], _told(gr, move), [chosen.state, own, *sliders], result,
        trigger_mode="always_last", show_progress="hidden",
    )  # fmt: skip


def _exemplar_tab(gr: Any, editor: Editor, blocks: Any, chosen: _Chosen) -> None:
    with gr.Tab("Exemplar"), gr.Row():
        with gr.Column(scale=4, min_width=280, elem_classes="picture"):
            result = _result(gr)
        with gr.Column(scale=3, min_width=280):
            which = gr.CheckboxGroup(_choices(editor), value=list(editor.attributes[:1]), label="Take over")
            step = gr.Slider(0, 1, 1, step=0.05, label="How far", buttons=[])
            seen = gr.Image(label="From this face", format="png", interactive=False, buttons=[], height=180)
            reference = _chooser(gr, editor, blocks, "Take over from another face", 1)

    def move(face: np.ndarray | None, other: np.ndarray | None, names: Sequence[str], step: float) -> list[Any]:
        if face is None or other is None:  # the page has only half begun
            return [None, ""]
        return _show(face, swapped(editor, face, other, names, step))

    inputs = [chosen.state, reference.state, which, step]
    reference.then(enlarged, [reference.state], [seen])
    for face in (chosen, reference):
        face.then(_told(gr, move), inputs, result)
    gr.on(
        [which.input, step.input], _told(gr, move), inputs, result, trigger_mode="always_last", show_progress="hidden"
    )


def _generate_tab(gr: Any, editor: Editor, blocks: Any, chosen: _Chosen | None) -> None:
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
        return [enlarged(face, 256) for face in generated(editor, names, int(count), int(seed or 0))]

    draw.click(_told(gr, make), [which, count, seed], faces)
    blocks.load(make, [which, count, seed], faces)


def _choices(editor: Editor) -> list[tuple[str, str]]:
    return [(_pretty(name), name) for name in editor.attributes]


def _pretty(name: str) -> str:
    return name.replace("_", " ").capitalize()
