"""The user study: what the page shows and hides, and the table of what people answered."""

import base64
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from PIL import Image

from faceattr_jax import cli, study
from faceattr_jax.attributes import CONFLICTS
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.data.source import open_source
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import opening
from tests import runs

MORE = ("Black_Hair", "Blond_Hair", "Smiling")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Faces with more attributes than the runs know, for guesses."""
    folder = runs.make_faces(tmp_path_factory.mktemp("study") / "faces")
    head, *rows = (folder / "labels.csv").read_text().splitlines()
    lines = [f"{head},{','.join(MORE)}", *(f"{row},{i % 2},{(i + 1) % 2},0" for i, row in enumerate(rows))]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def models(labelled):
    return {
        "runs/secret": runs.fresh(runs.attgan(labelled), "runs/secret/3"),
        "runs/veiled": runs.fresh(runs.elegant(labelled), "runs/veiled/3"),
        "runs/judge": runs.fresh(runs.classifier(labelled)),
        "runs/hair": runs.fresh(runs.attgan(labelled, attributes=("Black_Hair",))),
    }


@pytest.fixture(autouse=True)
def _opened(models, monkeypatch):
    monkeypatch.setattr(opening, "load", models.__getitem__)


@pytest.fixture(scope="module")
def asked(labelled, models, tmp_path_factory):
    """A page about two runs, with its key; made twice."""
    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "load", models.__getitem__)
        for name in ("page", "again"):
            command = ["study", "ask", "runs/secret", "runs/veiled", f"--out={folder / name}.html"]
            assert cli.main([*command, "--faces=6", "--seed=5"]) == 0
    return folder


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.data, self._within = [], {}, ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._within = dict(attributes).get("id", tag)

    def handle_data(self, data):
        self.data[self._within] = self.data.get(self._within, "") + data


def test_the_page_is_whole_and_says_nothing_of_runs(asked):
    text = (asked / "page.html").read_text()
    words = re.sub(r'"pictures": \[.*?\]', "", text)
    assert not re.search(r"https?:|//[a-z]+\.|secret|veiled|attgan|elegant|\d\.png", words, re.IGNORECASE)
    page = Page()
    page.feed(text)
    page.close()
    assert not [tag for tag, attributes in page.tags if tag in ("link", "script", "img") and "src" in attributes]
    shown = json.loads(page.data["study"])
    assert (len(shown["items"]), shown["turns"]) == (12, 2)
    # Nothing but opaque numbers, in an order of their own; pictures are as PNG as they come, without a word in them.
    for item in shown["items"]:
        assert item.keys() == {"before", "after", "change", "choices", "turn"}
    for data in shown["pictures"]:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert (image.size, image.info) == ((32, 32), {})


def test_the_same_seed_gives_the_same_files(asked):
    for suffix in ("html", "key.json"):
        assert (asked / f"page.{suffix}").read_bytes() == (asked / f"again.{suffix}").read_bytes()


def test_the_key_tells_what_the_page_shows(asked, labelled, models):
    page = Page()
    page.feed((asked / "page.html").read_text())
    shown, key = json.loads(page.data["study"]), json.loads((asked / "page.key.json").read_text())
    assert shown["study"] == key["study"]
    assert [run["method"] for run in key["runs"]] == ["attgan", "elegant"]
    source = open_source(str(labelled), size=32, crop="none")
    names = list(source.table.names)

    def picture(number):
        with Image.open(io.BytesIO(base64.b64decode(shown["pictures"][number]))) as image:
            return np.asarray(image)

    attributes = []
    for item, secret in zip(shown["items"], key["items"], strict=True):
        face = names.index(secret["face"])
        assert face in source.table.indices("test")
        np.testing.assert_array_equal(picture(item["before"]), source.images(np.array([face]))[0])
        assert secret["value"] != source.table.select([secret["attribute"]])[face, 0]
        assert item["change"].startswith(secret["attribute"])
        assert item["choices"] == secret["choices"]
        assert len(set(item["choices"])) == 4
        assert secret["attribute"] in item["choices"]
        attributes.append(secret["attribute"])
        if secret["run"] == 0:
            own = source.table.select(runs.ATTRIBUTES)[face]
            model = models["runs/secret"]
            images = to_float(jax.numpy.asarray(picture(item["before"])))
            edited = model.edit(images, {secret["attribute"]: secret["value"]}, source=own[None])
            np.testing.assert_allclose(picture(item["after"]), np.asarray(to_uint8(edited)), atol=1)
    # Both runs do the same to every face; attributes take turns; so do the runs in everybody's guesses.
    pairs = sorted((s["face"], s["attribute"], s["run"]) for s in key["items"])
    assert [p[:2] for p in pairs[::2]] == [p[:2] for p in pairs[1::2]]
    assert {attributes.count(name) for name in runs.ATTRIBUTES} == {4}
    for turn in (0, 1):
        mine = [s for item, s in zip(shown["items"], key["items"], strict=True) if item["turn"] == turn]
        assert len({s["face"] for s in mine}) == 6
        assert sorted(s["run"] for s in mine) == [0, 0, 0, 1, 1, 1]


def test_what_goes_with_an_edit_is_no_wrong_answer(labelled, tmp_path):
    page = tmp_path / "hair.html"
    study.ask(["runs/hair"], page, faces=12, split="all")
    items = json.loads(page.with_suffix(".key.json").read_text())["items"]
    assert {item["value"] for item in items} == {0, 1}
    for item in items:
        assert not (item["value"] and CONFLICTS["Black_Hair"] & set(item["choices"]))


@pytest.mark.parametrize(
    ("workdirs", "options", "message"),
    [
        (["runs/judge"], {}, "a classifier model edits no faces"),
        (["runs/secret", "runs/hair"], {}, "no attribute in common"),
        (["runs/secret"], {"faces": 13}, "the test split has 12 faces that all of these runs can edit, not 13"),
        (["runs/secret"], {"faces": 0}, "give --faces=1 to 12"),
    ],
)
def test_what_cannot_be_asked(workdirs, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        study.ask(workdirs, tmp_path / "page.html", **options)
    assert not list(tmp_path.iterdir())


def test_too_few_attributes_for_a_guess(faces, tmp_path):
    with pytest.raises(UserError, match="too few attributes for a guess among 4"):
        study.ask(["runs/secret"], tmp_path / "page.html", faces=2, data=str(faces))


# A key and answers small enough to count by hand: two faces, two runs, two people.
KEY = {
    "study": "abc", "data": "drawn, test split, 2 faces", "seed": 0, "strength": 1.0,
    "runs": [{"model": "runs/a", "method": "attgan"}, {"model": "runs/b", "method": "slgan"}],
    "items": [
        {"run": run, "face": face, "attribute": "Bald", "value": 1, "choices": ["Male", "Bald", "Young", "Smiling"]}
        for run, face in ((0, "x"), (1, "y"), (1, "x"), (0, "y"))
    ],
}  # fmt: skip
ANSWERS = [
    {"study": "abc", "rater": 1, "guesses": {"0": [1], "1": [0]}, "ratings": {"0": [5, 4, 3], "3": [3, 4, 1]}},
    {"study": "abc", "rater": 2, "guesses": {"3": [1]}, "ratings": {"0": [2, 4, 1], "3": [2, 4, 3], "1": [1, 2, 5]}},
]


def written(folder, answers, key=KEY):
    (folder / "key.json").write_text(json.dumps(key))
    paths = [folder / f"{i}.json" for i in range(len(answers))]
    for path, answer in zip(paths, answers, strict=True):
        path.write_text(answer if isinstance(answer, str) else json.dumps(answer))
    return folder / "key.json", paths


def test_the_table_by_hand(tmp_path, capsys):
    key, paths = written(tmp_path, ANSWERS)
    found = study.count(key, paths)
    a, b = found["runs"]
    # Saliency of run a: 5 3 | 2 2. By people sums of deviations are 2 and -2: sqrt(2 (4 + 4)) / 4 = 1; by faces 1 and
    # -1: 1/2. t with one degree of freedom is 12.706 at 97.5 %, and the scale ends at 1 and 5.
    assert a["saliency"] == {"mean": 3.0, "low": 1.0, "high": 5.0, "answers": 4}
    assert a["quality"] == {"mean": 4.0, "low": 4.0, "high": 4.0, "answers": 4}
    assert a["similarity"]["mean"] == 2.0
    assert b["similarity"] == {"mean": 5.0, "low": None, "high": None, "answers": 1}
    # Two right guesses of two, by two people about two faces; Wilson's lower end is n / (n + z^2).
    assert a["guess"]["mean"] == a["guess"]["high"] == 1.0
    assert a["guess"]["low"] == pytest.approx(2 / (2 + 1.959964**2))
    assert b["guess"]["mean"] == b["guess"]["low"] == 0.0
    assert found["participants"] == 2
    out = tmp_path / "found.json"
    assert cli.main(["study", "count", *map(str, paths), f"--key={key}", f"--out={out}"]) == 0
    text = capsys.readouterr().out
    assert "| 0: attgan | 3.00 (1.00 to 5.00) of 4 | 4.00 (4.00 to 4.00) of 4 |" in text
    assert "| 1: slgan | 1.00 of 1 | 2.00 of 1 | 5.00 of 1 | 0.0% (0.0% to" in text
    assert "| SL-GAN, in the paper | 4.37 | 4.20 | 4.45 | 75.0% |" in text
    assert json.loads(out.read_text()) == found


def test_interval_is_the_textbooks():
    x = np.array([3.0, 4.0, 4.5, 2.0, 5.0])
    mean, low, high = study.interval(x, range(5))
    half = 2.776445 * x.std(ddof=1) / math.sqrt(5)  # t of 4 degrees of freedom, from a table
    np.testing.assert_allclose([mean, low, high], [x.mean(), x.mean() - half, x.mean() + half], rtol=1e-6)
    # Answers that are the same within a group tell no more than one of each group.
    np.testing.assert_allclose(study.interval(np.repeat(x, 7), np.repeat(range(5), 7)), [mean, low, high])
    assert study.interval(np.repeat(x, 7), np.repeat(range(5), 7), range(35)) == pytest.approx((mean, low, high))
    assert study.interval(x, [1] * 5) == (mean, None, None)
    # Two thirds of twelve: a share whose interval is in Wilson's own closed form.
    p, n, z = 2 / 3, 12, 1.959964
    centre, half = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    expected = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    np.testing.assert_allclose(study.wilson(p, n), expected)


GOOD = ANSWERS[0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "this is not a JSON file, or not all of one"),
        ([1], "this JSON file holds something else"),
        ({**GOOD, "study": "other"}, "these are not answers to the page of"),
        ({**GOOD, "rater": "me"}, "does not say whose answers"),
        (GOOD, "participant 1 answered in"),
        ({**GOOD, "rater": 3, "guesses": {}, "ratings": {}}, "there is no answer in this file"),
        ({**GOOD, "rater": 3, "guesses": None}, "the file has no 'guesses'"),
        ({**GOOD, "rater": 3, "guesses": {"4": [1]}}, "the page has no picture '4'"),
        ({**GOOD, "rater": 3, "guesses": {"-1": [1]}}, "the page has no picture '-1'"),
        ({**GOOD, "rater": 3, "guesses": {"0": [4]}}, r"guesses of picture 0 are \[4\], not 1 from 0 to 3"),
        ({**GOOD, "rater": 3, "ratings": {"0": [1, 2]}}, r"ratings of picture 0 are \[1, 2\], not 3 from 1 to 5"),
        ({**GOOD, "rater": 3, "ratings": {"0": [1, 2, 6]}}, "not 3 from 1 to 5"),
        ({**GOOD, "rater": 3, "ratings": {"0": [1, 2, True]}}, "not 3 from 1 to 5"),
    ],
)
def test_bad_answers_are_told_by_file(bad, message, tmp_path):
    key, paths = written(tmp_path, [GOOD, bad])
    with pytest.raises(UserError, match=rf"1\.json: .*{message}"):
        study.count(key, paths)


def test_a_missing_file_and_a_wrong_key(tmp_path):
    key, paths = written(tmp_path, [GOOD])
    with pytest.raises(UserError, match="cannot be read"):
        study.count(key, [tmp_path / "none.json"])
    with pytest.raises(UserError, match=r"0\.json: this is no key"):
        study.count(paths[0], paths)


@pytest.mark.skipif(not CHROMIUM or find_spec("playwright") is None, reason="no Chromium, or no playwright")
def test_the_page_in_a_browser(asked, tmp_path):
    """Clicked through on a telephone, from a file, without a network; what it saves is counted."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(viewport={"width": 390, "height": 844}, offline=True).new_page()
        tab.set_default_timeout(120_000)
        complaints, loaded = [], []
        tab.on("console", lambda m: complaints.append(m.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda r: loaded.append(r.url) if not r.url.startswith(("data:", "blob:")) else None)
        address = (asked / "page.html").as_uri() + "#8"
        tab.goto(address)
        tab.screenshot(path=tmp_path / "begin.png", full_page=True)
        tab.get_by_role("button", name="Begin").click()
        for number in range(18):
            assert f"{number + 1} of 18" in tab.locator("main").inner_text()
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390
            if number in (0, 6):
                tab.screenshot(path=tmp_path / f"{number}.png", full_page=True)
            tab.get_by_role("button", name="Next").click()  # which asks for an answer first
            assert f"{number + 1} of 18" in tab.locator("main").inner_text()
            if number < 6:
                tab.locator("input").nth(1).check()
            else:
                for scale in range(3):
                    tab.locator("fieldset").nth(scale).locator("input").nth(scale + 1).check()
            if number == 3:  # a reload loses only what was not yet sent off
                tab.reload()
                tab.get_by_role("button", name="Go on").click()
                tab.locator("input").nth(1).check()
            tab.get_by_role("button", name="Next").click()
        tab.screenshot(path=tmp_path / "end.png", full_page=True)
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Save the answers").click()
        download.value.save_as(tmp_path / "answers.json")
        browser.close()
    assert (complaints, loaded) == ([], [address.partition("#")[0]] * len(loaded))
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers["rater"] == 8
    key = json.loads((asked / "page.key.json").read_text())
    found = study.count(asked / "page.key.json", [tmp_path / "answers.json"])
    for number, row in enumerate(found["runs"]):
        assert [row[scale]["mean"] for scale in study.SCALES] == [2, 3, 4]
        mine = [key["items"][int(i)] for i in answers["guesses"]]
        right = [item["choices"][1] == item["attribute"] for item in mine if item["run"] == number]
        assert row["guess"]["mean"] == pytest.approx(np.mean(right))
        assert len(right) == 3
