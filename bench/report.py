"""The figures in words and tables."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import bloat, checks, costs, data, more, rounds, starts
from bench.goals import CONNECTIONS, goals
from bench.jobs import JOBS, TITLES
from bench.peers import kinto
from bench.results import Record, Results, choose, column, number, ratios, spread

HOUSE = Path(__file__).parent.parent
PAGE = HOUSE / "docs" / "performance.md"
COLUMNS = {
    "rate": "requests/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "service_us": "service us",
    "postgresql_us": "PostgreSQL us",
    "generator_us": "generator us",
    "cpu_us": "CPU us",
    "capacity": "capacity/s",
    "busy_cores": "busy cores",
}
GROWN = ("rate", "p50_ms", "p99_ms", "service_us", "postgresql_us", "cpu_us", "capacity")
HOW = {
    "ours": "as production runs it: gunicorn with two workers, all middlewares, a line in the log for each request (the log is a file)",
    "unbatched": "the same with `BATCH_SIZE=1`: a statement for each request",
    "pgbench": "`-M prepared`: the same functions and the same listing, a statement for each request, commits included; no HTTP, no tokens",
    "twin": "as the documentation of both has it: a session per request, the user looked up by the token, response models, the log's row in"
    " the same transaction; uvicorn with two workers and its access log; SQLAlchemy's own pool, which keeps 5 connections per worker and"
    " opens and closes up to 10 more",
    "kinto": "as its documentation has it for production: PostgreSQL behind storage, cache and permissions, the history plugin, JSON in"
    f" the log; gunicorn with two workers of {kinto.THREADS} threads; a bucket, a collection and permissions for each user; basic"
    " authentication, which costs it less than its accounts would",
    "hello": "aiohttp under the same gunicorn, without middlewares: reads the body where there is one and answers 200 bytes",
}
INTRODUCTION = """# Performance

Written by `make bench`, not by hand. Every figure is a median, with the least and the greatest in brackets. Figures of two machines
can't be compared; ratios can: both sides of each were measured in the same round, one after the other.
"""
FIRST = """## What it means for a server

Of the processor's time, PostgreSQL's included and the generator's left out, {connections} connections:

{jobs}
Somebody who keeps tasks asks for a list most of the time. Say that of ten requests six list, two or three read one task, one
changes it, and now and then one is created: then **a core answers {rate} a second**, the database included. Say further that each
person makes {requests} requests a day, a fifth of them in the busiest hour, and that the core is to be busy for {busy:.0%} of that hour
at the most: then **a core does for {people} people**. Whoever expects other things puts in other numbers; the first table is what
was measured. A worker takes {memory} MiB of memory, and there is one for each core.
"""
SHARES = {"W1": 0.25, "W2": 0.6, "W3": 0.05, "W4": 0.1}  # of all requests
REQUESTS_A_DAY, PART_OF_BUSIEST_HOUR, BUSY = 100, 0.2, 0.6
ROUNDS = """## Side by side

{users:,} users with {tasks} tasks each. wrk keeps its connections open; every request is another user's and names another task, along
one walk that is the same for all systems. {rounds} rounds of {seconds} s for each figure, after {warm_up} s to warm up. In a round
each system in turn (another one first each time) gets a fresh copy of the same database and does the jobs in their order.

Before and after each measurement {samples} answers are compared, whole, with what the data must give. Afterwards the rows of tasks and
log and the users' revisions are counted against what was acknowledged. A round with a wrong answer, of whichever
system, doesn't count and is run again, at most {most_refused} times: {refused}.

The generator has the same cores as everything else, so requests/s say how fast all of it was together, and CPU time per request (from
/proc) says what costs how much. **Capacity** is the number of cores by all CPU time of a request: service, PostgreSQL and generator.
wrk counts a wait much longer than the mean as several, for the requests that it held up, so its p99 is a severe one; pgbench counts
each wait once.
"""
COSTS = """## What a request pays for

CPU time in the service alone, in microseconds: applications of one layer more each answer in one process, without a socket and
without PostgreSQL.
{turns} turns of {requests} requests; each line is what its layer adds, as the difference of the least, since other load only ever adds.
"""
STARTS = """## Start and memory

From the start of the first process to the first 200 for a `GET /task/1` with a token, the schema being in place; {times} times each,
in turn. Memory is that of an idle worker after {answers} answers, the mean of two; PSS shares out what processes have in common, RSS
counts it for each.
"""
GROWTH = """## Growth

The service alone with {connections} connections and {per_user} tasks per user; {turns} turns of {seconds} s for each figure, all sizes in
each turn. However many users there are, {active:,} of them ask at the most, for {asked:,} tasks, which stay in memory: a token that a
worker sees for the first time has to be verified, and with many more users that would be what is measured.
"""
MORE = """## What may take long

