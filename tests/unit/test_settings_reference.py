"""The reference of settings names every setting and is what the classes say today."""

import importlib
import pkgutil
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

import jetbridge
from jetbridge.devstack.settings_reference import WHERE, reference, variable

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
CLASSES = {f"{module}.{name}" for _, module, name in WHERE}


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == reference(), (
        "run `python -m jetbridge.devstack.settings_reference > docs/settings.md`"
    )


def test_every_settings_class_is_on_it():
    found = set()
    for module in pkgutil.walk_packages(jetbridge.__path__, "jetbridge."):
        if not module.name.endswith(".settings"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            is_class = isinstance(value, type) and issubclass(value, BaseSettings)
            if is_class and value.__module__ == module.name:
                found.add(f"{module.name}.{name}")
    assert found == CLASSES


@pytest.mark.parametrize(("_title", "module", "name"), WHERE)
def test_every_setting_is_described_and_says_its_unit(_title, module, name):
    settings = getattr(importlib.import_module(module), name)
    for field, info in settings.model_fields.items():
        assert info.description, f"{name}.{field} says nothing"
        assert variable(settings, field).startswith("JETBRIDGE_")
        if info.annotation is float:
            assert field.endswith(("_seconds", "_ratio")), f"{name}.{field} has no unit in its name"
