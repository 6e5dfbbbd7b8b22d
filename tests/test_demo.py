"""What the page lets a model do; the page in a browser, where there is one. More on photos: test_demo_pictures.py."""

import contextlib
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
from faceattr_jax import demo_pictures as pictures
from faceattr_jax.data import align
from faceattr_jax.data.images import read_image
from faceattr_jax.data.synthetic import SyntheticSource
from faceattr_jax.errors import UserError
from tests import runs

HAIR = ("Black_Hair", "Blond_Hair", "Eyeglasses")


@pytest.fixture(scope="module")
def editor(faces):
    return runs.fresh(
        runs.changed("attgan_quickstart", {"image_size": 32, **runs.SHALLOW, "attributes": HAIR}, faces, {})
    )


@pytest.fixture(scope="module")
def swaps():
    tiny = {"model.width": 2, "model.encoder": (1, 2, 4), "image_size": 32}
    return runs.fresh(runs.changed("elegant_128:released", tiny, "none", {}))


@pytest.fixture(scope="module")
def draws(faces):
    return runs.fresh(runs.slgan(faces, attributes=HAIR))


@pytest.fixture(scope="module")
def takes_off(faces):
    return runs.fresh(runs.diat(faces))


@pytest.fixture(scope="module")
def face():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def close(edit, plain, edited):
    np.testing.assert_allclose(edit[0], edited, atol=1e-5)
    # What is added to a photo is measured against `faceattr edit` in test_demo_pictures.py.
    assert np.abs(edit[1]).max() < 1e-2 if edited is plain else np.abs(edit[1]).max() > 0.1


def test_each_slider_has_its_own_strength(editor, face):
    own = [0, 1, 0]
    plain = editor.edit(face, {}, strength=0, source=own)
    by_hand = editor.edit(face, {"Eyeglasses": 1}, strength=1.5, source=own)
    close(pictures.changed(editor, face, ["Blond_Hair"], {"Eyeglasses": 1.5, "Black_Hair": 0}), plain, by_hand)
    both = pictures.changed(editor, face, ["Blond_Hair"], {"Eyeglasses": 1.5, "Blond_Hair": 0.5})
    x = np.asarray(face[None] / 127.5 - 1, np.float32)
    # Signed codes by hand: Blond_Hair goes halfway from 1 to -1, Eyeglasses beyond 1.
    code = np.array([[-1.0, 0.0, 1.5]], np.float32)
    method, variables = editor.method, editor.variables
    close(both, plain, method.decode(variables, method.encode(variables, x), code)[0])


def test_what_an_added_attribute_rules_out_goes_as_strongly(editor, face):
    found, _ = pictures.changed(editor, face, ["Blond_Hair"], {"Black_Hair": 0.5})
    expected = editor.edit(face, {"Black_Hair": 1, "Blond_Hair": 0}, strength=0.5, source=[0, 1, 0])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UserError, match="exclude each other"):
        pictures.changed(editor, face, [], {"Black_Hair": 1, "Blond_Hair": 1})


def test_sliders_at_0_give_the_reconstruction(editor, face):
    own = pictures.owned(editor, face)
    found = editor.reconstruct(face)
    close(pictures.changed(editor, face, own, dict.fromkeys(HAIR, 0.0)), found, found)
    probabilities = np.asarray(editor.classify(face))
    assert own == [name for name, p in zip(HAIR, probabilities, strict=True) if p > 0.5]


def test_a_model_of_one_direction_and_its_mask(takes_off, face):
    own = pictures.owned(takes_off, face)
    assert own == ["Eyeglasses"]
    assert pictures.inverts(takes_off, own, "Eyeglasses")
    assert not pictures.inverts(takes_off, [], "Eyeglasses")
    found, _ = pictures.changed(takes_off, face, own, {"Eyeglasses": 0.5})
    np.testing.assert_allclose(found, takes_off.edit(face, {"Eyeglasses": 0}, strength=0.5), atol=1e-5)
    mask = np.asarray(takes_off.mask(face))
    shown = pictures.masked(takes_off, face)
    np.testing.assert_array_equal(shown[mask[..., 0] == 0], face[mask[..., 0] == 0])
    np.testing.assert_allclose(shown, face + 0.6 * mask * (np.array([255.0, 0.0, 90.0]) - face), atol=1)