An account of {tasks:,} tasks with {entries} changes each, and one of {few:,}, among {others:,} others' tasks. Each is asked of PostgreSQL
as the service asks it, and beside it the plain statement that finds or does the same on the same tables, in turn, {turns} times;
milliseconds. The plain statement checks nothing: no token, no lock, no page's end; a word is folded by `lower()` alone.
"""
BLOAT = """## What changes leave behind

{tasks:,} tasks whose statuses one connection changes again and again, as fast as it can. What a change leaves behind is vacuum's to take
away, which comes by itself meanwhile. The log only grows.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Put rows as a table of Markdown."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])


def summary(records: Sequence[Record]) -> str:
    """Return the medians in a table for the terminal, with each capacity as a part of hello's in the same round."""
    lines = ["".join(f"{name:>15}" for name in ("job", "connections", "system", *COLUMNS.values(), "of hello's"))]
    for job, connections, system in dict.fromkeys((each["job"], each["connections"], each["system"]) for each in records):
        cell = choose(records, job=job, connections=connections, system=system)
        parts = ratios(records, system, "hello", job=job, connections=connections)
        figures = [number(median(column(cell, name))) for name in COLUMNS] + [f"{median(parts):.3f}" if parts else ""]
        lines.append("".join(f"{text:>15}" for text in (job, connections, system, *figures)))
    return "\n".join(lines)


def growth_summary(records: Sequence[Record]) -> str:
    """Return the medians of the growth in a table for the terminal."""
    lines = ["".join(f"{name:>15}" for name in ("job", "tasks", *(COLUMNS[name] for name in GROWN)))]
    for job, tasks in dict.fromkeys((each["job"], each["tasks"]) for each in records):
        cell = choose(records, job=job, tasks=tasks)
        lines.append("".join(f"{text:>15}" for text in (job, f"{tasks:,}", *(number(median(column(cell, name))) for name in GROWN))))
    return "\n".join(lines)


def page(results: Results, before: str = "") -> str:
    """Return the whole page; what there are no results for is as it was before."""
    kept = {text.partition("\n")[0]: f"## {text}" for text in f"\n{before}".split("\n## ")[1:]}
    sections: dict[str, tuple[set[str], Callable[[], str]]] = {
        "What it means for a server": ({"rounds", "starts"}, lambda: _first(results)),
        "Goals": ({"rounds", "starts", "growth"}, lambda: _goals(results)),
        "Side by side": ({"rounds"}, lambda: _rounds(results["rounds"])),
        "What a request pays for": ({"costs"}, lambda: _costs(results["costs"])),
        "Start and memory": ({"starts"}, lambda: _starts(results["starts"])),
        "What may take long": ({"more"}, lambda: _more(results["more"])),
        "What changes leave behind": ({"bloat"}, lambda: _bloat(results["bloat"])),
        "Growth": ({"growth"}, lambda: _growth(results["growth"])),
    }
    texts = [make() if parts <= results.keys() else kept.get(heading, "") for heading, (parts, make) in sections.items()]
    return "\n".join([INTRODUCTION, *(f"{text.rstrip()}\n" for text in texts if text)])


def _first(results: Results) -> str:
    """Return what the figures mean for somebody who has a server and people."""
    cells = {job: choose(results["rounds"]["records"], system="ours", job=job, connections=CONNECTIONS) for job in JOBS}
    costs_us = {job: median(each["service_us"] + each["postgresql_us"] for each in cell) for job, cell in cells.items()}
    rate = 1e6 / sum(SHARES[job] * costs_us[job] for job in JOBS)
    people = rate * BUSY / (REQUESTS_A_DAY * PART_OF_BUSIEST_HOUR / 3600)
    rows = [[TITLES[job], number(us), number(1e6 / us)] for job, us in costs_us.items()]
    memory = median(column(choose(results["starts"]["records"], system="ours"), "pss_mib"))
    given = {"connections": CONNECTIONS, "requests": REQUESTS_A_DAY, "busy": BUSY}
    shown = {"rate": f"{round(rate, -2):,.0f}", "people": f"{round(people, -4):,.0f}", "memory": f"{memory:.0f}"}
    return FIRST.format(jobs=table(["a request to", "takes, us", "so a core does in a second"], rows), **given, **shown)


def _goals(results: Results) -> str:
    rows = [
        [goal.what, goal.words, spread(goal.figures), "reached" if goal.is_reached else "**not reached**"]
        for goal in goals(results)
        if goal.figures
    ]
    return f"## Goals\n\n{CONNECTIONS} connections where nothing else is said.\n\n" + table(["what", "goal", "is", ""], rows)


def _measured(part: dict[str, Any]) -> str:
    return f"Measured on {part['when']}.\n\n" + table(["on", ""], part["machine"].items())


def _cells(cell: Sequence[Record], figures: Iterable[str]) -> list[str]:
    return [spread(column(cell, figure)) for figure in figures]


