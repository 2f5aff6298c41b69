"""The picture of the house: `make house` draws docs/house.svg. Lengths are in pixels."""

import html
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from docs.house import HOUSE, arrows, floors, modules, place_of, purpose, reached, room_of

PICTURE = HOUSE / "docs" / "house.svg"
WIDTH, EDGE, LANE = 900, 20, 20  # of the picture, around it, and for an arrow that passes floors by
GAP, PAD = 30, 14  # between boxes, and inside of them
LINE, SMALL_LINE = 19, 18
TITLE, TEXT, SMALL = 9.1, 7.3, 7.3  # the width of a character, in the widest of the usual fonts
CORNER, PORT = 7, 52  # of arrows: how round, and how far from a room's corner they begin and end
STYLE = """
  .ground { fill: #ffffff } .box { stroke-width: 1.2 } .arrow { fill: none; stroke-width: 1.5; marker-end: url(#head) }
  .plain { fill: #f4f4f1; stroke: #bdbdb4 } .general { fill: #eaf2fb; stroke: #8fb2d9 } .ours { fill: #fdf2df; stroke: #dfb56d }
  .arrow { stroke: #6b7280 } .head { fill: #6b7280 } .title, .text { fill: #1f2328 } .small { fill: #57606a }
  .title { font: 600 15px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
  .text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif }
  .small { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .plain { fill: #1c2128; stroke: #545d68 } .general { fill: #12263f; stroke: #3f6ea8 }
    .ours { fill: #2e2412; stroke: #8d6c30 } .arrow { stroke: #9198a1 } .head { fill: #9198a1 }
    .title, .text { fill: #e6edf3 } .small { fill: #a9b3be }
  }
"""


Point = tuple[float, float]


class Box(NamedTuple):
    """A room on its floor."""

    room: str
    x: float
    y: float
    width: float
    height: float
    lines: list[str]

    @property
    def middle(self) -> float:
        """Where an arrow begins or ends that stands alone."""
        return self.x + self.width / 2


def draw() -> str:
    """Return the picture."""
    plan = floors()
    level = {room: number for number, floor in enumerate(plan) for room in floor}
    lanes = _lanes(plan, level)
    first = EDGE + LANE * max((number for side, number in lanes.values() if side == "left"), default=0)
    last = WIDTH - EDGE - LANE * max((number for side, number in lanes.values() if side == "right"), default=0)
    boxes: dict[str, Box] = {}
    y: float = EDGE
    for floor in plan:
        width = (last - first - GAP * (len(floor) - 1)) / len(floor)
        drawn = [_box(room, first + number * (width + GAP), y, width) for number, room in enumerate(floor)]
        height = max(box.height for box in drawn)
        boxes |= {box.room: box._replace(height=height) for box in drawn}
        y += height + GAP
    legend = [*_legend(first, y - GAP / 2)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 48:g}" width="{WIDTH}" height="{y + 48:g}" role="img">',
            "<!-- made of the imports by `make house` -->",
            "<title>The rooms of the house, and which imports from which</title>",
            f"<style>{STYLE}</style>",
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
            '<path class="head" d="M0 0.5 8 4 0 7.5z"/></marker>',
            '<rect class="ground" width="100%" height="100%" rx="10"/>',
            *(line for box in boxes.values() for line in _shown(box)),
            *(_arrow(boxes[room], boxes[other], lanes.get((room, other)), (first, last)) for room, other in arrows()),
            *legend,
            "</svg>\n",
        ]
    )


def _lanes(plan: list[list[str]], level: dict[str, int]) -> dict[tuple[str, str], tuple[str, int]]:
    """Return the side, and the number from within, of the lane of each arrow that passes floors by; those to one room share it."""
    lanes: dict[tuple[str, str], tuple[str, int]] = {}
    numbers: dict[tuple[str, str], int] = {}  # by side, and where they lead
    for room, other in sorted(arrows(), key=lambda arrow: level[arrow[1]] - level[arrow[0]]):
        if level[other] - level[room] > 1:
            own, its = place_of(room, plan[level[room]]), place_of(other, plan[level[other]])
            side = max(own & its or own or {"right"})
            number = numbers.setdefault((side, other), 1 + sum(side == taken for taken, _ in numbers))
            lanes[room, other] = side, number
    return lanes


