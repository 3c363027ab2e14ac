"""Evaluates the Tiltfile with a Starlark interpreter; Tilt's functions are stand-ins that record calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import starlark

from chartkit.rendering import ROOT

_EXTENSIONS = [starlark.LibraryExtension.StructType]
_RECORDED = (
    "allow_k8s_contexts",
    "docker_build",
    "fall_back_on",
    "helm",
    "k8s_resource",
    "k8s_yaml",
    "local",
    "local_resource",
    "port_forward",
    "sync",
)

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Recording:
    """What a Tiltfile called, by function, in order. A recorded call's value is its own description."""

    context: str = "kind-jetbridge"
    subcommand: str = "up"
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)

    def of(self, name: str) -> list[Call]:
        """Return the calls of one function."""
        return self.calls.get(name, [])

    def stand_ins(self) -> dict[str, Callable[..., Any]]:
        """Return every function of Tilt that may be called."""
        return {
            **{name: self._recorder(name) for name in _RECORDED},
            "k8s_context": lambda: self.context,
            "read_json": self._read_json,
        }

    def _recorder(self, name: str) -> Callable[..., Any]:
        def record(*args: Any, **kwargs: Any) -> Any:
            self.calls.setdefault(name, []).append((args, kwargs))
            return {"call": name, "args": list(args), "kwargs": kwargs}

        return record

    def _read_json(self, path: str, default: Any) -> Any:
        self.calls.setdefault("read_json", []).append(((path,), {}))
        return dict(self.own_settings) or default


def evaluate(recording: Recording) -> Recording:
    """Evaluate the Tiltfile; raises starlark.StarlarkError, for `fail` too."""
    _evaluate("Tiltfile", recording)
    return recording


def _evaluate(name: str, recording: Recording) -> starlark.FrozenModule:
    module = starlark.Module()
    for function, stand_in in recording.stand_ins().items():
        module.add_callable(function, stand_in)
    module["TRIGGER_MODE_MANUAL"] = "manual"
    dialect = starlark.Dialect.extended()
    dialect.enable_f_strings = False  # Tilt's Starlark has none
    loader = starlark.FileLoader(lambda path: _evaluate(path.removeprefix("./"), recording))
    prelude = f'config = struct(tilt_subcommand = "{recording.subcommand}")'
    for source in (prelude, (ROOT / name).read_text()):
        syntax = starlark.parse(name, source, dialect)
        starlark.eval(module, syntax, starlark.Globals.extended_by(_EXTENSIONS), loader)
    return module.freeze()


def settings_example() -> dict[str, Any]:
    """Return tilt/settings.example.json."""
    loaded: dict[str, Any] = json.loads((ROOT / "tilt" / "settings.example.json").read_text())
    return loaded
