"""Fetching: offline files in every state, a server's answers, and what is not read twice."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.runs import collect, sources, tables
from analysis.runs import wandb_offline as reader
from analysis.runs.record import FetchError, build_record
from analysis.runs.wandb_offline import read_files
from lib.spec.files import write_atomically
from lib.spec.sweep import same_value
from tests import factories
from tests.conftest import ROOT, call, command

RUN = """
import os, signal, sys, wandb
run = wandb.init(id=sys.argv[1], project="p", config={"seed": 1, "lr": 0.1, "flag": False})
for epoch in (1, 2, 2, 3):
    run.log({"epoch": epoch, "val/error": float("nan") if epoch == 1 else 1 / epoch})
run.summary.update({"test/error": 1 / 3, "diverged": False})
if sys.argv[2] == "crash":
    raise RuntimeError("on purpose")
if sys.argv[2] == "kill":
    import time; time.sleep(2)
    os.kill(os.getpid(), signal.SIGKILL)
run.finish()
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Give a sweep that fits the made-up runs."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "method: grid\nmetric: {name: val/error, goal: minimize}\n"
        "parameters: {seed: {values: [1]}, lr: {value: 0.1}}\n"
    )
    return path


def make_run(env: dict[str, str], name: str, end: str) -> None:
    folder = Path(env["WANDB_DIR"])
    folder.mkdir(exist_ok=True)
    subprocess.run(
        command("-c", RUN, name, end), env=env, cwd=ROOT, capture_output=True, check=False
    )


