"""Photographs made of CelebA's faces: found, edited and pasted back by a trained editor, and judged.

It takes minutes and two trained models: `FACEATTR_EDITOR=runs/mini FACEATTR_JUDGE=runs/mini_judge ./launch/test.sh
-n 0 -s -m slow tests/test_photo_faces_celeba.py`. FACEATTR_STRENGTH is that of the edits (2), FACEATTR_PHOTOS their
number (60).
"""

import os
import resource
import time
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import faceattr_jax as fj
from faceattr_jax.data import align, crops
from faceattr_jax.data.images import to_uint8
from faceattr_jax.data.source import open_source
from faceattr_jax.photos import Change, edit_files, edit_photo
from faceattr_jax.pretrained.detector import yunet

pytestmark = pytest.mark.slow
PHOTOS = int(os.environ.get("FACEATTR_PHOTOS", "60"))


class Scene(NamedTuple):
    """A photo, and of each of its faces the picture that it is of and the matrix that put it there."""

    kind: str
    photo: Image.Image
    faces: list[tuple[int, np.ndarray]]


KINDS = ("rotated", "small", "large", "border", "two")


def scene(number: int, pictures: list[Image.Image]) -> Scene:
    """An aligned face or two on a background of colours, 1200 x 900."""
    rng, kind = np.random.default_rng(number), KINDS[number % len(KINDS)]
    width, height = 1200, 900
    photo = Image.fromarray(rng.integers(40, 200, (9, 12, 3), dtype=np.uint8)).resize((width, height), 3)
    low, high = {"small": (0.5, 0.9), "large": (3.0, 3.8)}.get(kind, (1.2, 2.2))
    faces = []
    for i in range(2 if kind == "two" else 1):
        angle = rng.uniform(-0.5, 0.5) if kind in ("rotated", "two") else rng.uniform(-0.15, 0.15)
        scale = np.exp(rng.uniform(np.log(low), np.log(high)))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = rng.uniform((450, 350), (750, 550))
        if kind == "two":
            middle = np.array([300 + 600 * i, rng.uniform(350, 550)])
        elif kind == "border":  # the crop goes beyond the photo, eyes and mouth do not
            middle[0] = rng.choice([45 * scale, width - 45 * scale])
        matrix = np.column_stack([turn, middle - turn @ align.SHAPE.mean(axis=0)])
        index = (2 * number + i) % len(pictures)
        cover = align.warp(Image.new("L", pictures[index].size, 255), matrix, (width, height))
        photo.paste(align.warp(pictures[index], matrix, (width, height)), mask=cover.point(lambda v: 255 * (v > 254)))
        faces.append((index, matrix))
    return Scene(kind, photo, faces)


