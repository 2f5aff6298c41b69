"""What is asked of an import, and what it answers."""

from pydantic import BaseModel, Field

from rest.values import Flag, Strict
from transfer.aside import MAX_SKIPPED
from transfer.entries import SkipCode


class ImportQuery(Strict):
    """How a file is to be imported."""

    skip: Flag = Field(False, description="true: without the rows and entries that can't be taken, told of in the answer; not with JSON")


class SkippedShown(BaseModel):
    """What an import passed over."""

    line: int = Field(description="where it stands in the file", examples=[12])
    code: SkipCode
    reason: str = Field(examples=["begins a VEVENT: only a VTODO is a task"])


class Imported(BaseModel):
    """What an import did, and what it passed over."""

    before: int = Field(description="the user's revision before it: undo since this to take the import back", examples=[9])
    revision: int = Field(description="the user's revision after it", examples=[10])
    count: int = Field(description="how many tasks it created or altered", examples=[1])
    skipped: list[SkippedShown] = Field(description=f"what it passed over, by line: the first {MAX_SKIPPED}")
    skipped_count: int = Field(description="how much it passed over", examples=[1])