def test_exemplars(swaps, face):
    other, names = face[::-1], ["Bangs", "Male"]
    plain = swaps.reconstruct(face)
    close(pictures.swapped(swaps, face, other, names, 1.0), plain, swaps.swap(face, other, names))
    close(pictures.swapped(swaps, face, other, ["Bangs"], 0.0), plain, plain)
    with pytest.raises(UserError, match="at least one attribute"):
        pictures.swapped(swaps, face, other, [], 1.0)


def test_generated_faces_have_what_is_asked_and_no_more(draws):
    found = pictures.generated(draws, ["Eyeglasses"], 2, seed=3)
    np.testing.assert_array_equal(found, pictures.eight_bit(draws.generate([[0, 0, 1]] * 2, seed=3)))
    with pytest.raises(UserError, match="exclude each other"):
        pictures.generated(draws, ["Black_Hair", "Blond_Hair"], 2, seed=3)


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


@pytest.fixture(scope="module")
def browser():
    missing = [name for name in ("gradio", "playwright") if find_spec(name) is None]
    if missing:
        pytest.skip(f"the page is not tested in a browser: pip install {' '.join(missing)}")
    if not CHROMIUM:
        pytest.skip("the page is not tested in a browser: no Chromium on the PATH, nor named by FACEATTR_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Visit:
    """A page in a tab of the browser; at the end nothing has gone wrong, and nothing has gone elsewhere."""

    def __init__(self, browser, address):
        self.address, self.complaints, self.hosts, self.before = address, [], set(), ""
        self.tab = browser.new_page(viewport={"width": 1280, "height": 900})
        self.tab.set_default_timeout(1000 * PATIENCE)
        self.tab.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda r: self.hosts.add(r.url.split("/")[2]) if r.url.startswith("http") else None)
        self.tab.goto(address)

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        self.tab.close()
        if kind is None:
            assert not self.complaints
            assert self.hosts == {self.address.removeprefix("http://")}

    def face(self):
        """The model's picture, once it is another than the last time."""
        changed = "before => { const a = document.querySelector('a.download'); return a && a.href !== before }"
        self.tab.wait_for_function(changed, arg=self.before)
        self.before = self.tab.locator("a.download").first.get_attribute("href")
        return self.saved("a.download")[0]

    def saved(self, button):
        """What is downloaded by that button, and its name."""
        with self.tab.expect_download() as download:
            self.tab.locator(button).first.click()
        with Image.open(download.value.path()) as image:
            return np.asarray(image), download.value.suggested_filename

    def upload(self, data, name="me.png"):
        file = {"name": name, "mimeType": "image/png", "buffer": data}
        self.tab.locator("input[type=file]").first.set_input_files(file)

    def toast(self, kind):
        told = self.tab.locator(f".toast-body.{kind}").first
        told.wait_for()
        return told.inner_text()

    def pictures(self, images, count):
        """Address and pixels of each of so many pictures."""
        found = self.tab.locator(images)
        self.tab.wait_for_function(
            "([images, n]) => document.querySelectorAll(images).length === n", arg=[images, count]
        )
        addresses = [found.nth(i).get_attribute("src") for i in range(count)]
        return [(at, np.asarray(read_image(io.BytesIO(self.tab.request.get(at).body())))) for at in addresses]

    def seen(self):
        """The picture after the edit as it is on the screen, once it has come to rest."""
        wipe, last = self.tab.locator(".wipe img").nth(1), None
        while True:
            self.tab.wait_for_timeout(300)
            with Image.open(io.BytesIO(wipe.screenshot())) as image:
                now = np.asarray(image.convert("RGB")).astype(int)
            if last is not None and np.array_equal(now, last):
                return now
            last = now


