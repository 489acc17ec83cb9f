"""Compare nyuseg with a plain implementation of the same experiment, on the processor.

Both train, read data, predict and encode the demo's rooms at 480x640 with a ResNet101, each in a
process of its own with all cores, in turns: ours, plain, ours, plain, ... A ratio is the median
over the pairs of rounds. Close other programs first. It takes 7 GB of memory (--full: 14) and 2 GB
of disk.

examples:
  python benchmarks/run.py                 five minutes on two cores
  python benchmarks/run.py --full          larger batches, more rounds and images: twenty minutes
  python benchmarks/run.py --encoder tu-test_resnet --size 96x128     only to test this script
"""

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from workers import Contender, Job, call

NAMES = ("ours", "plain")
GROWTH_BAR = 5  # Percent of memory.
FOLDS, VIEWS = 5, 2
BUSY = 0.5  # Processes that wait for a core, averaged over the last minute.
STARTED = time.monotonic()
SMALL = "tu-test_resnet"  # An encoder so small that what grows with the images would show.


@dataclass(frozen=True)
class Section:
    """One comparison. warm_up, amount: what a contender is told to play, in its own unit."""

    kind: str
    title: str
    unit: str
    bar: float
    more_is_better: bool
    warm_up: int
    amount: int


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    batch_size: int
    samples: int
    images: int
    counts: tuple[int, ...]

    @property
    def sections(self) -> tuple[Section, ...]:
        return (
            Section("training", "training step", "s/image", 2.3, False, 1, 1),
            Section("data", "training data", "samples/CPU s", 3, True, 8, self.samples),
            Section("inference", "five folds + flip", "s/image", 2.5, False, 1, self.images),
            Section("encoding", "encoding", "masks/s", 7, True, 1, 16),
        )


SHORT = Plan(rounds=3, batch_size=2, samples=48, images=2, counts=(20, 500))
FULL = Plan(rounds=5, batch_size=4, samples=240, images=8, counts=(20, 500, 2000))


def say(text: str) -> None:
    """A line of progress with the time since the start, seen at once."""
    print(f"{time.monotonic() - STARTED:5.0f} s  {text}", flush=True)


def duel(section: Section, job: Job, rounds: int) -> dict[str, Any]:
    """Play one section; returns every round's value and what follows from them."""
    say(f"{section.title}: getting ready")
    values: dict[str, list[float]] = {name: [] for name in NAMES}
    with Contender("ours", job) as ours, Contender("plain", job) as plain:
        both = (ours, plain)
        if len({contender.proof() for contender in both}) > 1:
            raise SystemExit(f"{section.title}: the two results differ")
        for contender in both:
            contender.play(section.warm_up)
        for number in range(rounds):
            for contender in both:
                values[contender.name].append(contender.play(section.amount))
            shown = ", ".join(f"{name} {values[name][-1]:.4g}" for name in NAMES)
            say(f"  round {number + 1} of {rounds}: {shown} {section.unit}")
        peaks = {contender.name: contender.finish() for contender in both}
    return {**asdict(section), **compare(section, values), "rounds": values, "peak_mb": peaks}


