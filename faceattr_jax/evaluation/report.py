"""What an evaluation found, as `evaluation.json` and `evaluation.md`."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from faceattr_jax import files
from faceattr_jax.evaluation.tally import DIRECTIONS

_PROTOCOL = (
    "Every face is inverted on one attribute at a time: adding where its label is 0, removing where it is 1. "
    "Attributes that the request rules out are set to 0 with it.",
    "Edits and reconstructions are rounded to 8 bits, as a PNG holds them, before they are judged or compared.",
    "Accuracy: the judge, at probability 0.5, finds the edited attribute as requested. Means over attributes and "
    "directions weigh each of them alike.",
    "Untouched change: share of (image, untouched attribute) pairs that the judge sees differently than on the "
    "input, of all attributes that it and the data know. Untouched error: than the input's labels say (STGAN's Err).",
    "copy returns its input, so its accuracy is the judge's own error on the faces; untrained is the same model "
    "with fresh parameters.",
    "PSNR and SSIM (11x11 Gaussian, sigma 1.5, RGB) of decoding a face with its own labels; means over images.",
)
_REGIONS = (
    "Region error ratio: sum |edit - truth| / sum |input - truth| inside the region of the edit; copying scores 1. "
    "The truth is the drawn face itself with the other attribute, in the style nearest to the edit. Floor: the "
    "same for the pixelwise median over styles, the best of an editor that cannot know the style. Drift: mean "
    "|edit - input| outside the region, in 8-bit levels."
)

_EXEMPLAR = (
    "Every face swaps attributes with references, faces of the other label, dealt by a seed; the judge should find "
    "the reference's value in the result. reference returns the reference itself. The truth is the drawn face in the "
    "reference's own style, so there is no floor. Drift ratio: mean |result - input| outside the region over that of "
    "the model's plain reconstruction. Style: Spearman's correlation, with its 95 % interval, between a reading of "
    "the reference and of the result, over faces that receive the attribute; tone is the relative change of "
    "brightness in the region, extent the share of its pixels that change. Shuffled: the same with other references; "
    "ceiling: of the truth."
)

_CYCLES = "In dB against the input. The first edit goes through 8 bits; adding and removing tell which one came first."
_MASK = (
    "IoU: of mask and region, both cut at one half. Constant mask: the best of those that are the same for every face."
)
_GENERATION = (
    "Every face lends its labels to one new face, its z drawn from the prior by a seed. Accuracy: the judge finds the "
    "attributes that were asked for; balanced: both values of an attribute weigh alike. data: the faces themselves. "
    "frechet_NAME: Frechet distance to them in the features of the embedder NAME (judge: what the judge's last layer "
    "reads); of data, that of as many faces of the training split. It grows as faces get fewer: compare equal numbers. "
    "Pixel variance: squared deviations from the mean face of the same labels inside the face region, an ellipse "
    "around the mean landmarks (for a crop that places no face, the whole picture), as a share of the data's. R2 of z: "
    "by ridge regression from the pixels of new faces at 16 px, on faces that it was not fitted to; mean over z's "
    "dimensions. An untrained decoder scores high there, and leaving rare attributes out does in plain accuracy."
)

_SLIDER = (
    "KS: Kolmogorov-Smirnov distance of the intensities that the model finds in all faces from uniform ones. "
    "Correlation: Spearman's, between the slider of a face (11 values from -1 to 1) and what the judge says of it; "
    "mean over faces. Ends: the judge finds the attribute absent at -1 and present at 1."
)
_PROBE = (
    "Balanced accuracy of a small network that learns to read attributes off the frozen latents of faces of the "
    "training split; 0.5 knows nothing."
)


def write_report(
    folder: str | os.PathLike[str],
    summary: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    protocol: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write both files, each in one piece: a reader never sees half of one.

    Args:
      folder: made if missing.
      summary: the flat numbers (`editing.summarize`), the top level of the JSON.
      evaluation: all of them (`editing.evaluate_editors`, and as "judge" `labelling.evaluate_judge`).
      protocol: what else makes the numbers comparable, in words: data, split, crop, resize, format, config hash.
      curve: rows of `editing.strength_curve`.
    """
    folder = Path(folder)
    tree = {**summary, "protocol": dict(protocol), "evaluation": evaluation, "strength_curve": list(curve)}
    files.write(folder / "evaluation.json", json.dumps(tree, indent=2, allow_nan=False) + "\n")
    files.write(folder / "evaluation.md", markdown(summary, evaluation, protocol=protocol, curve=curve))