def test_photos_made_of_faces(celeba_mini, tmp_path):
    runs = [os.environ.get(f"FACEATTR_{name}") for name in ("EDITOR", "JUDGE")]
    if not all(runs):
        pytest.skip("needs FACEATTR_EDITOR and FACEATTR_JUDGE, the workdirs of two runs")
    editor, judge = (fj.load(run) for run in runs)
    assert (editor.crop, editor.size) == (judge.crop, judge.size)  # the judge looks at the editor's own pictures
    strength = float(os.environ.get("FACEATTR_STRENGTH", "2"))
    detect = yunet()
    source = open_source(str(celeba_mini), size=editor.size, crop=editor.crop)
    chosen = source.table.indices("test")[:: max(1, 1500 // (2 * PHOTOS))][: 2 * PHOTOS]
    pictures = [Image.open(celeba_mini / "img_align_celeba" / source.table.names[i]).convert("RGB") for i in chosen]
    upright = {}

    def reference(index: int) -> np.ndarray | None:
        if index not in upright:
            seen = detect(pictures[index])
            nearest = min(seen, key=lambda f: np.abs(f.landmarks - align.SHAPE).mean(), default=None)
            upright[index] = None if nearest is None else nearest.landmarks
        return upright[index]

    names = editor.attributes
    labels = source.table.select(names)[chosen]
    asked, errors, missed, wrong, hits = 0, {kind: [] for kind in KINDS}, 0, 0, np.zeros(2)
    count, alignment = 0, []
    for number in range(PHOTOS):
        made = scene(number, pictures)
        found = detect(made.photo)
        for index, matrix in made.faces:
            count += 1
            eyes = 38.8 * np.hypot(*matrix[:, 0])
            truth = np.column_stack([align.SHAPE + 0.5, np.ones(5)]) @ matrix.T - 0.5
            mine = [f for f in found if np.linalg.norm(f.landmarks - truth, axis=1).mean() < eyes / 2]
            if not mine:
                missed += 1
                continue
            face = mine[0].landmarks
            known = reference(index)
            if known is not None:
                there = np.column_stack([known + 0.5, np.ones(5)]) @ matrix.T - 0.5
                errors[made.kind].append(np.linalg.norm(face - there, axis=1).mean() / eyes)
            alignment.append(np.linalg.norm(face - truth, axis=1).mean() / eyes)
            # One attribute inverted, another for each face; what else a face has the editor reads itself.
            name = names[(number * 5 + index) % len(names)]
            value = int(1 - labels[index][names.index(name)])
            after = edit_photo(Change(editor, f"{name}={value}", strength), made.photo, [face])
            before, later = np.asarray(made.photo), np.asarray(after)
            left, top, right, bottom = align.bounds(crops.placement(editor.crop, editor.size, face), editor.size)
            untouched = np.ones(before.shape[:2], bool)
            untouched[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = False
            np.testing.assert_array_equal(later[untouched], before[untouched])
            aligned = crops.crop(pictures[index], editor.crop, editor.size)
            edit = editor.edit(aligned, {name: value}, strength=strength)
            column = judge.attributes.index(name)
            # What the judge sees in the photo: the known place of the face, cut as the judge was trained.
            place = crops.placement(judge.crop, judge.size, truth)
            pasted = align.cut(after, place, judge.size, crops.preset(judge.crop).resample)
            for i, image in enumerate((pasted, np.asarray(to_uint8(edit)))):
                hits[i] += (float(judge.classify(image)[column]) > 0.5) == value
            asked += 1
        wrong += max(0, len(found) - len(made.faces))
        so_far = np.mean([e for kind in errors.values() for e in kind])
        print(f"{number + 1}: {count} faces, {missed} missed, error {so_far:.3f}, hits {hits} of {asked}", flush=True)
        if number == 0:
            same = edit_photo(Change(editor, "Eyeglasses=1", 0.0), made.photo, [found[0].landmarks])
            assert np.abs(np.asarray(same).astype(int) - np.asarray(made.photo)).max() <= 1
    every = np.concatenate([e for e in errors.values() if e])
    print(f"\n{count} faces in {PHOTOS} photos: {missed} not found, {wrong} seen where there is none")
    for kind, values in errors.items():
        print(f"  {kind:8} landmark error / eye distance: mean {np.mean(values):.3f}, median {np.median(values):.3f}")
    print(f"  all      mean {every.mean():.3f}, median {np.median(every):.3f}, 90 % {np.quantile(every, 0.9):.3f}, "
          f"within 3 % {np.mean(every <= 0.03):.2f}; from CelebA's mean shape {np.mean(alignment):.3f}")  # fmt: skip
    ratio = hits[0] / hits[1]
    print(
        f"  judge: {hits[0] / asked:.3f} in photos, {hits[1] / asked:.3f} in aligned crops, ratio {ratio:.3f} ({asked})"
    )
    assert missed <= 0.02 * count
    assert ratio >= 0.9


def test_twelve_megapixels(celeba_mini, tmp_path):
    run = os.environ.get("FACEATTR_EDITOR")
    if not run:
        pytest.skip("needs FACEATTR_EDITOR, the workdir of a run")
    editor = fj.load(run)
    name = "000001.jpg"
    picture = Image.open(celeba_mini / "img_align_celeba" / name).convert("RGB").resize((1424, 1744), 3)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(
        (4000, 3000), 3
    )
    photo.paste(picture, (1300, 700))
    path = tmp_path / "large.jpg"
    photo.save(path, quality=92)
    change = Change(editor, "Eyeglasses=1", 2.0)
    for out in ("first", "second.png", "third.jpg"):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, (time.perf_counter(), time.process_time())
        edit_files(change, [path], tmp_path / out)
        wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"\n{out}: {wall:.1f} s, {cpu:.1f} s of CPU, peak {peak / 2**20:.2f} GiB, {before / 2**20:.2f} before")
