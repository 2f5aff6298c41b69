"""The version after this one, as somebody would make it who adds a field by CONTRIBUTING's recipe: a copy of the house, changed in few files."""

import shutil
from pathlib import Path

FIELD = "note"
STEP = f"""
ALTER TABLE task ADD COLUMN {FIELD} text NOT NULL DEFAULT '';
ALTER TABLE task ADD CONSTRAINT task_{FIELD}_is_sound CHECK (char_length({FIELD}) <= 500) NOT VALID;
"""
CHANGES = {  # what stands in a file of ours, and what comes in its place
    "migrations/functions/fields.sql": (
        ("RETURN 1::smallint;", "RETURN 2::smallint;"),
        ("RETURN '{}'::jsonb;", f'RETURN \'{{"{FIELD}": ""}}\'::jsonb;'),
        ("'completion_at', 'completed_at', 'deleted_at'];", f"'completion_at', '{FIELD}', 'completed_at', 'deleted_at'];"),
        ("t.completion_at::text, t.completed_at::text,", f"t.completion_at::text, t.{FIELD}, t.completed_at::text,"),
        ('        || \',"created_at":"\'', f'        || \',"{FIELD}":\' || to_json(t.{FIELD})\n        || \',"created_at":"\''),
        (
            "    WHEN 'deleted_at' THEN value IS NULL OR",
            f"    WHEN '{FIELD}' THEN char_length(value) <= 500\n    WHEN 'deleted_at' THEN value IS NULL OR",
        ),
    ),
    "migrations/functions/write.sql": (
        ("name, description, status, completion_at, created_at", f"name, description, status, completion_at, {FIELD}, created_at"),
        ("t.status, t.completion_at, t.created_at", f"t.status, t.completion_at, t.{FIELD}, t.created_at"),
        ("(name, description, status, completion_at, completed_at,", f"(name, description, status, completion_at, {FIELD}, completed_at,"),
        ("(c.new).completion_at, (c.new).completed_at", f"(c.new).completion_at, (c.new).{FIELD}, (c.new).completed_at"),
    ),
    "models.py": (
        ("    completion_at = DateField(null=True)\n", f"    completion_at = DateField(null=True)\n    {FIELD} = TextField(default='')\n"),
    ),
    "tasks/values.py": (
        (
            "_A_DAY_IN_WORDS = ",
            'Note = Annotated[Text, Field(max_length=500, description="what else is to be known", examples=["at the corner"])]\n_A_DAY_IN_WORDS = ',
        ),
    ),
    "tasks/schemas.py": (
        ("LOOK = 1", "LOOK = 2"),
        ("    completion_at: DayOrNone = None\n", f'    completion_at: DayOrNone = None\n    {FIELD}: Note = ""\n'),
        ("    created_at: ShownMoment\n", f"    {FIELD}: str\n    created_at: ShownMoment\n"),
        ('    completion_at="02-10-2020",\n', f'    completion_at="02-10-2020",\n    {FIELD}="at the corner",\n'),
        (
            "import Day, DayFilter, DayOrNone, Description, Name, Status,",
            "import Day, DayFilter, DayOrNone, Description, Name, Note, Status,",
        ),
    ),
}


def make(house: Path, directory: Path) -> list[str]:
    """Make the next version in a directory, and return the files of the product that differ."""
    shutil.copytree(house, directory, ignore=shutil.ignore_patterns(".*", "__pycache__", "node_modules"), dirs_exist_ok=True)
    for name, changes in CHANGES.items():
        text = (directory / name).read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
            text = text.replace(old, new)
        (directory / name).write_text(text)
    last = max(path.name for path in (house / "migrations").glob("*.sql"))
    step = f"migrations/{int(last[:4]) + 1:04}.{FIELD}.sql"
    (directory / step).write_text(STEP)
    return [*CHANGES, step]
