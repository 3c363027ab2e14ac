"""Evaluates the Tiltfile with a Starlark interpreter; Tilt's functions are stand-ins that record calls."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import helm_python
import starlark
import yaml

from chartkit.rendering import ROOT, Manifest, parse

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
    "watch_file",
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


def applied(recording: Recording) -> tuple[Manifest, ...]:
    """Return every object that Tilt would apply, made anew."""
    return tuple(itertools.chain.from_iterable(_yaml(args[0]) for args, _ in recording.of("k8s_yaml")))


def _yaml(source: Any) -> list[Manifest]:
    if isinstance(source, str):
        return list(yaml.safe_load_all((ROOT / source).read_text()))
    if source["call"] == "local":
        answer = subprocess.run(source["args"][0], cwd=ROOT, check=True, capture_output=True, text=True)
        return list(yaml.safe_load_all(answer.stdout))
    return _helm(source["args"][0], **source["kwargs"])


def _helm(chart: str, *, name: str, namespace: str, values: list[str], set: list[str]) -> list[Manifest]:  # noqa: A002 - Tilt's name
    merged: dict[str, Any] = {}
    for file in values:
        _merge(merged, yaml.safe_load((ROOT / file).read_text()))
    for setting in set:
        path, _, value = setting.partition("=")
        _merge(merged, _at(path, merged, yaml.safe_load(value)))
    with helm_python.Chart.load(ROOT / chart) as loaded:
        return list(parse(loaded.render(merged, name=name, namespace=namespace)))


def _at(path: str, values: dict[str, Any], value: Any) -> dict[str, Any]:
    if path == "workers[0].replicas":
        return {"workers": [{**values["workers"][0], "replicas": value}, *values["workers"][1:]]}
    return helm_python.parse_set_string(f"{path}={value}")


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def settings_example() -> dict[str, Any]:
    """Return tilt/settings.example.json."""
    loaded: dict[str, Any] = json.loads((ROOT / "tilt" / "settings.example.json").read_text())
    return loaded