def markdown(
    summary: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    protocol: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The report as Markdown: tables with a column or row per editor, the protocol, the notes."""
    editors, strength = evaluation["editors"], evaluation["strength"]
    names = list(editors)
    parts = [
        "# Attribute editing",
        f"{evaluation['images']} faces, strength {strength:g}. "
        f"Mean accuracy **{show(summary['attribute_accuracy'])}**, "
        f"worst {show(summary['attribute_accuracy_worst'])} ({summary['attribute_accuracy_worst_which']}).",
        f"## Accuracy of single edits at strength {strength:g}",
        _accuracy_table(editors),
        "## What else the edits change",
        table(
            ["", "untouched change", "untouched error", "mean abs. change", "PSNR", "SSIM"],
            [
                [
                    name,
                    show(e["untouched_change"]),
                    show(e["untouched_error"]),
                    show(e["change"], 2),
                    show(e["reconstruction"]["psnr"], 2),
                    show(e["reconstruction"]["ssim"]),
                ]
                for name, e in editors.items()
            ],
        ),
    ]
    if editors[names[0]]["region"]:
        parts += ["## Against the drawn truth", _region_table(editors), _REGIONS]
    if "exemplar" in editors[names[0]]:
        parts += ["## By exemplar", _exemplar_table(editors), _EXEMPLAR]
    if "cyclic_psnr" in evaluation:
        rows = [[name, *(show(cells[d], 2) for d in DIRECTIONS)] for name, cells in evaluation["cyclic_psnr"].items()]
        parts += ["## Inverted and inverted back: PSNR", table(["attribute", *DIRECTIONS], rows), _CYCLES]
    if "mask" in evaluation:
        rows = [[name.replace("_", " "), show(value)] for name, value in evaluation["mask"].items()]
        parts += ["## The mask against the drawn truth", table(["", "mean over faces"], rows), _MASK]
    if "generation" in evaluation:
        parts += ["## New faces", *_generation_tables(evaluation["generation"]), _GENERATION]
    if "slider" in evaluation:
        found = evaluation["slider"]
        parts += [f"## Sliders ({found['faces']} faces)", _slider_table(found["sliders"]), _SLIDER]
    if "probe" in evaluation:
        found = evaluation["probe"]
        parts += [
            f"## Attributes in the latent (learned from {found['faces']} faces)",
            _probe_table(found["models"]),
            _PROBE,
        ]
    if editors[names[0]]["multiple"]:
        parts += [
            "## Several attributes at once: all right (mean over them)",
            table(
                ["inverted", "faces", *names],
                [
                    [" + ".join(rows[0]["attributes"]), str(rows[0]["faces"])]
                    + [f"{show(row['accuracy'])} ({show(row['mean_accuracy'])})" for row in rows]
                    for rows in zip(*(e["multiple"] for e in editors.values()), strict=True)
                ],
            ),
        ]
    if curve:
        keys = [key for key in curve[0] if key != "strength"]
        rows = [[f"{row['strength']:g}", *(show(row[key]) for key in keys)] for row in curve]
        parts += ["## By strength", table(["strength", *(key.replace("_", " ") for key in keys)], rows)]
    measures = ("balanced_accuracy", "accuracy", "majority")
    judged = [[a, *(show(row[m]) for m in measures)] for a, row in evaluation["judge"].items()]
    mean = ["mean of those inverted", show(summary["judge_balanced_accuracy"]), "", ""]
    fine_print = [*_PROTOCOL, *(f"{key}: {value}" for key, value in protocol.items())]
    fine_print += [f"judge {key}: {value}" for key, value in summary["judge"].items()]
    parts += [
        "## The judge on the unedited faces of the whole split",
        table(["attribute", "balanced accuracy", "accuracy", "commoner class"], [*judged, mean]),
        "## Protocol",
        bullets(fine_print),
    ]
    if evaluation["notes"]:
        parts += ["## Notes", bullets(evaluation["notes"])]
    return "\n\n".join(parts) + "\n"


def _accuracy_table(editors: Mapping[str, Any]) -> str:
    names, first = list(editors), next(iter(editors.values()))
    rows = [
        [attribute]
        + [
            cell
            for d in DIRECTIONS
            for cell in (
                str(cells[d]["faces"]),
                *(show(editors[name]["single"][attribute][d]["accuracy"]) for name in names),
            )
        ]
        for attribute, cells in first["single"].items()
    ]
    mean = ["mean"] + [x for d in DIRECTIONS for x in ("", *(show(editors[name][d]) for name in names))]
    header = ["attribute"] + [x for d in DIRECTIONS for x in (f"{d}: faces", *names)]
    return table(header, [*rows, mean])


def _region_table(editors: Mapping[str, Any]) -> str:
    first = next(iter(editors.values()))

    def row(label: str, direction: str, faces: str, regions: Sequence[Mapping[str, Any]]) -> list[str]:
        drifts = [show(region["drift"], 2) for region in regions]
        return [label, direction, faces, *(show(r["ratio"]) for r in regions), show(regions[0]["floor"]), *drifts]

    rows = []
    for attribute in first["single"]:
        for direction in DIRECTIONS:
            regions = [e["single"][attribute][direction]["region"] for e in editors.values()]
            rows.append(row(attribute, direction, str(regions[0]["faces"]), regions))
    rows.append(row("mean", "", "", [e["region"] for e in editors.values()]))
    header = ["attribute", "direction", "faces", *(f"{name}: ratio" for name in editors), "floor"]
    return table([*header, *(f"{name}: drift" for name in editors)], rows)


def _exemplar_table(editors: Mapping[str, Any]) -> str:
    found = {name: editor["exemplar"] for name, editor in editors.items()}
    rows = [["drift ratio", "", *(show(e["drift_ratio"]) for e in found.values()), "", ""]]
    for attribute, readings in next(iter(found.values()))["style"].items():
        for reading, first in readings.items():
            each = [e["style"][attribute][reading] for e in found.values()]
            cells = [f"{show(c['correlation'])} [{show(c['low'])}, {show(c['high'])}]" for c in each]
            rest = [show(first["shuffled"]), show(first["ceiling"])]
            rows.append([f"{attribute}: {reading}", str(first["faces"]), *cells, *rest])
    return table(["style", "faces", *found, "model, shuffled", "ceiling"], rows)


def _generation_tables(generation: Mapping[str, Any]) -> list[str]:
    rows = generation["generators"]
    embedders = list(rows["data"]["frechet"])
    header = ["", "accuracy", "balanced", *(f"frechet_{e}" for e in embedders), "pixel variance", "R2 of z"]
    numbers = [
        [
            name,
            show(row["accuracy"]),
            show(row["balanced_accuracy"]),
            *(show(row["frechet"][e], 2) for e in embedders),
            show(row["variance_ratio"]),
            show(row["latent_r2"]),
        ]
        for name, row in rows.items()
    ]
    each = [
        [attribute, show(cell["rate"])]
        + [show(row["attributes"][attribute][m]) for row in rows.values() for m in ("accuracy", "balanced_accuracy")]
        for attribute, cell in rows["data"]["attributes"].items()
    ]
    columns = [f"{name}: {m}" for name in rows for m in ("accuracy", "balanced")]
    counted = (
        f"{generation['images']} faces, {generation['same_labels']} of which share their labels with others; the face "
        f"region is {generation['region_share']:.0%} of the picture; {generation['probes']} faces for R2."
    )
    return [table(header, numbers), table(["attribute", "rate", *columns], each), counted]


def _slider_table(sliders: Mapping[str, Any]) -> str:
    measures = list(next(iter(next(iter(sliders.values())).values())))
    rows = [
        [attribute, *(show(cells[attribute][measure]) for measure in measures for cells in sliders.values())]
        for attribute in next(iter(sliders.values()))
    ]
    return table(["attribute", *(f"{name}: {measure}" for measure in measures for name in sliders)], rows)


def _probe_table(models: Mapping[str, Any]) -> str:
    rows = [
        [attribute, *(show(row["attributes"][attribute]) for row in models.values())]
        for attribute in next(iter(models.values()))["attributes"]
    ]
    means = ["mean", *(show(row["balanced_accuracy"]) for row in models.values())]
    return table(["attribute", *models], [*rows, means])


def scores(title: str, rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """A page of one table. rows: name -> measure -> number, of the same measures each."""
    measures = list(next(iter(rows.values())))
    cells = [[name, *(show(row[measure]) for measure in measures)] for name, row in rows.items()]
    return f"# {title}\n\n{table(['', *(measure.replace('_', ' ') for measure in measures)], cells)}\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """In Markdown."""
    return "\n".join(f"* {line}" for line in lines)


def show(value: float | None, digits: int = 3) -> str:
    """A number for a person; "-" for what was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"
