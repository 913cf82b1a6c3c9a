from __future__ import annotations

from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.reports import Reports


def test_texts_are_found_by_the_beginning_of_their_names_taken_literally(
    database: Database,
) -> None:
    documents = Documents(database)
    for name in ("a_b 1", "a_b 2", "axb 1", "a_b", "A_B 1"):
        documents.put(name, f"text of {name}")
    assert documents.named("a_b ") == {"a_b 1": "text of a_b 1", "a_b 2": "text of a_b 2"}
    documents.delete("a_b 1")
    documents.delete("never there")
    assert list(documents.named("a_b ")) == ["a_b 2"]


def test_documents_are_remembered_with_the_events_or_alone(database: Database) -> None:
    inbox, documents = Inbox(database), Documents(database)
    event = IncomingEvent("record:rec1", "airtable", "update", dedupe_key="ach1:1:rec1")
    inbox.receive([event], remember={"cursor": "2"})
    inbox.receive([event], remember={"cursor": "3"})
    inbox.receive([], remember={"cursor": "4"})
    assert documents.get("cursor") == "4"
    assert len(Reports(database).list_events("all", None, 50)) == 1
