"""Print the tables of `make bench`, or write them between the markers `bench` of a file.

python -m tests.bench.table runs/bench.jsonl [README.md]
"""

import json
import sys
from pathlib import Path
from typing import Any

from analysis.readme import insert
from lib.spec.words import count

Line = dict[str, Any]
EPOCH = 39_209  # images of the official training set


def tables(lines: list[Line]) -> str:
    """Return the Markdown for the lines of one bench."""
    by_bench: dict[str, list[Line]] = {}
    for line in lines:
        by_bench.setdefault(line["bench"], []).append(line)
    machine = by_bench["machine"][0]
    device = "" if machine["device"] == "cpu" else f", {machine['device']}"
    text = [
        f"Machine: {machine['processor']}, {machine['cores']} cores{device}; torch "
        f"{machine['torch'].split('+')[0]}; signs in `{machine['data']}`.",
        "",
        "| training, batches of 128 | images/s | × template's best | data, share of time "
        "| step, share of the peak rate | peak memory of the largest process, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for line in by_bench["training"]:
        share = ""
        if "share_of_peak" in line:
            peak = f"{line['gflops']:.0f} of {line['peak_gflops']:.0f} GFLOP/s"
            share = f"{line['share_of_peak']:.0%} ({peak})"
        text.append(
            f"| {line['pipeline']} | {line['images_per_second']:,} | "
            f"{line['times_best_template']:.2f} | {line['data_share']:.0%} | {share} | "
            f"{line['peak_mib']:,} |"
        )
    text += ["", "| other measurements | value |", "|---|---|"]
    (start,), (other,) = by_bench["start"], by_bench["other parts"]
    text.append(f"| start-up to the first step, data cached | {start['seconds']:.1f} s |")
    for line in by_bench["whole run"]:
        text.append(f"| peak memory of a run, {line['precision']} | {line['peak_mib']:,} MiB |")
    for precision in ("float32", "bfloat16"):
        signs, lungs = other[f"evaluation_{precision}"], other[f"unet_{precision}"]
        text.append(f"| evaluation of signs, {precision} | {signs:,} images/s |")
        text.append(f"| U-Net (128 px, 16 features), training, {precision} | {lungs} images/s |")
    milliseconds = 1000 * other["checkpoint_seconds"]
    text.append(f"| a checkpoint | {milliseconds:.0f} ms, {other['checkpoint_mib']:.1f} MiB |")
    for line in by_bench["side by side"]:
        text.append(
            f"| {count(line['k'], 'run')} at a time, bfloat16 | {line['images_per_second']:,} "
            f"images/s, {line['epochs_per_hour']:,} epochs of {EPOCH:,} images per hour |"
        )
    for bench, what in {"fetch": "offline runs to tables", "report": "tables to report"}.items():
        for line in by_bench.get(bench, []):
            ratio = ""
            if "times_reading" in line:
                ratio = f" ({line['times_reading']:.0f} times as long as reading the tables)"
            text.append(
                f"| {what}: {line.get('study', line['runs'])} runs of {line['epochs']} epochs | "
                f"{line['seconds']} s{ratio}, {line['peak_mib']:,} MiB |"
            )
    for line in by_bench.get("foreign", []):
        text.append(
            f"| foreign project, {line['of']} to report: {line['runs']} runs of {line['epochs']} "
            f"rows | {line['seconds']} s, {line['peak_mib']:,} MiB |"
        )
    for line in by_bench.get("agent", []):
        text.append(
            f"| local agent: check of {line['runs']:,} finished runs; start-up | "
            f"{line['seconds']} s, {line['peak_mib']:,} MiB; {line['start']} s |"
        )
    return "\n".join(text)


def main() -> None:
    """Print the tables, or write them into a file."""
    source, *target = map(Path, sys.argv[1:])
    text = tables([json.loads(line) for line in source.read_text().splitlines()])
    if target:
        target[0].write_text(insert(target[0].read_text(), "bench", text))
    else:
        print(text)


if __name__ == "__main__":
    main()
