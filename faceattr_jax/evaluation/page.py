"""A report for people, once as Markdown and once as one HTML file that holds its pictures and loads nothing."""

import base64
import dataclasses
import html
import io
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faceattr_jax import files
from faceattr_jax.evaluation import report

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .25em .7em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; }
img { max-width: 100%; image-rendering: auto; }
h2 { margin-top: 2em; }
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Cells are text, numbers already rounded."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """png: of a chart or a grid, in HTML alone. says: what it shows, for those who cannot see it."""

    png: bytes
    says: str


@dataclasses.dataclass(frozen=True, eq=False)
class Bullets:
    lines: Sequence[str]


Block = str | Table | Picture | Bullets
"""Text is a paragraph, or with a leading "# " or "## " a heading."""


def markdown(blocks: Sequence[Block]) -> str:
    """All blocks but the pictures, and the headings of what is nothing but pictures."""
    parts = []
    for block, following in itertools.pairwise([*(b for b in blocks if not isinstance(b, Picture)), "# end"]):
        if isinstance(block, Table):
            parts.append(report.table(block.header, block.rows))
        elif isinstance(block, Bullets):
            parts.append(report.bullets(block.lines))
        elif not (_level(block) and isinstance(following, str) and 0 < _level(following) <= _level(block)):
            parts.append(block)
    return "\n\n".join(parts) + "\n"


def _level(text: str) -> int:
    """Of a heading; 0 of a paragraph."""
    return len(text) - len(text.lstrip("#"))


def page(blocks: Sequence[Block]) -> str:
    """All blocks; pictures are inside the file."""
    title = next((block[2:] for block in blocks if isinstance(block, str) and block.startswith("# ")), "Report")
    body = "\n".join(_element(block) for block in blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n'
    )


def _element(block: Block) -> str:
    if isinstance(block, Table):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.header)
        rows = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in block.rows
        )
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.png).decode()
        return f'<p><img alt="{html.escape(block.says)}" src="data:image/png;base64,{data}"></p>'
    if isinstance(block, Bullets):
        return "<ul>\n" + "\n".join(f"<li>{html.escape(line)}</li>" for line in block.lines) + "\n</ul>"
    level = _level(block)
    tag = f"h{level}" if level else "p"
    return f"<{tag}>{html.escape(block[level:].strip())}</{tag}>"


def grid(sheet: np.ndarray, says: str) -> Picture:
    """A picture uint8 (H, W, 3), such as `grids.compose` makes."""
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    return Picture(file.getvalue(), says)


# Charts: a list of one. matplotlib is part of faceattr_jax[evaluation]; without it there is none.


def save(chart: Sequence[Picture], path: Path) -> list[Path]:
    """Write a chart to a file of its own, if there is one; returns the paths written."""
    for picture in chart:
        files.write(path, picture.png)
    return [path] * len(chart)


def bars(title: str, series: Mapping[str, Mapping[str, float]], unit: str = "") -> list[Picture]:
    """Groups of bars: series -> label -> height; what a series lacks is left out."""
    labels = list(dict.fromkeys(label for values in series.values() for label in values))

    def paint(axes: Any) -> None:
        width = 0.8 / len(series)
        for i, (name, values) in enumerate(series.items()):
            places = [labels.index(label) + (i - (len(series) - 1) / 2) * width for label in values]
            drawn = axes.bar(places, list(values.values()), width, label=name)
            axes.bar_label(drawn, fmt="%.2f", fontsize=7, rotation=90, padding=2)
        axes.set_xticks(range(len(labels)), [label.replace("_", " ") for label in labels], rotation=35, ha="right")
        axes.set_ylabel(unit)
        axes.margins(y=0.2)
        if len(series) > 1:
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside the bars

    legend = 2.5 if len(series) > 1 else 0.0
    return _chart(title, paint, max(6.0, 1.5 + 0.35 * len(labels) * max(2, len(series))) + legend)


def boxes(title: str, sets: Mapping[str, np.ndarray], unit: str = "") -> list[Picture]:
    """A box for each set: quartiles, whiskers to 1.5 times their range; values beyond are not drawn."""

    def paint(axes: Any) -> None:
        axes.boxplot(list(sets.values()), showfliers=False)
        axes.set_xticks(range(1, 1 + len(sets)), [name.replace("_", " ") for name in sets], rotation=20, ha="right")
        axes.set_ylabel(unit)

    return _chart(title, paint, max(4.0, 1.2 * len(sets)))


def curves(
    title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, points: Sequence[str] = ()
) -> list[Picture]:
    """name -> (xs, ys); points: what each of a line's points is called."""

    def paint(axes: Any) -> None:
        for name, (xs, ys) in lines.items():
            axes.plot(xs, ys, marker="o", label=name)
            for label, a, b in zip(points, xs, ys, strict=False):
                axes.annotate(label, (a, b), textcoords="offset points", xytext=(4, 4), fontsize=7)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if any(lines):
            axes.legend(fontsize=8)

    return _chart(title, paint, 5.5)


def _chart(title: str, paint: Callable[[Any], None], width: float) -> list[Picture]:
    """The chart as a block of a page, or nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logging.getLogger(__name__).warning("no chart of %s: pip install faceattr_jax[evaluation]", title)
        return []
    figure = Figure(figsize=(min(width, 14.0), 4.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    paint(axes)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return [Picture(file.getvalue(), title)]
