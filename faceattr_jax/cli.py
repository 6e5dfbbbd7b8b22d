"""`faceattr VERB`: parses flags and calls the library.

A mistake in a flag, a file or an attribute is one sentence on standard error and exit code 2; 75 is that of a training
that SIGTERM stopped, saved, before its end.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from faceattr_jax import DEFAULT_MODEL, commands, cpu
from faceattr_jax.commands import STOPPED
from faceattr_jax.errors import UserError, nearest


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("faceattr_jax").setLevel(logging.INFO)
    try:
        arguments = parse(argv)
        if arguments.compiles:
            cpu.keep_freed()
            cpu.convolve_by_eigen()
            from faceattr_jax.training import compilation_cache

            compilation_cache.enable(compilation_cache.folder())
        return arguments.run(arguments) or 0
    except UserError as error:
        print(f"faceattr: {error}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """A command's arguments, its config loaded. Raises `UserError` for one that is none; exits as argparse does."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    takes_config = hasattr(arguments, "config") or hasattr(arguments, "overrides")
    overrides = config_overrides(rest, parser, takes_config=takes_config)
    if hasattr(arguments, "config"):
        from faceattr_jax import config

        arguments.config = config.load(arguments.config, overrides)
    elif takes_config:
        arguments.overrides = overrides
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="faceattr", description=__doc__, allow_abbrev=False)
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(
        parsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
        run: Callable[[argparse.Namespace], int | None],
        text: str,
        *,
        compiles: bool = True,
    ) -> argparse.ArgumentParser:
        """A command by its own name."""
        sub = parsers.add_parser(run.__name__, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run, compiles=compiles)
        return sub

    checkpoint_help = "workdir of a run, one checkpoint in it, or a safetensors file that export wrote"
    either_help = f"{checkpoint_help}; without it {DEFAULT_MODEL}, which comes with the package"
    config_help = "NAME[:VARIANT] of a config that ships with the package, or PATH.py[:VARIANT]"

    train = verb(
        verbs, commands.train,
        "Train a model, or go on where the workdir's run stopped. "
        f"SIGTERM saves, and ends it with exit code {STOPPED}.",
    )  # fmt: skip
    train.add_argument("--config", required=True, help=f"{config_help}; --config.KEY=VALUE changes a key")
    train.add_argument("--workdir", required=True, type=Path, help="folder of the run: checkpoints, metrics, grids")
    train.add_argument(
        "--coordinator", help="HOST:PORT of process 0, for several hosts; or auto, where the cluster tells"
    )
    train.add_argument("--processes", type=int, help="number of hosts")
    train.add_argument("--process", type=int, help="this host's number, from 0")

    evaluate = verb(verbs, commands.evaluate, "Measure a trained model on a split; JSON, Markdown and pictures.")
    run_help = "workdir of the run, or one checkpoint in it; several, side by side, for a protocol of several"
    evaluate.add_argument("runs", type=Path, nargs="*", metavar="RUN", help=run_help)
    evaluate.add_argument(
        "--workdir", type=Path, nargs="+", action="extend", default=[], metavar="RUN", help="the same"
    )  # fmt: skip
    evaluate.add_argument("--protocol", default="", help="a paper's: its table, with its own numbers beside ours")
    evaluate.add_argument("--recognizer", default="", help="workdir of a face recogniser, for protocols")
    evaluate.add_argument("--out", type=Path, help="folder of the report (WORKDIR/evaluation)")
    evaluate.add_argument("--curve", action="store_true", help="accuracy over strengths, too")
    compare = verb(verbs, commands.compare, "Measure runs of any methods on the same faces; JSON, Markdown and HTML.")
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="workdir of a run, or one checkpoint in it")
    compare.add_argument("--out", type=Path, required=True, help="folder of the report")
    for sub, split, which in ((evaluate, "", "test, or the protocol's"), (compare, "test", "test")):
        sub.add_argument("--judge", default="", help="workdir of a classifier, for an editor or a restorer")
        sub.add_argument("--data", default="", help="other data than the runs' own")
        sub.add_argument("--split", default=split, help=f"train, valid, test or all ({which})")
        sub.add_argument(
            "--images", type=int, default=0, help="how many of the split (all, or as many as the protocol)"
        )
        sub.add_argument("--strength", type=float, default=1.0, help="of the edits (1: as in training)")

    study = verbs.add_parser("study", help="The papers' studies: with people, and with a classifier.").add_subparsers(
        metavar="VERB", required=True
    )
    ask = verb(study, commands.ask, "Write a questionnaire about runs' edits, a page that works offline.")
    ask.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="workdir of a run, or one checkpoint in it")
    ask.add_argument("--out", type=Path, required=True, help="PAGE.html; PAGE.key.json is written beside it")
    ask.add_argument("--faces", type=int, default=100, help="how many, each edited by every run (100, as in the paper)")
    ask.add_argument("--seed", type=int, default=0, help="of the faces, the attributes and their order")
    ask.add_argument("--split", default="test", help="train, valid, test or all (test)")
    count = verb(study, commands.count, "Make the paper's table of answer files.", compiles=False)
    count.add_argument("answers", type=Path, nargs="+", metavar="ANSWERS.json", help="what the page saves")
    count.add_argument("--key", type=Path, required=True, help="the key that ask wrote beside the page")
    count.add_argument("--out", type=Path, help="a JSON file for the numbers")
    augment = verb(
        study, commands.augment,
        "Train a classifier without and with an editor's edits of its training data; writes the table of the gain.",
    )  # fmt: skip
    augment.add_argument("editor", metavar="RUN", help=checkpoint_help)
    augment.add_argument("--config", required=True, help=f"of the classifier: {config_help}; --config.KEY=VALUE")
    augment.add_argument("--out", type=Path, required=True, help="folder for the edits, the trainings and the table")
    augment.add_argument("--seeds", type=int, default=3, help="pairs of trainings (3)")
    for sub in (ask, augment):
        sub.add_argument("--data", default="", help="other data than the runs' own")
        sub.add_argument("--strength", type=float, default=1.0, help="of the edits (1: as in training)")

    for run, text in (
        (commands.edit, "Edit faces in photos; writes NAME.edited.png, of the photo's size."),
        (commands.slide, "Slide one attribute through several strengths; writes NAME.slide.png."),
    ):
        sub = verb(verbs, run, text)
        sub.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
        sub.add_argument("--checkpoint", default=DEFAULT_MODEL, help=either_help)
        sub.add_argument(
            "--source", default="", help="attributes that the faces have, where the model misreads or cannot read them"
        )
        sub.add_argument("--judge", default="", help="workdir of a classifier that reads what the faces have")
        sub.add_argument("--out", type=Path, default=Path(), help="folder for the results (the current one)")
        if run is commands.edit:
            sub.add_argument("--set", required=True, help="such as Eyeglasses=1,Smiling=0")
            sub.add_argument("--strength", type=float, default=1.0, help="1: as in training; 2: twice that")
            sub.add_argument(
                "--reference",
                type=Path,
                metavar="IMAGE",
                help="whose face has what --set names, for a model that swaps",
            )
            sub.add_argument(
                "--face", type=_face, default="largest", metavar="N|all", help="counted from the left from 1 (largest)"
            )
            sub.add_argument(
                "--landmarks", type=_floats, default=(), metavar="X,Y,...",
                help="of eyes, nose, corners of the mouth; left ones first, as seen. Then nobody looks for faces",
            )  # fmt: skip
            sub.add_argument("--aligned", action="store_true", help="the picture is a face, cut out already")
            sub.add_argument("--strip", action="store_true", help="faces before and after, too: NAME.strip.png")
            sub.add_argument("--keep-exif", action="store_true", help="time, place and camera stay in the file")
        else:
            sub.add_argument("--attribute", required=True)
            sub.add_argument(
                "--strengths", type=_floats, default=(),
                help="such as 0,0.5,1 (0,0.5,1,1.5,2; of a model with sliders, --strengths=-1,-0.5,0,0.5,1)",
            )  # fmt: skip

    generate = verb(verbs, commands.generate, "Draw new faces with wanted attributes; writes one sheet of them.")
    generate.add_argument("--checkpoint", required=True, help=checkpoint_help)
    generate.add_argument("--set", default="", help="such as Male=1,Smiling=1; the others as people have them")
    generate.add_argument("--n", type=int, default=64, help="how many faces (64)")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--data", default="", help="whose labels the others come from (the run's own data)")
    generate.add_argument("--out", type=Path, default=Path("generated.png"), help="the sheet (generated.png)")

    swap = verb(verbs, commands.swap, "Give a face the attributes of other faces; writes NAME.swapped.png.")
    swap.add_argument("source", type=Path, metavar="SOURCE", help="picture of the face to change")
    swap.add_argument("references", nargs="+", type=Path, metavar="REFERENCE", help="one for all attributes, or each")
    swap.add_argument("--attributes", required=True, help="what to take over, such as Eyeglasses,Bangs")
    swap.add_argument("--checkpoint", required=True, help=checkpoint_help)
    swap.add_argument("--out", type=Path, default=Path(), help="folder for the result (the current one)")
    between = swap.add_mutually_exclusive_group()
    between.add_argument(
        "--linear", type=int, default=0, metavar="STEPS", help="so many steps to it; writes NAME.linear.png"
    )
    between.add_argument(
        "--matrix", type=int, default=0, metavar="STEPS",
        help="STEPS x STEPS between two or three references, or of two attributes; writes NAME.matrix.png",
    )  # fmt: skip

    convert = verb(
        verbs, commands.convert, "Make a run of weights from elsewhere, or of what export wrote.", compiles=False
    )
    convert.add_argument("files", nargs="+", type=Path, metavar="FILE", help="which program wrote it, it tells itself")
    convert.add_argument(
        "--to", required=True, type=Path, metavar="WORKDIR",
        help="new folder of the run; --config.KEY=VALUE says what no file tells: attributes, crop, image_size",
    )  # fmt: skip
    convert.set_defaults(overrides={})

    export = verb(verbs, commands.export, "Write a trained model, or the function that it is, for other programs.")
    export.add_argument("checkpoint", metavar="RUN", help=checkpoint_help)
    export.add_argument("file", type=Path, metavar="FILE", help="new file to write")
    export.add_argument(
        "--to", required=True, choices=("stablehlo", "onnx", "safetensors"),
        help="its format; the first two hold a function and are checked against the model",
    )  # fmt: skip
    export.add_argument(
        "--function", default="",
        help="of those that the model can do, edit, swap, restore, classify, embed, generate or mask (the first)",
    )  # fmt: skip
    export.add_argument("--half", action="store_true", help="safetensors of float16, half as large")

    card = verb(
        verbs, commands.card, "Write a model card: what a checkpoint is, its data, scores and limits.", compiles=False
    )
    card.add_argument("checkpoint", metavar="RUN", help=checkpoint_help)
    card.add_argument("--out", type=Path, help="Markdown file to write (standard output)")

    demo = verb(verbs, commands.demo, "Serve a web page to play with a trained model, on this computer alone.")
    demo.add_argument("--checkpoint", default=DEFAULT_MODEL, help=either_help)
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1); 0.0.0.0: for everybody")
    demo.add_argument("--port", type=int, default=7860)

    data = verbs.add_parser("data", help="Check, prepare and convert data sets.").add_subparsers(
        metavar="VERB", required=True
    )
    check = verb(data, commands.check, "List what a data set holds and everything that is wrong.", compiles=False)
    check.add_argument("path")
    label = verb(data, commands.label, "Write what a trained classifier reads off every picture of a folder.")
    label.add_argument("path", type=Path)
    label.add_argument("--judge", required=True, help="workdir of a classifier, or one checkpoint in it")
    label.add_argument("--out", required=True, type=Path, help="the CSV; beside the pictures as labels.csv it is data")
    label.add_argument("--probabilities", type=Path, help="another CSV, with the probabilities")
    label.add_argument("--crop", default="", help="crop preset, for pictures unlike the judge's (the judge's own)")
    prepare = verb(data, commands.prepare, "Decode and crop once, to an array that trains fast.", compiles=False)
    prepare.add_argument("path")
    prepare.add_argument("--out", required=True, type=Path)
    prepare.add_argument("--size", required=True, type=int, help="pixels")
    prepare.add_argument("--crop", default="center178", help="crop preset (center178)")
    tfds = verb(data, commands.tfds, "Write a folder in CelebA's layout as a standard TFDS celeb_a.", compiles=False)
    tfds.add_argument("--data-dir", required=True, type=Path, help="TFDS data_dir to write into")
    origin = tfds.add_mutually_exclusive_group(required=True)
    origin.add_argument("--from", dest="folder", type=Path, help="folder in CelebA's layout")
    origin.add_argument("--download", action="store_true", help="let TFDS fetch CelebA")
    tfds.add_argument("--file-format", default="array_record", choices=("array_record", "tfrecord"))

    benchmark = verb(verbs, commands.benchmark, "Time the phases of a config on this machine.")
    benchmark.add_argument("--config", required=True, help=config_help)
    benchmark.add_argument("--rounds", type=int, default=7, help="iterations to take the median of (7)")
    benchmark.add_argument("--out", type=Path, help="a JSON file for the numbers; charts of --scaling go beside it")
    benchmark.add_argument(
        "--scaling", nargs="*", metavar="AXIS[=N,N]",
        help="over batch, width, size and devices instead, or those named, at values that may be given",
    )  # fmt: skip
    benchmark.add_argument(
        "--against", choices=("torch",),
        help="the ratio to the PyTorch implementations of the repository's tests, in a clone: of inference, and of an "
        "iteration where they train",
    )  # fmt: skip
    return parser


def config_overrides(rest: Sequence[str], parser: argparse.ArgumentParser, *, takes_config: bool) -> dict[str, str]:
    """The --config.KEY=VALUE among the arguments that the parser does not know; anything else is refused."""
    overrides = {}
    for argument in rest:
        key, equals, value = argument.partition("=")
        if not (takes_config and key.startswith("--config.")):
            known = {flag for action in _actions(parser) for flag in action.option_strings}
            raise UserError(f"{argument}: there is no such argument{nearest(key, known)}.")
        if not equals:
            raise UserError(f"{argument}: write {key}=VALUE.")
        overrides[key.removeprefix("--config.")] = value
    return overrides


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found += _actions(sub)
    return found


def _face(text: str) -> int | str:
    return text if text in ("largest", "all") else int(text)


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
