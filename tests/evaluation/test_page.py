"""One source for Markdown and HTML; the HTML needs nothing else."""

import base64
import io
import re
import sys
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from faceattr_jax.evaluation import page

BLOCKS = [
    "# Runs & faces",
    "All <b> of them.",
    "## Numbers",
    page.Table(["", "a|b"], [["x", "1.0"], ["y", "-"]]),
    page.Bullets(["one", "two"]),
]


def test_markdown():
    text = page.markdown([*BLOCKS, page.Picture(b"", "a picture")])
    assert text.startswith("# Runs & faces\n\nAll <b> of them.\n\n## Numbers\n\n|  | a|b |")
    assert text.endswith("* one\n* two\n")
    assert "picture" not in text


def test_markdown_has_no_headings_of_pictures_alone():
    picture = page.Picture(b"", "faces")
    text = page.markdown(["# Title", "## Faces", picture, "## Deep", "### Text", "words", "### Last", picture])
    assert text == "# Title\n\n## Deep\n\n### Text\n\nwords\n"


class Checker(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.outside = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "meta", "link"):
            self.open.append(tag)
        self.outside += [v for k, v in attributes if k in ("src", "href", "srcset") and not v.startswith("data:")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_holds_its_pictures_and_loads_nothing():
    sheet = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    charts = [
        *page.bars("Bars", {"ours": {"Male": 0.5, "Bangs": 1.0}, "theirs": {"Male": 0.7}}),
        *page.boxes("Boxes", {"Male": np.arange(9.0)}),
        *page.curves("Curves", {"run": ([0.1, 0.2], [0.3, 0.4])}, "x", "y", ["0", "1"]),
    ]
    assert len(charts) == 3
    text = page.page([*BLOCKS, page.grid(sheet, 'faces "edited"'), *charts])
    assert "All &lt;b&gt; of them." in text
    assert "<title>Runs &amp; faces</title>" in text
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert not checker.outside
    pictures = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
    with Image.open(io.BytesIO(pictures[0])) as image:
        np.testing.assert_array_equal(np.asarray(image), sheet)
    for picture in pictures[1:]:
        with Image.open(io.BytesIO(picture)) as image:
            assert min(image.size) > 300


def test_without_matplotlib_there_are_no_charts(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert page.bars("Bars", {"ours": {"Male": 0.5}}) == []
    assert "pip install faceattr_jax[evaluation]" in caplog.text
