"""Quality against batch size: one config at several batches, with equal numbers of images seen, by three rules.

    python -m faceattr_jax.batch_curve FOLDER [--batches 16,64,256] [--seeds 3] [--dry-run] [--config.KEY=VALUE ...]

A rule says what becomes of the learning rate where the batch is B times the config's: ``constant`` leaves it,
``square_root`` multiplies it by the root of B, ``linear`` by B. All else is counted in images: 1 / B of the iterations,
of the schedule's and between checkpoints, and an average of the parameters that forgets as fast (`ema` to the power of
B). What was trained before is not trained again. FOLDER/batch_curve.json has the numbers, and charts lie beside it.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax import files
from faceattr_jax.cli import config_overrides
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import page
from faceattr_jax.reproduce import run_faceattr

RULES = {"constant": 0.0, "square_root": 0.5, "linear": 1.0}
"""The power of the batch's growth by which the learning rate grows."""

SCORES = ("attribute_accuracy", "attribute_accuracy_worst", "region_error_ratio", "reconstruction_psnr")


def changes(config: ConfigDict, batch: int, rule: str) -> dict[str, Any]:
    """The keys of the config that change where its batch is `batch` and its learning rate follows `rule`."""
    growth = batch / config.batch_size

    def fewer(iterations: int) -> int:
        return max(1, round(iterations / growth))

    optimizer, train = config.optimizer, config.train
    schedule = tuple(fewer(part) if isinstance(part, int) else part for part in optimizer.schedule)
    return {
        "batch_size": batch,
        "optimizer.learning_rate": optimizer.learning_rate * growth ** RULES[rule],
        "optimizer.schedule": schedule,
        "ema": config.ema**growth,
        "train.iterations": fewer(train.iterations),
        "train.checkpoint_every": fewer(train.checkpoint_every),
        "train.log_every": fewer(train.log_every),
    }


def runs(config: ConfigDict, batches: Iterable[int], seeds: int) -> dict[str, dict[str, Any]]:
    """Name -> what is changed; at the config's own batch all rules are one."""
    found = {}
    for batch, rule, seed in itertools.product(batches, RULES, range(seeds)):
        if batch != config.batch_size or rule == next(iter(RULES)):
            found[f"{rule}-{batch}-{seed}"] = {**changes(config, batch, rule), "seed": seed}
    return found


def table(found: dict[str, dict[str, Any]], own: int) -> str:
    """The scores of all runs, by rule and batch, as means over seeds with their standard deviations."""
    lines = [f"{'rule':14}{'batch':>6}{'rate':>10}" + "".join(f"{score:>26}" for score in SCORES)]
    for (rule, batch), rows in grouped(found).items():
        cells = "".join(f"{_spread([row[score] for row in rows]):>26}" for score in SCORES)
        name = "(the config's)" if batch == own else rule
        lines.append(f"{name:14}{batch:6}{rows[0]['learning_rate']:10.2g}{cells}")
    return "\n".join(lines)


def grouped(found: dict[str, dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """(rule, batch) -> the rows of its seeds."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in found.values():
        groups.setdefault((row["rule"], row["batch_size"]), []).append(row)
    return groups


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.mean(known):.4f}" + (f" ± {statistics.stdev(known):.4f}" if len(known) > 1 else "")


def charts(found: dict[str, dict[str, Any]], own: int, folder: Path) -> list[Path]:
    """A chart of each score against the batch, a line for each rule; none without matplotlib."""
    groups, written = grouped(found), []
    for score in SCORES:
        lines = {}
        for rule in RULES:
            points = sorted(
                (batch, statistics.mean(row[score] for row in rows))
                for (name, batch), rows in groups.items()
                if (name == rule or batch == own) and all(row[score] is not None for row in rows)
            )
            if points:
                lines[rule] = [batch for batch, _ in points], [value for _, value in points]
        if lines:
            chart = page.curves(score, lines, "batch_size", score)
            written += page.save(chart, folder / f"batch_curve-{score}.png")
    return written


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="batch_curve.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="attgan_quickstart", help="of the editor (attgan_quickstart)")
    parser.add_argument("--judge", default="", help="workdir of a classifier (classifier_synthetic is trained)")
    parser.add_argument("--batches", default="16,64,256")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=0, help="of the test split that are edited (all)")
    parser.add_argument("--dry-run", action="store_true", help="print what each run changes, run none")
    a, rest = parser.parse_known_args(argv)
    try:
        given = config_overrides(rest, parser, takes_config=True)
        config = configs.load(a.config, given)
        planned = runs(config, [int(batch) for batch in a.batches.split(",")], a.seeds)
        if a.dry_run:
            print("\n".join(f"{name}: {changed}" for name, changed in planned.items()))
            return 0
        judge = a.judge or str(a.folder / "judge")
        if not a.judge:
            run_faceattr(["train", "--config=classifier_synthetic", f"--workdir={judge}"])
        found = {}
        for name, changed in planned.items():
            workdir, report = a.folder / name, a.folder / f"{name}-evaluation"
            if not (report / "evaluation.json").is_file():
                flags = [f"--config.{key}={value}" for key, value in {**given, **changed}.items()]
                run_faceattr(["train", f"--config={a.config}", f"--workdir={workdir}", *flags])
                images = [f"--images={a.images}"] if a.images else []
                run_faceattr(["evaluate", f"--workdir={workdir}", f"--judge={judge}", f"--out={report}", *images])
            scores = json.loads((report / "evaluation.json").read_text())
            found[name] = {
                "rule": name.split("-")[0],
                "batch_size": changed["batch_size"],
                "learning_rate": changed["optimizer.learning_rate"],
                "seed": changed["seed"],
                **{score: scores[score] for score in SCORES},
            }
            files.write(a.folder / "batch_curve.json", json.dumps(found, indent=2))
    except UserError as error:
        print(f"batch_curve.sh: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    print(table(found, config.batch_size))
    for path in charts(found, config.batch_size, a.folder):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