@pytest.fixture
def served(trained, tmp_path, browser, port):
    """The address of the page, served by the command in a process of its own, which leaves no file behind."""
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


@pytest.fixture
def page(port, tmp_path, monkeypatch):
    """page(editor): the address of its page, served from this process meanwhile."""

    @contextlib.contextmanager
    def serve(editor):
        monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # it will be another, and this one again at the end
        blocks = demo.started(editor, "127.0.0.1", port, str(tmp_path))
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            blocks.close(verbose=False)

    return serve


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def two_people():
    """A photo of two drawn faces, the larger to the right."""
    people = SyntheticSource(4096, size=128).images(np.array([0, 8]))
    image = Image.new("RGB", (640, 360), (70, 100, 120))
    image.paste(Image.fromarray(people[0]), (40, 40))
    image.paste(Image.fromarray(people[1]).resize((256, 256), Image.Resampling.BICUBIC), (340, 60))
    return image


def test_the_page_in_a_browser(served, trained, browser):
    """Upload, move a slider, see other pixels, download the photo and its face."""
    model = fj.load(trained / "attgan")
    name = next(reversed(list(pictures.groups(model.attributes).values())))[-1]
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    with Visit(browser, served) as visit:
        tab = visit.tab
        drawn = visit.face()
        assert not tab.locator("button.whole").is_visible()

        visit.upload(png(noise))
        uploaded = visit.face()
        assert "The middle of the photo is taken." in visit.toast("warning")
        tab.locator(".sliders input[type=range]").last.fill("2")
        moved = visit.face()
        whole, named = visit.saved("button.whole")

        visit.upload(b"no picture")
        assert "'the photo' is not a picture that can be read" in visit.toast("error")
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    chosen, _ = pictures.dropped(model, png(noise))
    own = pictures.owned(model, chosen.face)
    edit = pictures.changed(model, chosen.face, own, {name: 2.0})
    assert not np.array_equal(drawn, uploaded)
    np.testing.assert_allclose(uploaded, pictures.eight_bit(pictures.changed(model, chosen.face, own, {})[0]), atol=1)
    np.testing.assert_allclose(moved, pictures.eight_bit(edit[0]), atol=1)
    assert np.abs(moved.astype(int) - uploaded).max() > 1
    assert named == "me.edited.png"
    np.testing.assert_allclose(whole, read_image(io.BytesIO(pictures.finished(chosen, edit))), atol=1)
    assert np.abs(whole.astype(int) - np.asarray(noise)).max() > 1


def test_faces_of_a_photo_in_a_browser(browser, editor, page):
    """The largest is edited first, and the other when it is picked; no other pixel changes, on the screen or saved."""
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install -e .[photos]")
    image = two_people()
    chosen, reason = pictures.dropped(editor, png(image))
    assert (reason, len(chosen.faces)) == ("", 2)
    with page(editor) as address, Visit(browser, address) as visit:
        visit.face()
        visit.upload(png(image), "us.png")
        for at, place in enumerate(chosen.photo.places):
            if at:
                visit.tab.locator(".thumbnails button:visible").nth(at).click()
            plain, before = visit.face(), visit.seen()
            visit.tab.locator(".sliders input[type=range]").last.fill("2")
            edited, after = visit.face(), visit.seen()
            assert np.abs(edited.astype(int) - plain).max() > 10
            left, top, right, bottom = align.bounds(place, 32)
            inside = np.zeros((image.height, image.width), bool)
            inside[max(0, top) : bottom, max(0, left) : right] = True
            whole, name = visit.saved("button.whole")
            change = np.abs(whole.astype(int) - np.asarray(image)).max(axis=-1)
            assert (name, whole.shape) == ("us.edited.png", (360, 640, 3))
            assert not change[~inside].any()
            assert change[inside].max() > 10
            # On the screen it is smaller, and a JPEG of blocks of 16 pixels.
            scale = len(after) / image.height
            assert after.shape[1] == pytest.approx(scale * image.width, abs=2)
            rows, columns = (np.nonzero(np.abs(after - before).max(axis=(axis, 2)) > 3)[0] / scale for axis in (1, 0))
            assert max(0, top) - 18 < rows.min() < rows.max() < bottom + 18
            assert max(0, left) - 18 < columns.min() < columns.max() < right + 18


