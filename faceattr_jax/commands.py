"""What each verb of `faceattr` does with its parsed arguments: it imports the library when it runs, not before.

A command is named as its verb, and often so is the library's function that it calls. It returns the exit code, or None
for 0.
"""

import argparse
import json
import threading

from faceattr_jax import files
from faceattr_jax.errors import UserError

STOPPED = 75  # EX_TEMPFAIL: the same command goes on from there


def train(a: argparse.Namespace) -> int:
    from faceattr_jax.training import distributed
    from faceattr_jax.training.loop import train

    distributed.initialize(a.coordinator, a.processes, a.process)
    stopped = threading.Event()
    train(a.config, a.workdir, stopped=stopped)
    return STOPPED if stopped.is_set() else 0


def evaluate(a: argparse.Namespace) -> None:
    common = {"judge": a.judge, "data": a.data, "images": a.images, "strength": a.strength}
    runs = [*a.workdir, *a.runs]
    if not runs:
        raise UserError("say which run: faceattr evaluate RUN, or --workdir=RUN.")
    if runs[0].is_file() and not a.out:
        raise UserError(f"{runs[0]}: this is a file, so say where the report is to go: --out=FOLDER.")
    out = a.out or runs[0] / f"evaluation{f'_{a.protocol}' if a.protocol else ''}"
    if a.protocol:
        from faceattr_jax.evaluation import papers

        summary = papers.evaluate(
            a.protocol, runs, out, recognizer=a.recognizer, split=a.split, curve=a.curve, **common
        )
    elif len(runs) > 1 or a.recognizer:
        raise UserError("several runs and --recognizer belong to a --protocol; `faceattr compare` compares runs.")
    else:
        from faceattr_jax.evaluation.run import evaluate

        summary = evaluate(runs[0], out, split=a.split or "test", curve=a.curve, **common)
    for name, value in summary.items():
        if isinstance(value, float):
            print(f"{name:36} {value:.4f}")
    print(f"{out / 'evaluation.json'}")


def compare(a: argparse.Namespace) -> None:
    from faceattr_jax.evaluation.compare import compare

    found = compare(
        a.runs, a.out, judge=a.judge, data=a.data, split=a.split, images=a.images, strength=a.strength
    )  # fmt: skip
    for run in found["runs"]:
        print(run["model"])
        for name, value in run["shared"].items():
            if value is not None:
                print(f"  {name:34} {value:.4f}")
    print(f"{a.out / 'comparison.json'}")


def ask(a: argparse.Namespace) -> None:
    from faceattr_jax.study import ask

    key = ask(a.runs, a.out, faces=a.faces, seed=a.seed, data=a.data, split=a.split, strength=a.strength)
    print(f"{a.out}: for participants\n{key}: for yourself; it says who made which picture")


def count(a: argparse.Namespace) -> None:
    from faceattr_jax.study import count, table

    found = count(a.key, a.answers)
    if a.out:
        files.write(a.out, json.dumps(found, indent=2) + "\n")
    print(table(found))


def augment(a: argparse.Namespace) -> int:
    from faceattr_jax.augmentation import augment, table

    found = augment(a.editor, a.config, a.out, data=a.data, seeds=a.seeds, strength=a.strength)
    if found:
        print(table(found))
    return 0 if found else STOPPED


def edit(a: argparse.Namespace) -> None:
    from faceattr_jax.editor import load
    from faceattr_jax.photos import Change, edit_files, read_face

    editor = load(a.checkpoint)
    reference = read_face(editor, a.reference) if a.reference else None
    judge = load(a.judge) if a.judge else None
    options = {name: getattr(a, name) for name in ("face", "landmarks", "aligned", "strip", "keep_exif")}
    change = Change(editor, a.set, a.strength, a.source, judge, reference)
    for path in edit_files(change, a.images, a.out, **options):
        print(path)


def slide(a: argparse.Namespace) -> None:
    from faceattr_jax.editor import load
    from faceattr_jax.photos import slide_files

    options = {"strengths": a.strengths, "source": a.source, "judge": load(a.judge) if a.judge else None}
    for path in slide_files(load(a.checkpoint), a.images, a.attribute, a.out, **options):
        print(path)


