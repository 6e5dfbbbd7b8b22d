"""The costliest kernels of a trace (`config.train.profile`): python -m tests.oracles.kernels FOLDER --out FILE."""

import argparse
import collections
import gzip
import json
from pathlib import Path


def kernels(folder: Path, count: int = 30) -> str:
    """Total and mean microseconds, calls and name of the `count` costliest events on devices.

    folder: holds *.trace.json.gz somewhere, as jax.profiler writes them.
    """
    (*_, path) = sorted(folder.rglob("*.trace.json.gz"))
    with gzip.open(path, "rt") as file:
        events = json.load(file)["traceEvents"]
    devices = {e["pid"] for e in events if e.get("name") == "process_name" and "/device:" in e["args"]["name"]}
    times = collections.defaultdict[str, list[float]](list)
    for event in events:
        if event.get("ph") == "X" and event["pid"] in devices:
            times[event["name"]].append(event["dur"])
    total = sum(map(sum, times.values())) or 1.0
    costly = sorted(times.items(), key=lambda item: -sum(item[1]))[:count]
    rows = [
        f"{sum(own):12.0f}{sum(own) / total:8.1%}{sum(own) / len(own):10.1f}{len(own):8}  {name}"
        for name, own in costly
    ]
    return "\n".join([f"{'total us':>12}{'share':>8}{'mean us':>10}{'calls':>8}  {path.name}", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    text = kernels(arguments.folder)
    arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