def compare(section: Section, values: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of both, and how many times better we are: median and range of the rounds' ratios."""
    pairs = list(zip(values["ours"], values["plain"], strict=True))
    ratios = [a / b if section.more_is_better else b / a for a, b in pairs]
    return {
        "median": {name: median(numbers) for name, numbers in values.items()},
        "ratio": median(ratios),
        "spread": [min(ratios), max(ratios)],
        "met": median(ratios) >= section.bar,
    }


def measure_memory(job: Job, counts: tuple[int, ...]) -> dict[str, Any]:
    """Peak memory of our inference by number of images, and by how many percent it grows.

    One process predicts them all, one number of images after another, because the peaks of two
    processes differ by some percent even when they do the same.
    """
    say(f"memory: predicting {', then '.join(map(str, counts))} images with a small network")
    runs = call("workers", "memory", replace(job, encoder=SMALL), counts)
    growth = 100 * (runs[-1]["mb"] / runs[0]["mb"] - 1)
    return {"runs": runs, "growth_percent": growth, "bar": GROWTH_BAR, "met": growth <= GROWTH_BAR}


def shares(machine: dict[str, Any], sections: dict[str, Any]) -> dict[str, float]:
    """Which part of the peak, of the dtype it uses, each contender reaches; 0..1."""
    forward = machine["operations"]
    peaks = {"ours": machine["peak"][machine["dtype"]], "plain": machine["peak"]["float32"]}
    found = {}
    for name, peak in peaks.items():
        training, inference = (sections[key]["median"][name] for key in ("training", "inference"))
        # The backward pass takes twice the forward pass: gradients of inputs and of weights.
        # (torch's counter has it 2048 times too high for depthwise convolutions.)
        found[f"{name}, training step"] = 3 * forward / training / peak
        found[f"{name}, five folds + flip"] = FOLDS * VIEWS * forward / inference / peak
    return {**found, "ours, network alone": forward / machine["network_seconds"] / peaks["ours"]}


def measure(plan: Plan, job: Job) -> dict[str, Any]:
    """Everything, in order; writes data and weights first."""
    load = os.getloadavg()[0]
    if load > BUSY:
        say(f"the machine is not idle (load {load:.1f}): expect ratios with a wide range")
    say(f"preparing data and weights in {job.work}")
    with ThreadPoolExecutor() as pool:  # Both wait for processes of their own.
        ours = pool.submit(
            call, "ours", "prepare", job.data, job.work, [job.encoder, SMALL], job.size
        )
        call("plain", "prepare", job.work, job.encoder)
        ours.result()
    say("machine: its peak of matrix products, our network alone")
    machine = call("workers", "machine", job)
    sections = {
        section.kind: duel(section, replace(job, kind=section.kind), plan.rounds)
        for section in plan.sections
    }
    return {
        "load_at_start": round(load, 2),
        "date": time.strftime("%Y-%m-%d"),
        "encoder": job.encoder,
        "size": job.size,
        "plan": asdict(plan),
        "machine": machine,
        "sections": sections,
        "shares": shares(machine, sections),
        "memory": measure_memory(job, plan.counts),
    }


def table(results: dict[str, Any]) -> str:
    """The results as text."""
    height, width = results["size"]
    batch = results["plan"]["batch_size"]
    lines = [
        f"{results['encoder']} at {height}x{width}, training in batches of {batch}; "
        f"{results['plan']['rounds']} rounds",
        f"{'':18}{'ours':>10}{'plain':>10}  {'':15}{'ratio':>6}  {'(min..max)':14}peak MB",
    ]
    for one in results["sections"].values():
        numbers = "".join(f"{one['median'][name]:10.4g}" for name in NAMES)
        low, high = one["spread"]
        spread = f"({low:.2f}..{high:.2f})"
        peaks = " / ".join(f"{one['peak_mb'][name]:.0f}" for name in NAMES)
        ratio = f"{one['ratio']:5.2f}x"
        lines.append(f"{one['title']:18}{numbers}  {one['unit']:15}{ratio}  {spread:14}{peaks}")
    return "\n".join(
        [*lines, _bars(results), "", *_machine_lines(results), *_memory_lines(results)]
    )


def _bars(results: dict[str, Any]) -> str:
    def state(met: bool) -> str:
        return "met" if met else "NOT met"

    bars = [f"{s['title']} {s['bar']}x ({state(s['met'])})" for s in results["sections"].values()]
    memory = results["memory"]
    return f"bars: {', '.join(bars)}, memory +{memory['bar']} % ({state(memory['met'])})"


def _machine_lines(results: dict[str, Any]) -> list[str]:
    machine = results["machine"]
    peaks = ", ".join(f"{name} {peak / 1e9:.0f}" for name, peak in sorted(machine["peak"].items()))
    lines = [
        f"{machine['processor']}, {machine['cores']} cores",
        f"peak of matrix products, GFLOP/s: {peaks}",
        f"reached of the peak (ours of {machine['dtype']}, plain of float32):",
        *(f"  {name:26}{share:6.1%}" for name, share in results["shares"].items()),
    ]
    if machine["dtype"] == "float32":
        lines.append("no native bfloat16 here: float32 is used")
    return lines


def _memory_lines(results: dict[str, Any]) -> list[str]:
    lines = [
        f"  {run['images']:5} images: {run['mb']:6.0f} MB, {run['ms_an_image']:6.1f} ms an image, "
        f"{run['open_files']} open files at the end"
        for run in results["memory"]["runs"]
    ]
    growth = f"  growth: {results['memory']['growth_percent']:.1f} %"
    return [f"our inference, {SMALL}, one fold, all formats:", *lines, growth]


def parse_size(text: str) -> tuple[int, int]:
    """'480x640' to (480, 640)."""
    height, width = (int(part) for part in text.split("x"))
    return height, width


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--full", action="store_true", help="more of everything")
    parser.add_argument("--rounds", type=int, help="of each comparison (3; with --full 5)")
    parser.add_argument("--encoder", default="resnet101", help="another one, to test this script")
    parser.add_argument("--size", type=parse_size, default=(480, 640), help="HEIGHTxWIDTH, too")
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="keep data and weights here; remove it when the network's code has changed",
    )
    default = Path(__file__).with_name("results.json")
    parser.add_argument("--results", metavar="FILE", type=Path, default=default, help="to write")
    options = parser.parse_args()
    plan = FULL if options.full else SHORT
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    with nullcontext(options.work) if options.work else tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        data = work / "{}x{}".format(*options.size)
        job = Job("", data, work, options.encoder, options.size, plan.batch_size)
        results = measure(plan, job)
    results["seconds"] = round(time.monotonic() - STARTED)
    options.results.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{table(results)}\n\n{results['seconds']} s; all numbers are in {options.results}")


if __name__ == "__main__":
    main()