def _box(room: str, x: float, y: float, width: float) -> Box:
    folder = (HOUSE / room).is_dir()
    name = f"{room}/" if folder else f"{room}.py"
    beside = int((width - 2 * PAD - len(name) * TITLE - 12) / TEXT)
    said = purpose(room)
    wrapped = ["", *textwrap.wrap(said, int((width - 2 * PAD) / TEXT))] if len(said) > beside else [said]
    names = [module.removeprefix(f"{room}.").replace(".", "/") for module in modules() if room_of(module) == room] if folder else []
    small = textwrap.wrap("\N{NO-BREAK SPACE} ".join(names), int((width - 2 * PAD) / SMALL))
    lines = [_text("title", x + PAD, y + 25, name)]
    beside_name = x + PAD + len(name) * TITLE + 12
    lines += [_text("text", x + PAD if n else beside_name, y + 25 + LINE * n, line) for n, line in enumerate(wrapped) if line]
    below = y + 25 + LINE * (len(wrapped) - 1)
    lines += [_text("small", x + PAD, below + 4 + SMALL_LINE * n, line) for n, line in enumerate(small, 1)]
    return Box(room, x, y, width, below - y + (17 if small else 15) + SMALL_LINE * len(small), lines)


def _text(kind: str, x: float, y: float, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{html.escape(words, quote=False)}</text>'


def _kind(room: str) -> str:
    if room == "models" or "models" in reached(room):
        return "ours"
    return "general" if (HOUSE / room).is_dir() else "plain"


def _shown(box: Box) -> Iterator[str]:
    yield f'<rect class="box {_kind(box.room)}" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="6"/>'
    yield from box.lines


def _arrow(start: Box, end: Box, lane: tuple[str, int] | None, bounds: tuple[float, float]) -> str:
    return f'<path class="arrow" d="{_rounded(_around(start, end, *lane, bounds) if lane else _down(start, end))}"/>'


def _down(start: Box, end: Box) -> list[Point]:
    bottom, top = start.y + start.height, end.y
    first, last = (f(box.x + at * box.width for box in (start, end)) for f, at in ((max, 0), (min, 1)))  # where both are
    if last - first > 2 * PORT:  # straight down, if possible in the middle of one
        a = b = max(first + PORT, min(last - PORT, min(start, end, key=lambda box: box.width).middle))
    else:
        a, b = start.middle, end.x + (PORT if start.x < end.x else end.width - PORT)
    return [(a, bottom), (a, (bottom + top) / 2), (b, (bottom + top) / 2), (b, top)]


def _around(start: Box, end: Box, side: str, number: int, bounds: tuple[float, float]) -> list[Point]:
    edge, outwards = (bounds[0], -1) if side == "left" else (bounds[1], 1)
    x = edge + outwards * (LANE * number - 4)

    def at_edge(box: Box) -> bool:
        return abs(edge - (box.x if side == "left" else box.x + box.width)) < 1

    bottom, over = start.y + start.height, end.y - GAP / 3
    leaves, under = bottom - 6 - 12 * number, bottom + GAP / 3
    away = [(edge, leaves), (x, leaves)]
    if not at_edge(start):  # others stand before it: down, and under them
        away = [(start.middle + 20, bottom), (start.middle + 20, under), (x, under)]
    there = [(x, end.y + end.height / 2), (edge, end.y + end.height / 2)]
    if not at_edge(end):
        there = [(x, over), (end.middle + 20, over), (end.middle + 20, end.y)]
    return away + there


def _rounded(points: Sequence[Point]) -> str:
    steps = [points[0]] + [point for before, point in pairwise(points) if point != before]
    path = f"M{steps[0][0]:g} {steps[0][1]:g}"
    for (ax, ay), (x, y), (bx, by) in zip(steps, steps[1:], steps[2:], strict=False):
        if (ax == x) == (x == bx):
            continue  # straight on
        before, after = ((x + _towards(x, to_x), y + _towards(y, to_y)) for to_x, to_y in ((ax, ay), (bx, by)))
        path += f"L{before[0]:g} {before[1]:g}Q{x:g} {y:g} {after[0]:g} {after[1]:g}"
    return f"{path}L{steps[-1][0]:g} {steps[-1][1]:g}"


def _towards(start: float, end: float) -> float:
    return max(-CORNER, min(CORNER, (end - start) / 2))


def _legend(x: float, y: float) -> Iterator[str]:
    yield _text("text", x, y + 42, "An arrow leads to what is imported; those that follow from others are left out.")
    for kind, said in (("ours", "knows of tasks"), ("general", "knows nothing of tasks, and could serve any service")):
        yield f'<rect class="box {kind}" x="{x:g}" y="{y + 10:g}" width="18" height="13" rx="3"/>'
        yield _text("text", x + 25, y + 21, said)
        x += 43 + TEXT * len(said)


if __name__ == "__main__":
    PICTURE.write_text(draw())
