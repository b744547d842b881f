"""What a stand-in for the W&B server knows and answers: runs, sweeps, agents; no HTTP here."""

import base64
import dataclasses
import json
import math
import random
import threading
from collections import Counter
from typing import Any

import yaml

from lib.spec.sweep import read_sweep
from tests.fakes.graphql import execute, operation_name

ENTITY = "somebody"
HISTORY = "wandb-history.jsonl"
NO_MORE = {"__typename": "PageInfo", "hasNextPage": False, "endCursor": None}


@dataclasses.dataclass
class Faults:
    """How the server misbehaves: shares of requests in [0, 1], and what it makes of history."""

    errors: float = 0.0  # answered with status 500
    drops: float = 0.0  # connection closed without an answer
    delay: float = 0.0  # seconds before each answer
    down: bool = False  # every connection closed at once
    file_errors: bool = False  # files are answered with status 500
    refuse: bool = False  # every request answered with status 403
    repeat_rows: bool = False  # history read back has rows twice and out of order
    happened: Counter = dataclasses.field(default_factory=Counter)
    chances: random.Random = dataclasses.field(default_factory=lambda: random.Random(0))


@dataclasses.dataclass
class Run:
    """One run as the server knows it; ``history``: JSON lines by their place in the stream."""

    name: str
    project: str
    attributes: dict[str, Any]
    sweep: str | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    history: dict[int, str] = dataclasses.field(default_factory=dict)
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    state: str = "running"
    preempting: bool = False

    def rows(self, faults: Faults) -> list[dict[str, Any]]:
        """Return the history, a dict a row."""
        rows = [json.loads(self.history[i]) for i in sorted(self.history)]
        if faults.repeat_rows:
            faults.happened["repeated"] += 1
            rows = rows[1:] + rows[::-1]
        for row in rows:  # NaN and infinities come back as text, as from the real service
            for key, value in row.items():
                if isinstance(value, float) and not math.isfinite(value):
                    row[key] = "NaN" if math.isnan(value) else f"{value}"
        return rows


@dataclasses.dataclass
class Sweep:
    """A grid sweep: cells that no run has yet, and runs to be handed out again."""

    name: str
    project: str
    config: str
    cells: list[dict[str, Any]]
    state: str = "RUNNING"
    again: list[str] = dataclasses.field(default_factory=list)


