"""Just enough GraphQL for a stand-in server: run a query's selections over plain Python values.

A value is a dict, a list of such, a scalar, or a function of the field's arguments. What a query
does not ask for is left out of the answer; what the values lack is null.
"""

import json
import re
from typing import Any

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\.\.\.|[$@!:={}()\[\]|&]|[^\s,$@!:={}()\[\]|&"#]+')
COMMENT = re.compile(r"#[^\n]*")


def execute(text: str, variables: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Return the data that the query or mutation ``text`` selects from ``root``."""
    parser = _Parser(TOKEN.findall(COMMENT.sub("", text)))
    operation, fragments = None, {}
    while parser.tokens:
        kind = parser.take()
        if kind == "fragment":
            name = parser.take()
            parser.skip(2)  # on Type
            fragments[name] = parser.selections()
        elif kind == "{":
            parser.tokens.append("{")
            operation = parser.selections()
        else:
            defaults = parser.defaults()
            operation = parser.selections()
            variables = defaults | {k: v for k, v in variables.items() if v is not None}
    return _select(operation, root, variables, fragments)


def operation_name(text: str) -> str:
    """Return the name of the query or mutation, or the word anonymous."""
    found = re.search(r"\b(?:query|mutation)\s+(\w+)", COMMENT.sub("", text))
    return found.group(1) if found else "anonymous"


class _Parser:
    """A stack of tokens, the next one last."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens[::-1]

    def take(self) -> str:
        return self.tokens.pop()

    def skip(self, count: int) -> None:
        del self.tokens[-count:]

    def at(self, token: str) -> bool:
        return bool(self.tokens) and self.tokens[-1] == token

    def defaults(self) -> dict[str, Any]:
        """Read an operation's name and variables up to its selections; return their defaults."""
        found, name = {}, None
        while not self.at("{"):
            token = self.take()
            if token == "$":
                name = self.take()
            elif token == "=":
                found[name] = self.value()
        return found

    def selections(self) -> list[tuple]:
        """Read ``{ … }``; return (key, name, arguments, selections) or ("...", fragment)."""
        self.skip(1)
        found = []
        while not self.at("}"):
            name = self.take()
            if name == "...":
                if self.at("on"):
                    self.skip(2)
                    found.append(("...", self.selections()))
                else:
                    found.append(("...", self.take()))
                continue
            key = name
            if self.at(":"):
                self.skip(1)
                name = self.take()
            arguments = self.arguments() if self.at("(") else {}
            while self.at("@"):
                self.skip(2)
                self.arguments()
            found.append((key, name, arguments, self.selections() if self.at("{") else None))
        self.skip(1)
        return found

    def arguments(self) -> dict[str, Any]:
        return self._pairs(")")

    def _pairs(self, end: str) -> dict[str, Any]:
        self.skip(1)
        found = {}
        while not self.at(end):
            name = self.take()
            self.skip(1)  # the colon
            found[name] = self.value()
        self.skip(1)
        return found

    def value(self) -> Any:
        if self.at("{"):
            return self._pairs("}")
        if self.at("["):
            self.skip(1)
            items = []
            while not self.at("]"):
                items.append(self.value())
            self.skip(1)
            return items
        token = self.take()
        if token == "$":
            return _Variable(self.take())
        try:
            return json.loads(token)
        except ValueError:
            return token  # an enum


class _Variable(str):
    """A variable in place of a value."""


def _resolve(value: Any, variables: dict[str, Any]) -> Any:
    if isinstance(value, _Variable):
        return variables.get(value)
    if isinstance(value, dict):
        return {key: _resolve(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, variables) for item in value]
    return value


def _select(selections: Any, value: Any, variables: dict, fragments: dict) -> Any:
    if selections is None or value is None:
        return value
    if isinstance(value, list):
        return [_select(selections, item, variables, fragments) for item in value]
    found = {}
    for selection in selections:
        if selection[0] == "...":
            inner = selection[1]
            inner = fragments[inner] if isinstance(inner, str) else inner
            found |= _select(inner, value, variables, fragments)
            continue
        key, name, arguments, inner = selection
        item = value.get(name)
        if callable(item):
            item = item(**_resolve(arguments, variables))
        found[key] = _select(inner, item, variables, fragments)
    return found