def test_the_exemplar_tab_in_a_browser(browser, swaps, page):
    drawn, first = pictures.drawn_faces(swaps, 0), swaps.attributes[0]
    image = two_people()

    def expected(chosen, other, step):
        return pictures.swapped(swaps, chosen.face, drawn[other], [first], step)

    with page(swaps) as address, Visit(browser, address) as visit:
        begun = visit.face()
        visit.tab.locator(".thumbnails button:visible").nth(pictures.DRAWN + 3).click()
        another = visit.face()
        visit.tab.locator("input[type=range]").last.fill("0.5")
        halfway = visit.face()
        visit.upload(png(image))
        visit.face()
        whole, _ = visit.saved("button.whole")
    chosen = pictures.Chosen(drawn)
    for found, edit in ((begun, expected(chosen, 1, 1.0)), (another, expected(chosen, 3, 1.0))):
        np.testing.assert_allclose(found, pictures.eight_bit(edit[0]), atol=1)
    np.testing.assert_allclose(halfway, pictures.eight_bit(expected(chosen, 3, 0.5)[0]), atol=1)
    assert not np.array_equal(begun, another)
    assert not np.array_equal(halfway, another)
    chosen, _ = pictures.dropped(swaps, png(image))
    result = pictures.finished(chosen, expected(chosen, 3, 0.5))
    np.testing.assert_allclose(whole, read_image(io.BytesIO(result)), atol=1)
    assert np.abs(whole.astype(int) - np.asarray(image)).max() > 1


def test_the_generate_tab_in_a_browser(browser, draws, page):
    with page(draws) as address, Visit(browser, address) as visit:
        visit.tab.get_by_role("tab", name="Generate").click()
        begun = visit.pictures(".faces img", 8)
        visit.tab.get_by_label("Eyeglasses", exact=True).locator("visible=true").check()
        visit.tab.get_by_label("Seed").fill("5")
        visit.tab.get_by_role("button", name="Draw faces").click()
        visit.tab.wait_for_function("old => document.querySelector('.faces img').src !== old", arg=begun[0][0])
        again = visit.pictures(".faces img", 8)
    for found, names, seed in ((begun, [], 0), (again, ["Eyeglasses"], 5)):
        expected = [np.asarray(pictures.enlarged(face, 256)) for face in pictures.generated(draws, names, 8, seed)]
        np.testing.assert_allclose([pixels for _, pixels in found], expected, atol=1)


def test_the_mask_in_a_browser(browser, takes_off, page, monkeypatch):
    """And a page is told that its face was forgotten, as here when a second one is opened."""
    monkeypatch.setattr(demo, "SESSIONS", 1)
    with page(takes_off) as address, Visit(browser, address) as visit:
        visit.face()
        ((_, shown),) = visit.pictures(".mask img", 1)
        visit.tab.locator(".sliders input[type=range]").last.fill("1")
        edited = visit.face()
        with Visit(browser, address) as other:
            other.face()
        visit.tab.locator(".sliders input[type=range]").last.fill("0.5")
        assert "it was forgotten" in visit.toast("error")
    face = pictures.drawn_faces(takes_off, 0)[0]
    np.testing.assert_allclose(shown, pictures.enlarged(pictures.masked(takes_off, face)), atol=1)
    edit = pictures.changed(takes_off, face, ["Eyeglasses"], {"Eyeglasses": 1.0})
    np.testing.assert_allclose(edited, pictures.eight_bit(edit[0]), atol=1)
