"""Which runs belong to a study, and what they vary, where no sweep says so."""

from typing import Any

import pandas as pd

from analysis.runs.record import FetchError
from analysis.runs.tables import CONFIG, SUMMARY, is_missing, keys
from lib.spec.declaration import Declaration
from lib.spec.sweep import same_value

OPERATORS = ("$in", "$nin", "$ne", "$exists")


def matches(row: dict[str, Any], filters: dict[str, Any]) -> bool:
    """Say whether a run of an offline folder fits filters in W&B's syntax.

    Keys are config.<name>, summary_metrics.<name> (or summary.<name>) and state; a value is what
    must be there, or a mapping of ``OPERATORS``.

    Raises:
        FetchError: on a key or operator that a folder's runs cannot be asked for.
    """
    for key, wanted in filters.items():
        place = key.replace("summary_metrics.", SUMMARY)
        if key != "state" and not place.startswith((CONFIG, SUMMARY)):
            raise FetchError(
                f"--filter has the key {key!r}; for runs in a folder the keys are config.<name>, "
                "summary_metrics.<name> and state"
            )
        found = row.get(place)
        tests = wanted if isinstance(wanted, dict) else {"$in": [wanted]}
        for operator, value in tests.items():
            if operator not in OPERATORS:
                raise FetchError(
                    f"--filter has the operator {operator!r} for {key}; for runs in a folder there "
                    f"are {', '.join(OPERATORS)}"
                )
            if not _holds(operator, found, value, place in row):
                return False
    return True


def _holds(operator: str, found: Any, value: Any, there: bool) -> bool:
    if operator == "$exists":
        return there == bool(value)
    if operator == "$ne":
        return not same_value(found, value)
    among = any(same_value(found, one) for one in value)
    return among if operator == "$in" else not among


def sweep_of(runs: pd.DataFrame, declared: Declaration) -> dict[str, Any]:
    """Return the sweep that ``runs`` could have come from: what of their configuration is compared.

    Its parameters are the declared factors, arms' keys, blocks and replicate, with the levels that
    the runs have, in the order of the runs' ids.

    Raises:
        FetchError: when the declaration names no factors, or a key that no run has.
    """
    wanted = [*(declared.factors or {}), *declared.block]
    wanted += [key for arm in (declared.arms or {}).values() for key in arm]
    known = keys(runs, CONFIG)
    if not wanted:
        varied = [key for key in known if len(_levels(runs, key)) > 1]
        raise FetchError(
            "these runs have no sweep, so the declaration must say what is compared: `factors:`, "
            f"such as {{optimizer: [adam, sgd]}}. Their configurations vary {', '.join(varied)}"
        )
    parameters = {}
    wanted += [] if declared.repeats else [declared.replicate]
    for key in dict.fromkeys(wanted):
        if key not in known:
            raise FetchError(
                f"no run has {key} in its config, which the declaration names; they have "
                f"{', '.join(known)}"
            )
        parameters[key] = {"values": _levels(runs, key)}
    return {"method": "grid", "parameters": parameters}


def _levels(runs: pd.DataFrame, key: str) -> list[Any]:
    """Return a config key's values over all runs, each once."""
    found: list[Any] = []
    for value in runs[CONFIG + key]:
        if not is_missing(value) and not any(same_value(value, known) for known in found):
            found.append(value)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in found)
    return sorted(found) if numbers else found
