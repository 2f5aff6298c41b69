"""The figures as pictures."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("svg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.jobs import JOBS, TITLES
from bench.results import Record, Results, choose, column
from bench.rounds import ALL_NAMES
from bench.rounds import TITLES as SYSTEM_TITLES

COLORS = {"ours": "#1b6ca8", "unbatched": "#7fb3d5", "pgbench": "#2e8b57", "twin": "#c0392b", "hello": "#7f8c8d", "kinto": "#8e44ad"}
CONNECTIONS = 32

mpl.rcParams |= {
    "svg.hashsalt": "bench",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def draw(results: Results, directory: Path) -> None:
    """Draw what there are results for."""
    directory.mkdir(exist_ok=True)
    if "rounds" in results:
        records = results["rounds"]["records"]
        _throughput(choose(records, connections=CONNECTIONS), directory / "throughput.svg")
        _latency(records, directory / "latency.svg")
    if "growth" in results:
        _growth(results["growth"]["records"], directory / "growth.svg")
    if "more" in results:
        _more(results["more"]["records"], directory / "more.svg")


def _throughput(records: Sequence[Record], path: Path) -> None:
    names = [name for name in reversed(ALL_NAMES) if choose(records, system=name)]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    for axes, job in zip(_four(figure, shared=True), JOBS, strict=True):
        for place, name in enumerate(names):
            rates = column(choose(records, system=name, job=job), "rate")
            if rates:
                axes.plot([min(rates), max(rates)], [place, place], color=COLORS[name], linewidth=4, alpha=0.4)
                axes.plot([median(rates)], [place], "o", color=COLORS[name])
                axes.annotate(f"{median(rates):,.0f}", (median(rates), place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.margins(0.12, 0.2)
        axes.set_yticks(range(len(names)), [SYSTEM_TITLES[name].split(":")[0] for name in names])
    _save(
        figure,
        f"Requests per second, {CONNECTIONS} connections (medians; bars from least to greatest; each step of the scale is tenfold)",
        path,
    )


def _latency(records: Sequence[Record], path: Path) -> None:
    figure = Figure(figsize=(9, 6), layout="constrained")
    connections = sorted({each["connections"] for each in records})
    for axes, job in zip(_four(figure), JOBS, strict=True):
        for name in ALL_NAMES:
            for percentile, style in (("p50_ms", "-"), ("p99_ms", ":")):
                cells = [(number, choose(records, system=name, job=job, connections=number)) for number in connections]
                points = [(number, median(column(cell, percentile))) for number, cell in cells if cell]
                if points:
                    axes.plot(
                        *zip(*points, strict=True),
                        style,
                        marker=".",
                        color=COLORS[name],
                        label=SYSTEM_TITLES[name].split(":")[0] if style == "-" else None,
                    )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(connections, [str(number) for number in connections])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("connections")
        axes.set_ylabel("ms")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _save(figure, "Latency: p50 (lines) and p99 (dots), medians of the rounds", path)


def _growth(records: Sequence[Record], path: Path) -> None:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    sizes = sorted({each["tasks"] for each in records})
    for axes, job in zip(_four(figure), JOBS, strict=True):
        found = [column(choose(records, job=job, tasks=size), "capacity") for size in sizes]
        middle = [median(each) for each in found]
        below = [each - min(values) for each, values in zip(middle, found, strict=True)]
        above = [max(values) - each for each, values in zip(middle, found, strict=True)]
        axes.errorbar(sizes, middle, yerr=[below, above], marker="o", capsize=3, color=COLORS["ours"])
        axes.set_xscale("log")
        axes.set_ylim(0)
        axes.set_xlabel("tasks")
        axes.set_ylabel("capacity, requests/s")
    _save(figure, "Capacity of the service by the number of tasks (medians; bars from least to greatest)", path)


def _more(records: Sequence[Record], path: Path) -> None:
    names = [*dict.fromkeys(record["what"] for record in records)][::-1]
    figure = Figure(figsize=(9, 0.3 * len(names) + 1.5), layout="constrained")
    axes = figure.subplots()
    for system, title, color in (("plain_ms", "plain statement", COLORS["hello"]), ("ours_ms", SYSTEM_TITLES["ours"], COLORS["ours"])):
        found = [column(choose(records, what=name), system) for name in names]
        axes.hlines(range(len(names)), [min(each) for each in found], [max(each) for each in found], color=color, linewidth=4, alpha=0.4)
        axes.plot([median(each) for each in found], range(len(names)), "o", color=color, label=title)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("ms")
    axes.set_yticks(range(len(names)), names)
    figure.legend(loc="outside lower center", ncols=2)
    _save(figure, "What may take long (medians; bars from least to greatest; each step of the scale is tenfold)", path)


def _four(figure: Figure, *, shared: bool = False) -> list[Axes]:
    grid = figure.subplots(2, 2, sharex=shared, sharey=shared)
    for axes, job in zip(grid.flat, JOBS, strict=True):
        axes.set_title(f"{job}: {TITLES[job].split(',')[0]}", fontsize=9)
    return list(grid.flat)


def _save(figure: Figure, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, metadata={"Date": None})
