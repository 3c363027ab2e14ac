"""Renders kept in the repository, so that a review shows what a change of a template does."""

from __future__ import annotations

import copy
from typing import Any

import yaml

from chartkit.rendering import Manifest, Scenario, manifests, rendered_files, title

_HEAD = "# Rendered from {values} by `make golden`. Compared by `make charts`; not for installing.\n"


def golden_text(scenario: Scenario) -> str:
    """Return a scenario's objects in a fixed order, what Helm made up at random masked, and the notes."""
    objects = sorted((_masked(item) for item in manifests(scenario)), key=title)
    notes = next(text for path, text in rendered_files(scenario).items() if path.endswith("NOTES.txt"))
    values = scenario.values_file.relative_to(scenario.directory)
    body = "".join(f"---\n{_dump(item)}" for item in objects)
    return _HEAD.format(values=values) + body + "---\n" + _dump({"notes": notes.strip() + "\n"})


def _masked(item: Manifest) -> Manifest:
    masked = copy.deepcopy(item)
    generated = item["kind"] == "Secret" or item["metadata"]["name"].endswith("-gateway-ca")
    if generated and "data" in masked:
        masked["data"] = dict.fromkeys(masked["data"], "(generated)")
    return masked


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, so that a diff of one line shows one line; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        _ = data
        return True


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000)