def test_offline_runs_in_every_state(offline: dict[str, str], sweep: Path, tmp_path: Path) -> None:
    for name, end in (("good", "finish"), ("bad", "crash"), ("dead", "kill")):
        make_run(offline, name, end)
    out, source = tmp_path / "tables", offline["WANDB_DIR"]
    dead = next(Path(source).glob("wandb/offline-run-*-dead/*.wandb"))
    dead.write_bytes(dead.read_bytes()[:90])  # how much W&B had written is a matter of chance
    arguments = ("-m", "analysis.fetch", source, "--sweep", sweep, "--out", out)
    first = call(*arguments)
    assert "2 runs read, 2 in" in first.stdout
    assert "-dead: its file is truncated before the run's configuration" in first.stdout
    runs, history = tables.read_tables(out)
    runs = runs.set_index("run_id")
    assert runs["state"].to_dict() == {"good": "finished", "bad": "failed"}
    assert runs.loc["good", ["exit_code", "config.seed", "config.lr", "config.flag"]].tolist() == [
        0,
        1,
        0.1,
        False,
    ]
    assert runs.loc["good", "summary.test/error"] == 1 / 3, "floats keep all their digits"
    good = history[history["run_id"] == "good"]
    assert good["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(good["val/error"], [np.nan, 1 / 2, 1 / 3])

    before = (out / "runs.csv").read_bytes()
    second = call(*arguments)
    assert "1 run read, 2 in" in second.stdout, "the finished one is not read again"
    assert (out / "runs.csv").read_bytes() == before

    file = next(Path(source).glob("wandb/offline-run-*-good/*.wandb"))
    file.write_bytes(file.read_bytes()[:-40])  # cut off: no exit record
    call("-m", "analysis.fetch", source, "--sweep", sweep, "--out", tmp_path / "cut")
    runs, _ = tables.read_tables(tmp_path / "cut")
    assert runs.set_index("run_id").loc["good", "state"] == "crashed"

    make_run(offline, "dead", "finish")  # a later attempt
    call(*arguments)
    runs, _ = tables.read_tables(out)
    assert runs.set_index("run_id").loc["dead", "state"] == "finished"


CONTINUED = """
import sys, wandb
from pathlib import Path
for words in sys.argv[1:]:
    name, part, first, last, lr = words.split()
    config = {"seed": 1, "lr": float(lr), "nothing": float("nan")}
    run = wandb.init(id=name, resume="allow", group="g", job_type="j", config=config)
    for epoch in range(int(first), int(last) + 1):
        run.log({"epoch": epoch, "val/error": 1 / epoch})
    run.summary.update({f"from_{first}": 1, "git_commit": f"commit{part}"})
    run.finish(exit_code=0 if last == "6" else 255)
    folder = Path(run.dir).parent
    folder.rename(folder.with_name(f"offline-run-{'zyx'[int(part)]}-{name}"))
"""


def test_a_run_that_was_resumed_under_its_id_has_its_whole_history(
    offline: dict[str, str], sweep: Path, tmp_path: Path
) -> None:
    """Offline, W&B writes each part to a folder of its own; parts that do not fit are left out.

    The folders' names fall, as local times may when a run moves to another time zone.
    """
    source, out = Path(offline["WANDB_DIR"]), tmp_path / "tables"
    source.mkdir()
    parts = ["whole 0 1 2 .1", "whole 1 3 3 .1", "whole 2 4 6 .1"]
    parts += ["again 0 1 3 .1", "again 1 1 6 .1"]  # from the start
    parts += ["other 0 1 3 .2", "other 1 4 6 .1"]  # another recipe
    parts += ["gap 0 1 2 .1", "gap 1 5 6 .1"]
    made = subprocess.run(command("-c", CONTINUED, *parts), env=offline, cwd=ROOT, check=False)
    assert made.returncode == 0
    done = call("-m", "analysis.fetch", source, "--sweep", sweep, "--out", out)
    assert "4 runs read, 4 in" in done.stdout
    for end, part in ((3, "y"), (2, "z")):
        where = f"run whole: history up to epoch {end} is from offline-run-{part}-whole, which"
        assert f"{where} offline-run-x-whole continues" in done.stdout
    unused = "history up to epoch 3 in offline-run-z-other is not used, because lr differ"
    assert unused in done.stdout
    unused = "history up to epoch 2 in offline-run-z-gap is not used, because the next is 5"
    assert unused in done.stdout
    runs, history = tables.read_tables(out)
    epochs = history.groupby("run_id")["epoch"].apply(list).to_dict()
    assert epochs["whole"] == epochs["again"] == [1, 2, 3, 4, 5, 6]
    assert (epochs["other"], epochs["gap"]) == ([4, 5, 6], [5, 6])
    errors = history.set_index("run_id").loc["whole", "val/error"]
    np.testing.assert_array_equal(errors, 1 / np.arange(1, 7))
    whole = runs.set_index("run_id").loc["whole"]
    assert (whole["state"], whole["source"]) == ("finished", "offline-run-x-whole")
    assert whole["summary.git_commit"] == "commit0 then commit1 then commit2"
    assert whole["summary.resumed_from_epoch"] == 3
    assert whole[["summary.from_1", "summary.from_4", "summary.val/error"]].tolist() == [
        1,
        1,
        1 / 6,
    ]
    assert whole[["wandb.Group", "wandb.Job Type"]].tolist() == ["g", "j"]


WITH_SCORES = """
import os, sys, numpy as np, wandb
for name in ("into", "link", "late"):
    run = wandb.init(id=name, config={"seed": 1, "lr": 0.1})
    folder = run.dir if name == "into" else "."
    path = os.path.join(folder, "test_scores.npz")
    np.savez(path, items=np.array(["a", "b"]), score=np.array([0.5, len(name)]))
    run.save(path, base_path=folder)
    run.log({"epoch": 1, "val/error": 0.1})
    run.finish()
"""


def test_outputs_per_item_of_offline_runs_of_any_script(
    offline: dict[str, str], sweep: Path, tmp_path: Path
) -> None:
    """A file that was saved from elsewhere is a link; the next run may have overwritten it."""
    source, out = Path(offline["WANDB_DIR"]), tmp_path / "tables"
    source.mkdir()
    subprocess.run(command("-c", WITH_SCORES), env=offline, cwd=tmp_path, check=True)
    file = next(source.glob("wandb/offline-run-*-late/files/test_scores.npz"))
    file.unlink()
    file.hardlink_to(tmp_path / "test_scores.npz")  # W&B's way where links are not allowed
    done = call("-m", "analysis.fetch", source, "--sweep", sweep, "--out", out)
    assert done.returncode == 0, done.stderr
    words = "the output files per item are links"
    assert re.search(f"runs (link, late|late, link): {words}", done.stdout)
    table = pd.read_csv(out / "test_images.csv")
    assert list(table.columns) == ["item", "score.into"]
    assert table["score.into"].tolist() == [0.5, 4.0]


def test_an_interrupted_write_leaves_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("old\n")
    with pytest.raises(TypeError):
        write_atomically(path, None)
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["runs.csv"]


def test_no_server_and_no_runs_are_reported(tmp_path: Path, sweep: Path, offline: dict) -> None:
    env = {k: v for k, v in offline.items() if k != "WANDB_MODE"}
    env |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "x" * 40}
    env |= {"WANDB_X_GRAPHQL_RETRY_MAX": "1"}
    for source, words in (
        (tmp_path, "no offline runs in"),
        ("e/p/s/t", "source must be a study's name, a folder of offline runs"),
        ("e/p", "cannot read the project e/p"),
        ("e/p/s", "cannot read the sweep e/p/s"),
    ):
        arguments = ("-m", "analysis.fetch", source, "--sweep", sweep, "--out", tmp_path / "t")
        done = call(*arguments, env=env)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_two_sources_are_one_study(offline: dict[str, str], sweep: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_run(offline | {"WANDB_DIR": str(first)}, "one", "finish")
    make_run(offline | {"WANDB_DIR": str(second)}, "two", "finish")
    arguments = ("-m", "analysis.fetch", "--sweep", sweep, "--out", tmp_path / "tables")
    assert "2 runs read, 2 in" in call(*arguments, first, second).stdout
    again = call(*arguments, second, first)
    assert "0 runs read, 2 in" in again.stdout
    assert again.returncode == 0
    make_run(offline | {"WANDB_DIR": str(second)}, "one", "finish")
    twice = call(*arguments, first, second)
    assert twice.returncode == 1
    assert "duplicate runs one, also in an earlier source" in twice.stderr


def test_an_unreadable_file_is_named_and_the_others_are_kept(
    tmp_path: Path, sweep: Path, offline: dict[str, str]
) -> None:
    make_run(offline, "good", "finish")
    good = next(tmp_path.glob("runs/wandb/offline-run-*-good/*.wandb"))
    bad = tmp_path / "runs" / "wandb" / "offline-run-20990101_000000-late" / "run-late.wandb"
    bad.parent.mkdir()
    bad.write_bytes(b"not W&B's format")
    records, why, again = read_files([good, bad, good])
    assert records == again
    assert [record["type"] for record in records].count("history") == 4
    assert "run-late.wandb: " in str(why)
    (absent,) = read_files([tmp_path / "run-absent.wandb"])
    assert "does not exist" in str(absent)

    arguments = ("-m", "analysis.fetch", tmp_path / "runs", "--sweep", sweep)
    done = call(*arguments, "--out", tmp_path / "tables")
    assert done.returncode == 1
    assert f"cannot read {bad}" in done.stderr
    assert tables.read_tables(tmp_path / "tables")[0]["run_id"].tolist() == ["good"]


def test_runs_are_read_in_chunks_and_the_attempt_that_finished_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Three attempts a run: the second finished, the first is unreadable or a failure."""
    chunks = []

    def read(files: list[Path]) -> list:
        chunks.append(len(files))
        ends = {"1": FetchError("bad"), "2": [{"type": "exit", "exit": {}}], "3": []}
        return [ends[file.parent.name[12]] for file in files]

    monkeypatch.setattr(reader, "read_files", read)
    for i in range(reader.CHUNK + 3):
        for attempt in "123":
            place = tmp_path / "wandb" / f"offline-run-{attempt}-r{i:02d}"
            place.mkdir(parents=True)
            (place / f"run-r{i:02d}.wandb").touch()
    kept, reading = reader.fetch_folder(tmp_path, {}, tmp_path / "files")
    found = {run.run_id: run.row["source"] for run in reading}
    assert not kept
    assert found == {f"r{i:02d}": f"offline-run-2-r{i:02d}" for i in range(reader.CHUNK + 3)}
    assert sorted(chunks) == [9, 3 * reader.CHUNK]


def test_a_reader_that_does_not_run_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(FetchError, match="W&B's reader failed to run"):
        read_files([tmp_path / "run-x.wandb"])


def test_a_study_is_read_with_the_runs_that_filled_its_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of gtsrb, not of gtsrb_short; with --out the committed tables are begun with."""
    monkeypatch.setattr(sources, "RUNS", tmp_path)
    for name in ("gtsrb_short", "fill_in_gtsrb_short", "fill_in_gtsrb_short_2", "fill_in_gtsrb"):
        (tmp_path / name / "wandb").mkdir(parents=True)
    (tmp_path / "fill_in_gtsrb_short_3").mkdir()  # no run has started there
    out = tmp_path / "out"
    study, found, folder = sources.resolve(sources.Request(["gtsrb_short"], out=out))
    assert [Path(source).name for source in found] == [
        "gtsrb_short",
        "fill_in_gtsrb_short",
        "fill_in_gtsrb_short_2",
    ]
    assert folder == out
    committed = study.places.tables("gtsrb_short") / "runs.csv"
    assert (out / "runs.csv").read_bytes() == committed.read_bytes()


def test_ids_that_are_paths_are_refused() -> None:
    for name in ("../up", "a/b", "", "a" * 129, "a b", ".a", "..", "-2+3"):
        with pytest.raises(FetchError, match="run ids name files"):
            build_record(name, "finished", 0, "s", {}, {}, [])
    for name in ("a-lr0.1-s0", "lr=0.1", "x,y~z"):
        assert build_record(name, "finished", 0, "s", {}, {}, []).run_id == name


def test_namespaces_nesting_and_text_survive() -> None:
    config = {"lr": 0.1, "model": {"width": 3, "kind": "a"}, "state": "x", "_wandb": {}}
    summary = {"lr": 0.05, "test/error": "NaN", "picture": {"_type": "image"}, "_step": 3}
    row = build_record("r", "finished", 0, "s", config, summary, [], "javascript:alert(1)").row
    assert (row["config.lr"], row["summary.lr"]) == (0.1, 0.05)
    assert (row["config.model.width"], row["config.model.kind"]) == (3, "a")
    assert (row["state"], row["config.state"], row["url"]) == ("finished", "x", "")
    assert row["summary.test/error"] == "NaN"  # an absent one would be an empty cell
    assert not {"summary.picture", "summary._step", "config._wandb"} & set(row)


def test_text_among_numbers_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    history = pd.DataFrame({"run_id": ["a", "b"], "epoch": [1, 1], "note": ["x", 1], "loss": 0.5})
    assert list(collect._numeric(history)) == ["run_id", "epoch", "loss"]
    assert "dropping history columns that contain text: note" in capsys.readouterr().out


LEVELS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12),
    st.sampled_from(["true", "null", "007", "1e-3", "", " ", "NaN", '"', "[1]", "-", "nan"]),
    st.lists(st.integers(0, 9), max_size=3),
)


@given(st.lists(LEVELS, min_size=1, max_size=5))
def test_kind_and_value_of_every_level_survive_the_tables(levels: list) -> None:
    rows = [factories.run_row(f"r{i}", {"a": level}, {}) for i, level in enumerate(levels)]
    with tempfile.TemporaryDirectory() as folder:
        tables.write_tables(Path(folder), factories.runs_table(rows), pd.DataFrame())
        found = tables.read_tables(Path(folder))[0]["config.a"]
    for level, again in zip(levels, found, strict=True):
        assert same_value(level, again), (level, again)
        assert type(level) is type(again)


def test_runs_that_do_not_exist_yet_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "RUNS", tmp_path)
    (tmp_path / "demo_gtsrb").mkdir()  # the agent's lock lies there, and no run has started
    with pytest.raises(FetchError, match=r"run `python -m lib\.agent demo_gtsrb`"):
        sources.resolve(sources.Request(["demo_gtsrb"]))
    (tmp_path / "circle").mkdir()
    with pytest.raises(FetchError, match="Pass the sweep's YAML as --sweep, or a declaration"):
        sources.resolve(sources.Request([str(tmp_path / "circle")]))