class State:
    """Everything that the server keeps, in memory; ``url``: where its files are fetched."""

    def __init__(self, url: str) -> None:
        self.url, self.faults = url, Faults()
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, dict[str, Any]] = {}
        self.views: list[dict[str, Any]] = []
        self.operations: Counter = Counter()
        self.lock = threading.RLock()

    def graphql(self, text: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer one query or mutation."""
        with self.lock:
            self.operations[operation_name(text)] += 1
            root = {
                "viewer": {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}"}
                | {"teams": {"edges": []}, "name": ENTITY, "email": "", "admin": False},
                "serverInfo": {"features": []},
                "entity": {"organization": None, "name": ENTITY, "id": "e"},
                "project": self._project,
                "model": self._project,
                "upsertBucket": self._upsert_run,
                "upsertSweep": self._upsert_sweep,
                "createAgent": self._create_agent,
                "agentHeartbeat": self._heartbeat,
                "createRunFiles": self._create_files,
                "models": lambda **_: {"edges": [], "pageInfo": NO_MORE},
                "upsertModel": lambda input: {"model": self._place(input["name"])},
                "upsertView": self._upsert_view,
            }
            return execute(text, variables, root)

    # Runs

    def _project(self, name: str | None = None, entityName: str | None = None) -> dict:
        def run(name: str, **_: Any) -> dict | None:
            found = self.runs.get(name)
            return self._run(found) if found else None

        def runs(filters: str = "{}", after: str = "", first: int = 50, **_: Any) -> dict:
            found = self._filtered(name, filters)
            start = int(after or 0)
            edges = [{"node": self._run(r), "cursor": str(i + 1)} for i, r in enumerate(found)][
                start : start + first
            ]
            page = {"endCursor": str(start + len(edges)), "hasNextPage": start + first < len(found)}
            return {"edges": edges, "pageInfo": page}

        return self._place(name) | {
            "run": run,
            "bucket": run,
            "runs": runs,
            "runCount": lambda filters="{}": len(self._filtered(name, filters)),
            "sweep": lambda sweepName: self._sweep(sweepName),
            "internalId": "1",
            "readOnly": False,
        }

    def _place(self, project: str | None) -> dict[str, Any]:
        return {"id": "p", "name": project, "entity": {"id": "e", "name": ENTITY}}

    def _filtered(self, project: str, filters: str) -> list[Run]:
        """Return a project's runs by sweep, group and values of their configuration."""
        found = [r for r in self.runs.values() if r.project == project]
        asked = json.loads(filters)
        parts = asked.get("$and", [asked])
        for key, wanted in ((k, v) for part in parts for k, v in part.items()):
            if key == "sweep":
                if isinstance(wanted, dict):  # {"$nin": [...]}
                    found = [r for r in found if r.sweep not in wanted["$nin"]]
                else:
                    found = [r for r in found if r.sweep == wanted]
            elif key == "group":
                found = [r for r in found if r.attributes.get("group") == wanted]
            else:
                name, is_not = key.removeprefix("config."), isinstance(wanted, dict)
                value = wanted["$ne"] if is_not else wanted
                found = [
                    r for r in found if (r.config.get(name, {}).get("value") == value) != is_not
                ]
        return found

    def _run(self, run: Run) -> dict[str, Any]:
        rows = run.rows(self.faults)
        steps = [row["_step"] for row in rows]

        def history(minStep: int, maxStep: int, **_: Any) -> list[str]:
            return [json.dumps(row) for row in rows if minStep <= row["_step"] < maxStep]

        def files(names: list[str] = (), **_: Any) -> dict:
            kept = [name for name in run.files if not names or name in names]
            nodes = [
                {"id": name, "name": name, "sizeBytes": len(run.files[name])}
                | {"url": lambda upload=False, n=name: self._file_url(run, n)}
                | {"directUrl": self._file_url(run, name), "mimetype": "", "md5": ""}
                for name in kept
            ]
            edges = [{"node": node, "cursor": str(i)} for i, node in enumerate(nodes)]
            return {"edges": edges, "pageInfo": NO_MORE}

        last = {"lastStep": max(steps, default=-1), "sets": [], "keys": {}}
        return run.attributes | {
            "id": base64.b64encode(f"Run:v1:{run.name}".encode()).decode(),
            "name": run.name,
            "projectId": "1",
            "project": self._place(run.project),
            "sweepName": run.sweep,
            "state": run.state,
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "historyLineCount": len(run.history),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps([run.history[i] for i in sorted(run.history)[-1:]]),
            "eventsTail": "[]",
            "historyKeys": last,
            "wandbConfig": json.dumps({"t": {}}),
            "parquetHistory": {"parquetUrls": [], "liveData": []},
            "history": history,
            "sampledHistory": [],  # ours reads the whole history
            "files": files,
            "fileCount": len(run.files),
            "readOnly": False,
            "createdAt": "2026-01-01T00:00:00Z",
            "heartbeatAt": "2026-01-01T00:00:00Z",
            "user": {"name": ENTITY, "username": ENTITY},
        }

    def _file_url(self, run: Run, name: str) -> str:
        return f"{self.url}/stored/{run.name}/{name}"

    def _upsert_run(self, input: dict[str, Any]) -> dict[str, Any]:
        name = input["name"] or base64.b64decode(input["id"]).decode().split(":")[-1]
        new = name not in self.runs
        if new:
            project = input["modelName"]
            self.runs[name] = Run(name, project, {"displayName": name}, input["sweep"])
        run = self.runs[name]
        named = {"groupName": "group", "jobType": "jobType", "displayName": "displayName"}
        named |= {"tags": "tags", "notes": "notes", "commit": "commit", "host": "host"}
        run.attributes |= {named[k]: v for k, v in input.items() if k in named and v is not None}
        run.config |= json.loads(input["config"] or "{}")
        run.summary |= json.loads(input["summaryMetrics"] or "{}")
        if run.state != "running":  # a new attempt; a running one sends its configuration again
            run.state, run.preempting = "running", False
        return {"bucket": self._run(run), "inserted": new}

    def _create_files(self, input: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[input["runName"]]
        files = [{"name": n, "uploadUrl": self._file_url(run, n)} for n in input["files"]]
        return {"runID": run.name, "uploadHeaders": [], "files": files}

    def stream(self, name: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Take what a run streams; a line counts by its place, so that one sent twice is one."""
        with self.lock:
            self.operations["file_stream"] += 1
            run = self.runs[name]
            for file, chunk in sent.get("files", {}).items():
                if file == HISTORY:
                    lines = enumerate(chunk["content"], chunk["offset"])
                    run.history |= dict(lines)
                elif file == "wandb-summary.json":
                    run.summary |= json.loads(chunk["content"][-1])
            run.preempting |= bool(sent.get("preempting"))
            if sent.get("complete"):
                code = sent.get("exitcode")
                run.state = "finished" if code == 0 else "failed"
                if run.preempting and code:
                    run.state = "preempted"
                    if run.sweep in self.sweeps:
                        self.sweeps[run.sweep].again.append(name)
            sweep = self.sweeps.get(run.sweep)  # none where a local study was synchronized
            stopped = sweep is not None and sweep.state == "CANCELED"
            return {"exitcode": None, "limits": {}, "stopped": stopped}

    def _upsert_view(self, input: dict[str, Any]) -> dict[str, Any]:
        self.views.append(input)
        project = {"id": "p", "name": input["projectName"], "entityName": input["entityName"]}
        view = input | {"id": "Vmlldzox", "project": project, "updatedAt": "2026-01-01T00:00:00Z"}
        return {"view": view, "inserted": True}

    # Sweeps

    def _sweep(self, name: str) -> dict[str, Any] | None:
        sweep = self.sweeps.get(name)
        if sweep is None:
            return None
        runs = [self._run(run) for run in self.runs.values() if run.sweep == name]
        return {
            "__typename": "Sweep",
            "id": name,
            "name": name,
            "displayName": name,
            "method": "grid",
            "state": sweep.state,
            "config": sweep.config,
            "createdAt": "2026-01-01T00:00:00Z",
            "runCount": len(runs),
            "runCountExpected": len(runs) + len(sweep.cells),
            "runs": lambda **_: {"edges": [{"node": run} for run in runs]},
        }

    def _upsert_sweep(self, input: dict[str, Any]) -> dict[str, Any]:
        if input.get("id"):
            self.sweeps[input["id"]].state = input["state"]
            return {"sweep": self._sweep(input["id"])}
        config = yaml.safe_load(input["config"])
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = Sweep(
            name, input["projectName"], input["config"], read_sweep(config).grid()
        )
        found = self._sweep(name) | {"project": self._place(input["projectName"])}
        return {"sweep": found, "configValidationWarnings": []}

    def _create_agent(self, input: dict[str, Any]) -> dict[str, Any]:
        name = f"agent{len(self.agents)}"
        self.agents[name] = {"id": name, "sweep": input["sweep"], "run": None}
        return {"agent": self.agents[name]}

    def _heartbeat(self, input: dict[str, Any]) -> dict[str, Any]:
        agent = self.agents[input["id"]]
        sweep, running = self.sweeps[agent["sweep"]], json.loads(input["runState"] or "{}")
        return {"agent": agent, "commands": json.dumps(self._commands(sweep, running))}

    def _commands(self, sweep: Sweep, running: dict[str, bool]) -> list[dict[str, Any]]:
        if sweep.state == "CANCELED":
            return [{"type": "stop", "run_id": name} for name in running] or [{"type": "exit"}]
        if running or sweep.state == "PAUSED":
            return []
        if sweep.again:
            name = sweep.again.pop(0)
            cell = {k: v for k, v in self.runs[name].config.items() if k != "_wandb"}
        elif sweep.cells:
            name, cell = f"{sweep.name}r{len(self.runs):03d}", sweep.cells.pop(0)
            self.runs[name] = Run(name, sweep.project, {"displayName": name}, sweep.name)
            cell = {key: {"value": value} for key, value in cell.items()}
            self.runs[name].config |= cell
            self.runs[name].state = "pending"
        else:
            return [{"type": "exit"}]
        program = yaml.safe_load(sweep.config)["program"]
        return [{"type": "run", "run_id": name, "program": program, "args": cell}]