def _rounds(part: dict[str, Any]) -> str:
    records, plan = part["records"], part["plan"]
    names = [name for name in rounds.ALL_NAMES if choose(records, system=name)]
    what = {"warm_up": rounds.WARM_UP_SECONDS, "samples": checks.SAMPLES, "tasks": data.TASKS_PER_USER, "most_refused": rounds.MAX_REFUSED}
    refused = "; ".join(plan.get("refused", [])) or "here none was"
    texts = [ROUNDS.format(**plan | what | {"refused": refused}), _measured(part)]
    texts.append(table(["system", "how it runs"], [[rounds.TITLES[name], HOW[name]] for name in names]))
    texts.append(table(["job", "what"], TITLES.items()))
    texts.append("![Requests per second by system](performance/throughput.svg)\n\n![Latency by connections](performance/latency.svg)\n")
    texts.append(_compared(records, [name for name in names if name != "ours"]))
    for connections in plan["connections"]:
        texts.append(f"### {connections} connection{'s' * (connections > 1)}\n")
        for job in JOBS:
            cells = [(rounds.TITLES[name], choose(records, system=name, job=job, connections=connections)) for name in names]
            rows = [[title, *_cells(cell, COLUMNS)] for title, cell in cells]
            texts.append(f"{job}: {TITLES[job]}\n\n{table(['system', *COLUMNS.values()], rows)}")
    return "\n".join(texts)


def _compared(records: Sequence[Record], others: Sequence[str]) -> str:
    rows = [[job, *(spread(ratios(records, "ours", other, job=job, connections=CONNECTIONS)) for other in others)] for job in JOBS]
    head = ["job", *(rounds.TITLES[other] for other in others)]
    return f"The service's capacity as a multiple of others', {CONNECTIONS} connections, round by round:\n\n{table(head, rows)}"


def _costs(part: dict[str, Any]) -> str:
    least = {(layer, job): min(column(choose(part["records"], layer=layer, job=job), "us")) for layer in costs.LAYERS for job in JOBS}
    rows, before = [], dict.fromkeys(JOBS, 0.0)
    for layer, title in costs.LAYERS.items():
        rows.append([title, *(number(least[layer, job] - before[job]) for job in JOBS)])
        before = {job: least[layer, job] for job in JOBS}
    rows.append(["**together**", *(f"**{number(before[job])}**" for job in JOBS)])
    return COSTS.format(turns=costs.TURNS, requests=costs.REQUESTS_PER_TURN) + "\n" + table(["", *JOBS], rows)


def _starts(part: dict[str, Any]) -> str:
    columns = {"seconds": "seconds to the first answer", "pss_mib": "PSS, MiB", "rss_mib": "RSS, MiB"}
    rows = [[rounds.TITLES[name], *_cells(choose(part["records"], system=name), columns)] for name in starts.NAMES]
    return STARTS.format(times=starts.TIMES, answers=starts.FIRST_ANSWERS) + "\n" + table(["system", *columns.values()], rows)


def _more(part: dict[str, Any]) -> str:
    figures = {"tasks": more.TASKS, "few": more.FEW, "entries": more.ENTRIES, "turns": more.TURNS, "others": more.CROWD.tasks}
    picture = "![Beside plain statements](performance/more.svg)\n"
    return "\n".join([MORE.format(**figures), _measured(part), picture, more_table(part["records"])])


def more_table(records: Sequence[Record]) -> str:
    """Return what may take long, beside the plain statements, as a table."""
    rows = []
    for what in dict.fromkeys(record["what"] for record in records):
        cell = choose(records, what=what)
        times = [record["ours_ms"] / record["plain_ms"] for record in cell]
        rows.append([what, *_cells(cell, ("ours_ms", "plain_ms")), spread(times)])
    return table(["what", "as the service asks", "plain", "times"], rows)


def _bloat(part: dict[str, Any]) -> str:
    columns = {"seconds": "seconds", "table_mib": "table, MiB", "indexes_mib": "its indexes, MiB", "log_mib": "log, MiB"}
    rows = [[f"{record['changes']:,}", *(number(record[name]) for name in columns)] for record in part["records"]]
    return "\n".join([BLOAT.format(tasks=bloat.SIZE.tasks), _measured(part), table(["changes", *columns.values()], rows)])


def _growth(part: dict[str, Any]) -> str:
    records, per_user = part["records"], data.TASKS_PER_USER
    asked = data.Size(max(part["plan"]["tasks"]) // per_user).walked
    texts = [
        GROWTH.format(**part["plan"], per_user=per_user, active=asked // per_user, asked=asked),
        _measured(part),
        "![Growth by rows](performance/growth.svg)\n",
    ]
    for job in JOBS:
        rows = [[f"{size:,}", *_cells(choose(records, job=job, tasks=size), GROWN)] for size in part["plan"]["tasks"]]
        texts.append(f"{job}: {TITLES[job]}\n\n{table(['tasks', *(COLUMNS[name] for name in GROWN)], rows)}")
    return "\n".join(texts)