def generate(a: argparse.Namespace) -> None:
    from faceattr_jax.editor import load
    from faceattr_jax.photos import generate_file

    generate_file(load(a.checkpoint), a.set, a.out, count=a.n, seed=a.seed, data=a.data)
    print(a.out)


def swap(a: argparse.Namespace) -> None:
    from faceattr_jax.editor import load
    from faceattr_jax.photos import swap_files

    steps = {"linear": a.linear, "matrix": a.matrix}
    for path in swap_files(load(a.checkpoint), a.source, a.references, a.attributes, a.out, **steps):
        print(path)


def convert(a: argparse.Namespace) -> None:
    from faceattr_jax.convert import convert

    config = convert(a.files, a.to, a.overrides)
    print(f"{a.to}: {config.method}, {config.image_size} px, cut with {config.crop}; {', '.join(config.attributes)}")


def export(a: argparse.Namespace) -> None:
    from faceattr_jax.export import to_onnx, to_safetensors, to_stablehlo

    if a.to == "safetensors":
        if a.function:
            raise UserError("--function is for --to=stablehlo and --to=onnx; safetensors files hold all of a model.")
        held = to_safetensors(a.checkpoint, a.file, half=a.half)
    else:
        if a.half:
            raise UserError(
                f"--half is for --to=safetensors; {a.to} files are checked against the model to more digits."
            )
        held = (to_onnx if a.to == "onnx" else to_stablehlo)(a.checkpoint, a.file, a.function)
    print(f"{a.file}: {held}")


def card(a: argparse.Namespace) -> None:
    from faceattr_jax.card import card

    files.check_new(*[a.out] if a.out else [])
    text = card(a.checkpoint)
    if a.out:
        files.write(a.out, text)
    print(a.out or text)


def check(a: argparse.Namespace) -> None:
    from faceattr_jax.data.check import check

    report = check(a.path)
    print(report.format())
    if report.problems:
        raise UserError(f"{a.path}: {len(report.problems)} problems, listed above.")


def label(a: argparse.Namespace) -> None:
    from faceattr_jax.editor import load
    from faceattr_jax.photos import label_folder

    rows, problems = label_folder(load(a.judge), a.path.expanduser(), a.out, crop=a.crop, probabilities=a.probabilities)
    for problem in problems:
        print(f"problem: {problem}")
    if not rows:
        raise UserError(f"{a.out}: not written, because none of the pictures can be read; the problems are above.")
    print(f"{a.out}: {rows:,} pictures")
    if problems:
        raise UserError(f"{a.out}: written without {len(problems)} picture{'s' * (len(problems) > 1)}, listed above.")


def prepare(a: argparse.Namespace) -> None:
    from faceattr_jax.data.prepare import prepare

    print(prepare(a.path, a.out, size=a.size, crop=a.crop).format())


def tfds(a: argparse.Namespace) -> None:
    from faceattr_jax.data import tfds_celeba

    if a.download:
        tfds_celeba.download_tfds(a.data_dir)
    else:
        tfds_celeba.write_tfds(a.folder, a.data_dir, file_format=a.file_format)
    print(a.data_dir)


def benchmark(a: argparse.Namespace) -> None:
    from faceattr_jax import benchmark, scaling

    if a.scaling is not None:
        if a.against:
            raise UserError("--against and --scaling are two measurements; ask for one at a time.")
        found = scaling.scaling(a.config, scaling.points(a.config, a.scaling), rounds=a.rounds)
        print(scaling.table(found))
        for path in scaling.plot(found, a.out.with_suffix("")) if a.out else ():
            print(path)
    else:
        oracle = benchmark.torch_oracle(a.config) if a.against else None  # before minutes are spent
        found = benchmark.benchmark(a.config, rounds=a.rounds)
        if oracle:
            found["torch"] = oracle.benchmark(a.config, a.rounds)
        print(benchmark.table(found))
    if a.out:
        files.write(a.out, json.dumps(found, indent=2))


def demo(a: argparse.Namespace) -> None:
    from faceattr_jax.demo import serve
    from faceattr_jax.editor import load

    serve(load(a.checkpoint), a.host, a.port)
