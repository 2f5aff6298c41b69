"""The house as its imports show it: the rooms, floor by floor. tests/test_house.py holds their order."""

import ast
from collections.abc import Sequence
from functools import cache
from itertools import permutations, product
from pathlib import Path

HOUSE = Path(__file__).parent.parent
OTHERS = {"bench", "docs", "migrations", "tests", "torture"}  # no part of the service


@cache
def rooms() -> frozenset[str]:
    """Return the names of the rooms: the modules at the root, and the folders of modules."""
    files = {path.stem for path in HOUSE.glob("*.py") if path.name != "gunicorn.conf.py"}
    folders = {place.name for place in HOUSE.iterdir() if place.is_dir() and place.name[0] != "." and any(place.rglob("*.py"))}
    return frozenset(files | folders) - OTHERS


def modules() -> list[str]:
    """Return the names of all modules of the service."""
    paths = [path for room in sorted(rooms()) for path in [HOUSE / f"{room}.py", *sorted((HOUSE / room).rglob("*.py"))] if path.exists()]
    names = (".".join(path.relative_to(HOUSE).with_suffix("").parts) for path in paths)
    return [name for name in names if not name.endswith("__init__")]


def room_of(module: str) -> str:
    """Return the room in which a module stands."""
    return module.partition(".")[0]


def syntax(module: str) -> ast.Module:
    """Return a module's syntax."""
    return ast.parse((HOUSE / f"{module.replace('.', '/')}.py").read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """Return the modules of the house that one imports, wherever in it, but where it is run as a program, which may use all of them."""
    names = set()
    for statement in syntax(module).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'":
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    return frozenset(names & {*modules()})


@cache
def imported_rooms(room: str) -> frozenset[str]:
    """Return the rooms from which the modules of one import."""
    return frozenset(room_of(other) for module in modules() if room_of(module) == room for other in imports(module)) - {room}


@cache
def reached(room: str) -> frozenset[str]:
    """Return the rooms to which the imports of one lead, and theirs, and so on."""
    return imported_rooms(room).union(*map(reached, imported_rooms(room)))


def arrows() -> list[tuple[str, str]]:
    """Return which room imports from which, without what follows from other arrows."""
    return [
        (room, other)
        for room in sorted(rooms())
        for other in sorted(imported_rooms(room))
        if not any(other in reached(between) for between in imported_rooms(room))
    ]


def floors() -> list[list[str]]:
    """Return the rooms by floor, from the roof down: each as low as its imports let it be, but on the roof what nobody imports."""

    @cache
    def height(room: str) -> int:
        return max((1 + height(other) for other in imported_rooms(room)), default=0)

    imported = {other for room in rooms() for other in imported_rooms(room)}
    roof = max(map(height, rooms()))
    levels = {room: height(room) if room in imported else roof for room in rooms()}
    return _in_order([sorted(room for room in rooms() if levels[room] == level) for level in range(roof, -1, -1)])


def _in_order(unordered: list[list[str]]) -> list[list[str]]:
    """Return the floors with their rooms in the order in which the fewest arrows have a long way around others."""

    def cost(plan: tuple[tuple[str, ...], ...]) -> int:
        level = {room: number for number, floor in enumerate(plan) for room in floor}
        across = 0
        for room, other in arrows():
            starts, ends = (place_of(each, plan[level[each]]) for each in (room, other))
            across += not starts & ends and (3 if level[other] - level[room] > 1 else 1)
        return across

    best = min(product(*(permutations(floor) for floor in unordered)), key=cost)
    return [list(floor) for floor in best]


def place_of(room: str, floor: Sequence[str]) -> frozenset[str]:
    """Return at which sides of its floor a room stands."""
    return frozenset(side for side, outermost in (("left", floor[0]), ("right", floor[-1])) if room == outermost)


def purpose(room: str) -> str:
    """Return what a room is for, as the first sentence of its docstring says."""
    told = ast.get_docstring(syntax(f"{room}.__init__" if (HOUSE / room).is_dir() else room)) or ""
    return " ".join(told.partition("\n\n")[0].split()).partition(". ")[0].removesuffix(".").replace("`", "")
