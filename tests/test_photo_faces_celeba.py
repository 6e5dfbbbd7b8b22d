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


def test_photos_made_of_faces(celeba_mini):
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
    names = editor.attributes
    labels = source.table.select(names)[chosen]
    columns = [judge.attributes.index(name) for name in names]
    missed, others, errors = list[str](), 0, {kind: list[float]() for kind in KINDS}
    kinds, hits = list[str](), list[np.ndarray]()  # of each face found; (2, n) bool: in the photo, in the aligned crop
    free = list[np.ndarray]()  # the same where nothing is edited: photo, aligned crop, its reconstruction
    start = time.process_time()
    for number in range(PHOTOS):
        made = scene(number, pictures)
        before, found = np.asarray(made.photo), detect(made.photo)
        seen = 0
        for index, matrix in made.faces:
            eyes = 38.8 * np.hypot(*matrix[:, 0])
            truth = _there(align.SHAPE, matrix)
            mine = [f for f in found if np.linalg.norm(f.landmarks - truth, axis=1).mean() < eyes / 2]
            if not mine:
                missed.append(f"photo {number} ({made.kind})")
                continue
            seen, face = seen + 1, mine[0].landmarks
            upright = [f.landmarks for f in detect(pictures[index])]
            if known := sorted(upright, key=lambda points: np.abs(points - align.SHAPE).mean())[:1]:
                error = np.linalg.norm(face - _there(known[0], matrix), axis=1).mean()
                errors[made.kind].append(error / eyes)
            aligned = crops.crop(pictures[index], editor.crop, editor.size)
            left, top, right, bottom = align.bounds(crops.placement(editor.crop, editor.size, face), editor.size)
            # What the judge sees in the photo: the known place of the face, cut as the judge was trained.
            place = crops.placement(judge.crop, judge.size, truth)
            views = [align.cut(made.photo, place, judge.size, crops.preset(judge.crop).resample), aligned]
            views.append(np.asarray(to_uint8(editor.reconstruct(aligned))))
            wanted = (1 - labels[index]).astype(int)
            for name, value in zip(names, wanted.tolist(), strict=True):  # each alone; the rest the editor reads
                after = edit_photo(Change(editor, f"{name}={value}", strength), made.photo, [face])
                changed = (np.asarray(after) != before).any(axis=-1)
                changed[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = False
                assert not changed.any()
                views.append(align.cut(after, place, judge.size, crops.preset(judge.crop).resample))
                views.append(np.asarray(to_uint8(editor.edit(aligned, {name: value}, strength=strength))))
            read = (np.asarray(judge.classify(np.stack(views)))[:, columns] > 0.5) == wanted
            free.append(read[:3])
            hits.append(np.stack([np.diagonal(read[3::2]), np.diagonal(read[4::2])]))
            kinds.append(made.kind)
        others += len(found) - seen
        if number == 0:
            same = edit_photo(Change(editor, "Eyeglasses=1", 0.0), made.photo, [found[0].landmarks])
            assert np.abs(np.asarray(same).astype(int) - before).max() <= 1
    seconds = time.process_time() - start
    every = np.concatenate([e for e in errors.values() if e])
    count = len(hits) + len(missed)
    print(
        f"\n{count} faces in {PHOTOS} photos, {seconds:.0f} s of CPU: {len(missed)} not found {missed}; {others} others"
    )
    print(f"  landmark error / eye distance: mean {every.mean():.3f}, median {np.median(every):.3f}, "
          f"90 % {np.quantile(every, 0.9):.3f}, within 3 % {np.mean(every <= 0.03):.2f}")  # fmt: skip
    found_, none = np.array(hits), np.array(free).mean(axis=(0, 2))
    sums = found_.sum(axis=2)  # (faces, 2)
    draws = np.random.default_rng(0).integers(0, len(sums), (2000, len(sums)))
    low, high = np.quantile(np.divide(*np.moveaxis(sums[draws].sum(axis=1), 1, 0)), (0.025, 0.975))
    ratio = sums[:, 0].sum() / sums[:, 1].sum()
    print(f"  judge, {found_[:, 0].size} edits: {found_[:, 0].mean():.3f} in photos, {found_[:, 1].mean():.3f} in "
          f"aligned crops, ratio {ratio:.3f} (95 % over faces {low:.3f} to {high:.3f}); unedited {none[0]:.3f}, "
          f"{none[1]:.3f}, reconstructed {none[2]:.3f}")  # fmt: skip
    for name, (here, there) in zip(names, np.moveaxis(found_.mean(axis=0), 0, 1), strict=True):
        print(f"  {name:20} {here:.3f} {there:.3f}")
    for kind in KINDS:
        own = sums[np.array(kinds) == kind].sum(axis=0)
        print(f"  {kind:8} ratio {own[0] / own[1]:.3f}, landmark error {np.mean(errors[kind]):.3f}")
    assert len(missed) <= 0.02 * count
    assert every.mean() <= 0.03
    assert ratio >= 0.9


def _there(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Landmarks of a picture in the photo to which `matrix` brings it."""
    return np.column_stack([points + 0.5, np.ones(5)]) @ matrix.T - 0.5


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
