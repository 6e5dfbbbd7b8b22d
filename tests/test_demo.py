"""What the page shows, computed without it; and the page itself in a browser, where there is one."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from PIL import Image

import faceattr_jax as fj
from faceattr_jax import demo
from faceattr_jax.data import crops
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import build
from faceattr_jax.training.state import init_state
from tests import runs

HAIR = ("Black_Hair", "Blond_Hair", "Eyeglasses")


def untrained(config):
    method = build(config)
    return Editor(method, jax.jit(lambda: init_state(method, 0).inference_variables)())


@pytest.fixture(scope="module")
def editor(faces):
    return untrained(
        runs.changed("attgan_quickstart", {"image_size": 32, **runs.SHALLOW, "attributes": HAIR}, faces, {})
    )


@pytest.fixture(scope="module")
def face():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def levels(images):
    return np.rint((np.asarray(images, np.float64) + 1) * 127.5)


def close(a, b):
    """Equal but for rounding: one grey level."""
    assert a.dtype == np.uint8
    np.testing.assert_allclose(a, levels(b), atol=1)


def test_each_slider_has_its_own_strength(editor, face):
    by_hand = editor.edit(face, {"Eyeglasses": 1}, strength=1.5, source=[0, 1, 0])
    found = demo.changed(editor, face, ["Blond_Hair"], {"Eyeglasses": 1.5, "Black_Hair": 0})
    close(found, by_hand)
    both = demo.changed(editor, face, ["Blond_Hair"], {"Eyeglasses": 1.5, "Blond_Hair": 0.5})
    x = np.asarray(face[None] / 127.5 - 1, np.float32)
    # Signed codes by hand: Blond_Hair goes halfway from 1 to -1, Eyeglasses beyond 1.
    code = np.array([[-1.0, 0.0, 1.5]], np.float32)
    method, variables = editor.method, editor.variables
    close(both, method.decode(variables, method.encode(variables, x), code)[0])


def test_what_an_added_attribute_rules_out_goes_as_strongly(editor, face):
    found = demo.changed(editor, face, ["Blond_Hair"], {"Black_Hair": 0.5})
    close(found, editor.edit(face, {"Black_Hair": 1, "Blond_Hair": 0}, strength=0.5, source=[0, 1, 0]))
    with pytest.raises(UserError, match="exclude each other"):
        demo.changed(editor, face, [], {"Black_Hair": 1, "Blond_Hair": 1})


def test_sliders_at_0_give_the_reconstruction(editor, face):
    own = demo.owned(editor, face)
    close(demo.changed(editor, face, own, dict.fromkeys(HAIR, 0.0)), editor.reconstruct(face))
    probabilities = np.asarray(editor.classify(face))
    assert own == [name for name, p in zip(HAIR, probabilities, strict=True) if p > 0.5]


def test_a_model_of_one_direction_and_its_mask(faces, face):
    takes_off = untrained(runs.diat(faces))
    own = demo.owned(takes_off, face)
    assert own == ["Eyeglasses"]
    assert demo.inverts(takes_off, own, "Eyeglasses")
    assert not demo.inverts(takes_off, [], "Eyeglasses")
    found = demo.changed(takes_off, face, own, {"Eyeglasses": 0.5})
    close(found, takes_off.edit(face, {"Eyeglasses": 0}, strength=0.5))
    mask = np.asarray(takes_off.mask(face))
    shown = demo.masked(takes_off, face)
    np.testing.assert_array_equal(shown[mask[..., 0] == 0], face[mask[..., 0] == 0])
    np.testing.assert_allclose(shown, face + 0.6 * mask * (np.array([255.0, 0.0, 90.0]) - face), atol=1)


def test_exemplars(face):
    tiny = {"model.width": 2, "model.encoder": (1, 2, 4), "image_size": 32}
    swaps = untrained(runs.changed("elegant_128:released", tiny, "none", {}))
    other = face[::-1]
    close(demo.swapped(swaps, face, other, ["Bangs", "Male"], 1.0), swaps.swap(face, other, ["Bangs", "Male"]))
    close(demo.swapped(swaps, face, other, ["Bangs"], 0.0), swaps.reconstruct(face))
    with pytest.raises(UserError, match="at least one attribute"):
        demo.swapped(swaps, face, other, [], 1.0)


def test_generated_faces_have_what_is_asked_and_no_more(faces):
    draws = untrained(runs.slgan(faces, attributes=HAIR))
    found = demo.generated(draws, ["Eyeglasses"], 2, seed=3)
    close(np.stack(found), draws.generate([[0, 0, 1]] * 2, seed=3))
    with pytest.raises(UserError, match="exclude each other"):
        demo.generated(draws, ["Black_Hair", "Blond_Hair"], 2, seed=3)


def png(size, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def test_photos_are_limited_and_cropped(editor, monkeypatch):
    upright = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (60, 40)).save(upright, "JPEG", exif=exif)
    photo = demo.read_photo(upright.getvalue())
    assert photo.size == (40, 60)
    assert demo.face_in(editor, photo)[0].shape == (32, 32, 3)
    for data, message in (
        (b"hello", "'the photo' is not a picture"),
        (png((64, 64))[:60], "damaged or cut short"),
        (png((8, 64)), "too small"),
    ):
        with pytest.raises(UserError, match=message):
            demo.read_photo(data)
    monkeypatch.setattr(demo, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(UserError, match="4,096 pixels; this page takes up to 4,095"):
        demo.read_photo(png((64, 64)))


def test_a_photo_without_a_face_says_so(editor, monkeypatch):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8))
    monkeypatch.setattr(demo, "_detector", lambda: lambda image: [])
    face, reason = demo.face_in(editor, photo)
    np.testing.assert_array_equal(face, crops.crop(photo, "center", 32))
    assert reason == "'the photo': no face is seen well enough."


@pytest.mark.parametrize("error", [OSError("in use"), OverflowError("port must be 0-65535")])
def test_an_address_that_cannot_be_had(error, monkeypatch):
    class Blocks:
        def launch(self, **options):
            # Whoever stops the server from here on leaves no folder behind.
            assert {signal.getsignal(number) for number in stops}.isdisjoint({signal.SIG_DFL})
            raise error

    stops = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(demo, "page", lambda editor: Blocks())
    monkeypatch.setattr(demo, "_gradio", lambda: None)
    monkeypatch.setattr(demo, "_theme", lambda gr: None)
    monkeypatch.setitem(os.environ, "GRADIO_TEMP_DIR", "")
    try:
        with pytest.raises(UserError, match=r"127.0.0.1:70000 cannot be served \(.*\); give another --host or --port"):
            demo.serve(None, "127.0.0.1", 70000)
    finally:
        for number, handler in stops.items():
            signal.signal(number, handler)


def test_drawn_faces_are_other_people_on_every_page(editor):
    first, second = demo.drawn_faces(editor, 0), demo.drawn_faces(editor, 1)
    assert first[0].shape == (32, 32, 3)
    assert len({image.tobytes() for image in [*first, *second]}) == 2 * demo.DRAWN


def test_every_attribute_is_on_the_page_once():
    from faceattr_jax.attributes import CELEBA

    names = (*CELEBA, "Scar")
    found = demo.groups(names)
    assert sorted(name for group in found.values() for name in group) == sorted(names)
    assert demo.groups(["Scar"]) == {"Attributes": ["Scar"]}
    known = {name for group in demo.GROUPS.values() for name in group}
    assert known < set(CELEBA)


def test_small_pictures_are_magnified_to_look_at(face):
    assert demo.enlarged(face).size == (512, 512)
    assert demo.enlarged(np.zeros((600, 300, 3), np.uint8)).size == (300, 600)


def test_a_model_without_pictures_has_no_page(trained):
    with pytest.raises(UserError, match="this classifier model makes no pictures to play with; it can classify"):
        demo.page(fj.load(trained / "judge"))


def test_without_gradio_its_extra_is_named(monkeypatch, editor):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'faceattr_jax\[demo\]'"):
        demo.page(editor)


CHROMIUM = os.environ.get("FACEATTR_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 300.0  # seconds for a slow machine


@pytest.fixture
def served(trained, tmp_path):
    """The address of the page, served by the command in a process of its own, which leaves no file behind."""
    missing = [name for name in ("gradio", "playwright") if find_spec(name) is None]
    if missing:
        pytest.skip(f"the page is not tested in a browser: pip install {' '.join(missing)}")
    if not CHROMIUM:
        pytest.skip("the page is not tested in a browser: no Chromium on the PATH, nor named by FACEATTR_CHROMIUM")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "tmp"
    folder.mkdir()
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "faceattr_jax.cli", "demo", f"--checkpoint={trained / 'attgan'}", f"--port={port}"]
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **cache}) as server,
    ):
        try:
            line = server.stdout.readline()
            assert line.startswith(f"http://127.0.0.1:{port} "), (tmp_path / "log").read_text()
            yield line.split()[0]
        finally:
            nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            server.send_signal(signal.SIGTERM if nohup else signal.SIGHUP)
    assert server.returncode == 0
    assert not list(folder.iterdir()), "nothing is kept"


def test_the_page_in_a_browser(served, trained, tmp_path):
    """Upload, move a slider, see other pixels, download them; nothing goes wrong, and nothing goes elsewhere."""
    from playwright.sync_api import sync_playwright

    model = fj.load(trained / "attgan")
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    file = io.BytesIO()
    photo.save(file, "PNG")
    upload = {"name": "me.png", "mimeType": "image/png", "buffer": file.getvalue()}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.set_default_timeout(1000 * PATIENCE)
        complaints, hosts = [], set()
        tab.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda r: hosts.add(r.url.split("/")[2]) if r.url.startswith("http") else None)
        tab.goto(served)

        def shown():
            """The result, once it is another than `before`."""
            changed = "before => { const a = document.querySelector('a.download'); return a && a.href !== before }"
            tab.wait_for_function(changed, arg=shown.before)
            shown.before = tab.locator("a.download").get_attribute("href")
            with tab.expect_download() as download:
                tab.locator("a.download").click()
            with Image.open(download.value.path()) as image:
                assert download.value.suggested_filename == "face.edited.png"
                return np.asarray(image)

        shown.before = ""
        drawn = shown()
        tab.locator("input[type=file]").first.set_input_files(upload)
        uploaded = shown()
        assert "The middle of the photo is taken." in tab.locator(".toast-body.warning").first.inner_text()
        tab.locator(".sliders input[type=range]").last.fill("2")
        moved = shown()

        tab.locator("input[type=file]").first.set_input_files({**upload, "buffer": b"no picture"})
        told = tab.locator(".toast-body.error").first
        told.wait_for()
        assert "'the photo' is not a picture that can be read" in told.inner_text()
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    face, _ = demo.face_in(model, photo)
    own = demo.owned(model, face)
    name = next(reversed(list(demo.groups(model.attributes).values())))[-1]
    np.testing.assert_allclose(uploaded, demo.changed(model, face, own, {}), atol=1)
    np.testing.assert_allclose(moved, demo.changed(model, face, own, {name: 2.0}), atol=1)
    assert np.abs(moved.astype(int) - uploaded).max() > 1
    assert not np.array_equal(drawn, uploaded)
    assert not complaints
    assert hosts == {served.removeprefix("http://")}
