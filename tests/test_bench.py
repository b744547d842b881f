"""The benches' own parts; what they measure is no test."""

import json
from pathlib import Path

import pytest

from lib.data import gtsrb
from tests.bench import gpu_steps
from tests.bench.cases import Signs
from tests.bench.measuring import measure, say
from tests.bench.table import tables


def test_numbers_keep_three_digits(capsys: pytest.CaptureFixture) -> None:
    say("b", large=12345.6, small=0.0123456, count=12345, name="x")
    line = {"bench": "b", "large": 12300, "small": 0.0123, "count": 12345, "name": "x"}
    assert json.loads(capsys.readouterr().out) == line


def test_a_process_is_measured_from_outside() -> None:
    seconds, peak, output = measure(["-c", "x = b'1' * 200_000_000; print(len(x))"])
    assert output == "200000000\n"
    assert peak > 200_000_000 / 2**20
    assert seconds > 0
    with pytest.raises(RuntimeError, match="exit code 3"):
        measure(["-c", "raise SystemExit(3)"])


def test_the_templates_images_are_ours(signs: Path) -> None:
    """In names and classes; and each access varies an image of the network's size."""
    template, part = Signs(signs), gtsrb.load(signs).train
    assert sorted(zip(template.names, template.labels, strict=True)) == sorted(
        zip(part.names, part.labels.tolist(), strict=True)
    )
    (first, label), (again, _) = template[5], template[5]
    assert first.shape == (3, 28, 28)
    assert label == template.labels[5]
    assert not first.equal(again)


def test_every_line_of_a_bench_has_its_place() -> None:
    ours = {"gflops": 271.8, "peak_gflops": 402.0, "share_of_peak": 0.6761}
    train = {"bench": "training", "images_per_second": 1979, "data_share": 0.031, "peak_mib": 905}
    other = {f"{k}_{p}": 4321 for k in ("evaluation", "unet") for p in ("float32", "bfloat16")}
    lines = [
        {"bench": "machine", "processor": "P", "cores": 2, "device": "cpu", "torch": "2.14+cu"}
        | {"data": "data/GTSRB"},
        train | {"pipeline": "ours", "times_best_template": 3.456} | ours,
        {"bench": "start", "seconds": 6.75},
        {"bench": "whole run", "precision": "float32", "peak_mib": 1070},
        {"bench": "other parts", "checkpoint_seconds": 0.0123, "checkpoint_mib": 1.5} | other,
        {"bench": "side by side", "k": 2, "images_per_second": 2001, "epochs_per_hour": 184},
        {"bench": "fetch", "runs": 100, "epochs": 400, "seconds": 9.8, "peak_mib": 200},
        {"bench": "report", "study": "2 x 5", "runs": 10, "epochs": 400, "seconds": 6.1}
        | {"peak_mib": 222, "times_reading": 14.2},
        {"bench": "foreign", "of": "files", "runs": 1000, "epochs": 400, "seconds": 61}
        | {"peak_mib": 700},
        {"bench": "agent", "runs": 10_000, "seconds": 0.9, "start": 0.2, "peak_mib": 56},
    ]
    text = tables(lines)
    assert "Machine: P, 2 cores; torch 2.14; signs in `data/GTSRB`." in text
    assert "| ours | 1,979 | 3.46 | 3% | 68% (272 of 402 GFLOP/s) | 905 |" in text
    for words in (
        "6.8 s",
        "1,070 MiB",
        "4,321 images/s",
        "12 ms, 1.5 MiB",
        "184 epochs",
        "9.8 s, 200",
        "10,000 finished runs; start-up | 0.9 s, 56 MiB; 0.2 s",
        "files to report: 1000 runs of 400 rows | 61 s, 700 MiB",
    ):
        assert words in text
    assert "6.1 s (14 times as long as reading the tables), 222 MiB" in text


def test_gpu_busy_share_counts_overlapping_kernels_once() -> None:
    kernels = [(1000.0, 500.0), (1250.0, 500.0), (2500.0, 500.0)]  # start and duration in µs
    events = [{"cat": "kernel", "ts": start, "dur": duration} for start, duration in kernels]
    trace = {"traceEvents": [*events, {"cat": "cpu_op", "ts": 0.0, "dur": 9000.0}, {"ph": "M"}]}
    times = gpu_steps.busy_times(trace)
    assert times == [(0.0, 0.5), (0.25, 0.5), (1.5, 0.5)]
    assert gpu_steps.busy_share(times) == (2.0, 0.625)
