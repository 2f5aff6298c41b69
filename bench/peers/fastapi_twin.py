"""The same tasks as the documentation of FastAPI and SQLAlchemy would have them; `python -m bench.peers.fastapi_twin` makes the tables.

FastAPI: "Simple OAuth2 with Password and Bearer", "OAuth2 with Password (and hashing), Bearer with JWT tokens", "Dependencies with yield",
"Response Model", "Body - Updates". SQLAlchemy 2: "ORM Quick Start", "Asynchronous I/O". Run by
`uvicorn --workers 2`, as "Server Workers" has it, with the access log that is on where nobody turns it off.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query, status
from fastapi.security import OAuth2PasswordBearer
from jwt.exceptions import InvalidTokenError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import DateTime, ForeignKey, Index, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ALGORITHM = "HS256"

engine = create_async_engine(os.environ["DATABASE_URL"])
make_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()
oauth2_scheme = OAuth2PasswordBearer(tokenUrl="token")


class Base(DeclarativeBase):
    """What has a table."""


class User(Base):
    """Who has an account."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    hashed_password: Mapped[str]
    disabled: Mapped[bool] = mapped_column(default=False)


class Task(Base):
    """A task."""

    __tablename__ = "tasks"
    __table_args__ = (Index("tasks_by_status", "owner_id", "status", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    description: Mapped[str]
    status: Mapped[str]
    completion_at: Mapped[date | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class TaskLog(Base):
    """A field that a change altered."""

    __tablename__ = "task_log"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), index=True)
    field: Mapped[str]
    old: Mapped[str | None]
    new: Mapped[str | None]
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class TaskStatus(StrEnum):
    """What a task can be."""

    NEW = "new"
    PLANNED = "planned"
    IN_WORK = "in_work"
    COMPLETED = "completed"


class TaskCreate(BaseModel):
    """A new task."""

    name: str = Field(min_length=1, max_length=200)
    description: str = Field(max_length=10_000)
    status: TaskStatus
    completion_at: date | None = None


class TaskUpdate(BaseModel):
    """What is to change."""

    name: str | None = Field(None, min_length=1, max_length=200)
    description: str | None = Field(None, max_length=10_000)
    status: TaskStatus | None = None
    completion_at: date | None = None


class TaskPublic(BaseModel):
    """A task as it is shown."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str
    status: TaskStatus
    completion_at: date | None
    created_at: datetime
    updated_at: datetime


async def get_session() -> AsyncIterator[AsyncSession]:
    """Open a session for one request."""
    async with make_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


async def get_current_user(session: Session, token: Annotated[str, Depends(oauth2_scheme)]) -> User:
    """Return the user whose token it is."""
    refusal = HTTPException(status.HTTP_401_UNAUTHORIZED, "Could not validate credentials", {"WWW-Authenticate": "Bearer"})
    try:
        username = jwt.decode(token, os.environ["SECRET_KEY"], algorithms=[ALGORITHM]).get("sub")
    except InvalidTokenError:
        raise refusal from None
    user = await session.scalar(select(User).where(User.username == username))
    if user is None:
        raise refusal
    if user.disabled:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "Inactive user")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


@app.get("/task/{task_id}", response_model=TaskPublic)
async def read_task(task_id: int, session: Session, user: CurrentUser) -> Task:
    """Show a task."""
    task = await session.scalar(select(Task).where(Task.id == task_id, Task.owner_id == user.id))
    if task is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Task not found")
    return task


@app.get("/task", response_model=list[TaskPublic])
async def read_tasks(
    session: Session,
    user: CurrentUser,
    status: TaskStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Sequence[Task]:
    """List the tasks."""
    query = select(Task).where(Task.owner_id == user.id).order_by(Task.id).limit(limit)
    if status is not None:
        query = query.where(Task.status == status)
    return (await session.scalars(query)).all()


@app.post("/task", response_model=TaskPublic, status_code=status.HTTP_201_CREATED)
async def create_task(new: TaskCreate, session: Session, user: CurrentUser) -> Task:
    """Create a task."""
    task = Task(owner_id=user.id, **new.model_dump())
    session.add(task)
    await session.commit()
    return task


@app.patch("/task/{task_id}", response_model=TaskPublic)
async def update_task(task_id: int, change: TaskUpdate, session: Session, user: CurrentUser) -> Task:
    """Change the fields that are sent, and log what they were."""
    task = await session.scalar(select(Task).where(Task.id == task_id, Task.owner_id == user.id).with_for_update())
    if task is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Task not found")
    now = datetime.now(UTC)
    for field, new in change.model_dump(exclude_unset=True).items():
        old = getattr(task, field)
        if old != new:
            session.add(TaskLog(task_id=task.id, field=field, old=old and str(old), new=new and str(new), changed_at=now))
            setattr(task, field, new)
            task.updated_at = now
    await session.commit()
    return task


async def create_tables() -> None:
    """Make the tables."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(create_tables())
