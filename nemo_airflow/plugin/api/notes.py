"""A run's note and tags in MLflow, which those may change who may change the DAG's tasks."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.logging.decorators import action_logging
from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, Field

from nemo_airflow.connections import find_secrets
from nemo_airflow.plugin.api.answers import Answer, Done
from nemo_airflow.plugin.api.earlier import ask, need_run
from nemo_airflow.plugin.api.found import FoundJob, FoundJobDep
from nemo_airflow.plugin.api.rights import Rights, RightsDep
from nemo_airflow.tracking.mlflow import address, fields
from nemo_airflow.tracking.mlflow.store import Store, open_store
from nemo_airflow.tracking.reserved import split_tags

router = APIRouter(tags=["notes"])

_LENGTH = 5000
"""Characters that MLflow keeps of a tag, and of a note."""


class RunTag(Answer):
    """A tag of a run that is not of the record.

    Attributes:
        name: Its name.
        value: Its value.
    """

    name: str
    value: str


class Notes(Answer):
    """What people have written at a run.

    Attributes:
        note: The note, as Markdown.
        tags: The tags that its job and people have set.
        may_edit: Whether the user may change them.
    """

    note: str
    tags: list[RunTag]
    may_edit: bool


class NewNote(BaseModel):
    """A changed note.

    Attributes:
        text: The note, as Markdown; empty for none.
        was: The note that was changed: another one by now is not replaced.
    """

    text: Annotated[str, Field(max_length=_LENGTH)]
    was: str


class NewTag(BaseModel):
    """A changed tag.

    Attributes:
        name: Its name.
        value: Its value; None takes it away.
    """

    name: Annotated[str, Field(min_length=1, max_length=250)]
    value: Annotated[str, Field(max_length=_LENGTH)] | None


@router.get("/job/notes")
def read_notes(rights: RightsDep, found: FoundJobDep) -> Notes:
    """Returns the note and the tags of a run."""
    run, _ = need_run(found)
    shown = {name: value for name, value in split_tags(run.tags)[0].items() if not name.startswith("mlflow.")}
    return Notes(
        note=run.tags.get(fields.NOTE, ""),
        tags=[RunTag(name=name, value=value) for name, value in sorted(shown.items())],
        may_edit=rights.may_stop(found.place.dag_id),
    )


@router.post("/job/note", dependencies=[Depends(action_logging("nemo_set_note"))])
def set_note(rights: RightsDep, found: FoundJobDep, body: NewNote) -> Done:
    """Replaces the note of a run."""
    run_id, store = _editable(rights, found)
    _refuse_secrets(body.text)
    now = ask(lambda: store.run(run_id)).tags.get(fields.NOTE, "")
    if now != body.was:
        raise HTTPException(409, "Somebody else has changed the note meanwhile: look at it, and change it again.")
    ask(lambda: store.log(run_id, tags={fields.NOTE: body.text}))
    return Done(message="The note is saved.")


@router.post("/job/tags", dependencies=[Depends(action_logging("nemo_set_tag"))])
def set_tag(rights: RightsDep, found: FoundJobDep, body: NewTag) -> Done:
    """Sets a tag of a run, or takes it away."""
    run_id, store = _editable(rights, found)
    name = body.name.strip()
    if split_tags({name: ""})[1] or name.startswith("mlflow."):
        raise HTTPException(422, f"{name!r} is a tag of the record, or of MLflow itself: choose another name.")
    if not name or fields.clean_name(name) != name:
        raise HTTPException(422, f"MLflow takes no tag {name!r}: use letters, digits, spaces, and / _ - . :")
    if not body.value:
        if name not in ask(lambda: store.run(run_id)).tags:
            raise HTTPException(404, f"The run has no tag {name!r}.")
        ask(lambda: store.delete_tag(run_id, name))
        return Done(message=f"The tag {name} is gone.")
    _refuse_secrets(body.value)
    value = body.value
    ask(lambda: store.log(run_id, tags=fields.clean_tags({name: value})))
    return Done(message=f"The tag {name} is set.")


def _editable(rights: Rights, found: FoundJob) -> tuple[str, Store]:
    rights.need(rights.may_stop(found.place.dag_id))
    run, source = need_run(found)
    return run.run_id, ask(lambda: open_store(*address.resolve(source.tracking_uri, source.conn_id)))


def _refuse_secrets(text: str) -> None:
    if find_secrets(text):
        raise HTTPException(
            422, "This has a secret in it that Airflow knows: everybody who sees the run would read it."
        )
