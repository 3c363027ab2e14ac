"""The pictures of ``docs/performance.md``, from what ``executors.py`` and ``fan_in.py`` measured."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

OURS, OTHERS = "#1f77b4", "#9aa5b1"


def draw(rounds: dict[str, list[dict[str, Any]]], directory: Path) -> None:
    """Draw one picture: bars per executor for what people ask first, and CPU by component."""
    figure, axes = plt.subplots(1, 4, figsize=(17, 3.8), layout="constrained")
    _bars(axes[0], rounds, "200 tasks, 16 slots: tasks/s", lambda one: one["burst"]["tasks_per_second"])
    _bars(
        axes[1],
        rounds,
        "one task ends → next starts, ms",
        lambda one: one["chain"]["end_to_next_start_ms"]["p50"],
    )
    _bars(axes[2], rounds, "queued → started, ms", lambda one: one["chain"]["queued_to_started_ms"]["p50"])
    _stacked_cpu(axes[3], rounds)
    axes[1].set_yscale("log")
    axes[2].set_yscale("log")
    figure.savefig(directory / "executors.svg", metadata={"Date": None})
    plt.close(figure)


def draw_fan_in(results: list[dict[str, Any]], directory: Path) -> None:
    """Draw how memory, CPU and the latency of an offer grow with the number of agents."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    agents = [one["agents"] for one in results]
    _line(axes[0], agents, [one["rss_mib"] for one in results], "gateway's memory, MiB RSS")
    _line(axes[1], agents, [one["cpu_percent"] for one in results], "gateway's CPU, % of a core")
    for share in ("p50", "p99"):
        _line(axes[2], agents, [one["offer_ms"][share] for one in results], "submitted → offered, ms", share)
    axes[2].legend(fontsize=8)
    figure.savefig(directory / "fan_in.svg", metadata={"Date": None})
    plt.close(figure)


def _line(axis: Any, agents: list[int], values: list[float], title: str, label: str = "") -> None:
    axis.plot(agents, values, marker="o", label=label)
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("agents", fontsize=8)
    axis.set_title(title, fontsize=10)


def _bars(axis: Any, rounds: dict[str, list[dict[str, Any]]], title: str, figure_of: Any) -> None:
    values = {
        name: statistics.median(figure_of(one) for one in measured) for name, measured in rounds.items()
    }
    bars = axis.bar(
        values.keys(), values.values(), color=[OURS if name == "remote" else OTHERS for name in values]
    )
    axis.bar_label(bars, fmt="%.3g")
    axis.set_title(title, fontsize=10)
    axis.tick_params(axis="x", labelsize=8, labelrotation=25)


def _stacked_cpu(axis: Any, rounds: dict[str, list[dict[str, Any]]]) -> None:
    parts = {
        name: measured[-1]["burst"]["cpu_seconds_per_task_by_component"] for name, measured in rounds.items()
    }
    components = sorted({component for one in parts.values() for component in one})
    bottom = dict.fromkeys(parts, 0.0)
    for component in components:
        heights = [one.get(component, 0.0) for one in parts.values()]
        axis.bar(list(parts), heights, bottom=list(bottom.values()), label=component)
        bottom = {name: bottom[name] + height for name, height in zip(parts, heights, strict=True)}
    axis.set_title("CPU-seconds per task, by component", fontsize=10)
    axis.tick_params(axis="x", labelsize=8, labelrotation=25)
    axis.legend(fontsize=7)
