"""What is registered at Kommo and at Airtable, so that they tell us of changes.

Facts about Airtable's webhooks are from reference/airtable-api 5 and 6, Kommo's from kommo-api 6.1.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from kommo_airtable_sync.core.config import SyncConfig
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.mapping import Mapping
from kommo_airtable_sync.core.types import LINK_KINDS, Json

DOCUMENT_PREFIX = "airtable_webhook "
KOMMO_PATH = "/hooks/kommo/"
AUTOMATION_PATH = "/hooks/airtable"
PING_PATH = "/hooks/airtable/ping"
SECRET_NAME = "kommo_airtable_sync"  # noqa: S105 - what the automation's secret is called
# A webhook ends after 7 days unless it is refreshed.
REFRESH_SECONDS = 86_400.0

# Notes are left out: none moves a field.
_LEAD_HOOKS = ("add_lead", "update_lead", "delete_lead", "restore_lead", "status_lead",
               "responsible_lead")  # fmt: skip
_LINKED_HOOKS = ("update", "delete", "restore", "responsible")


@dataclass(frozen=True, slots=True)
class AirtableWebhook:
    """An Airtable webhook of ours, as one stored document.

    Args:
        id: ``ach...``.
        secret: key of its MACs, base64; Airtable shows it once.
        url: where its pings go.
        specification: what it was created with; Airtable cannot change it.
        user_id: of the token, by which our own writes are known.
        registered_at: epoch seconds.
        refreshed_at: epoch seconds.
        cursor: number of the next payload to pull.
        broken: the code with which Airtable ended it, "" while it lives.
    """

    id: str
    secret: str = field(repr=False)
    url: str
    specification: Json
    user_id: str
    registered_at: float
    refreshed_at: float
    cursor: int = 1
    broken: str = ""

    @property
    def document(self) -> str:
        """The name under which it is stored."""
        return DOCUMENT_PREFIX + self.id

    def mac_secret(self) -> bytes:
        """The key of its MACs."""
        return base64.b64decode(self.secret)

    def refreshes_missed(self, now: float) -> int:
        """How many times it was due to be refreshed since it last was (epoch seconds)."""
        return int((now - self.refreshed_at) // REFRESH_SECONDS)

    def to_json(self) -> str:
        """As stored."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, body: str) -> AirtableWebhook:
        """What `to_json` gave."""
        return cls(**json.loads(body))


def kommo_hooks(config: SyncConfig) -> tuple[str, ...]:
    """The events that Kommo is to send."""
    kinds = sorted(LINK_KINDS[name] for name in config.clients)
    return _LEAD_HOOKS + tuple(f"{action}_{kind}" for kind in kinds for action in _LINKED_HOOKS)


def edited_in_airtable(mapping: Mapping) -> list[FieldMapping]:
    """The fields that Airtable owns or shares: only their edits there mean anything to us."""
    return [field for field in mapping.fields if field.owner != "kommo"]


def specification(mapping: Mapping) -> Json:
    """What the Airtable webhook is to watch: fields edited there, and the key.

    The key alone is worth a webhook, too: deletions come with it, and a key that a person changes.
    """
    watched = [mapping.key.id, *(field.id for field in edited_in_airtable(mapping))]
    filters = {
        "dataTypes": ["tableData"],
        "recordChangeScope": mapping.table_id,
        "watchDataInFieldIds": watched,
    }
    return {"options": {"filters": filters}}


def automation_script(url: str) -> str:
    """The JavaScript for an Airtable automation's "Run a script" action.

    It sends the record's id, never cells. Tries end within the 30 s that a script may run: a fetch
    gives up after 12 s, and the last one begins before 16. Airtable's scripts may lack
    ``setTimeout``, and a busy wait would use up their CPU time; then tries follow at once.

    Args:
        url: the whole address of the automation's hook.
    """
    return _SCRIPT.replace("@URL@", json.dumps(url)).replace("@SECRET@", json.dumps(SECRET_NAME))


def automation_steps(mapping: Mapping, fields: Iterable[FieldMapping]) -> list[str]:
    """How to set the automation up, a sentence each.

    Args:
        mapping: names the table.
        fields: on which it is to trigger.
    """
    names = ", ".join(f'"{field.name}"' for field in fields)
    steps = [
        f'Trigger "When record updated", table "{mapping.table_name}", watching only: {names}.',
        'Action "Run a script" with the script below.',
        "Input variable recordId: the Airtable record ID of the trigger's record.",
    ]
    if mapping.modified_field_id:
        steps.append("Input variable changedAt: the last-modified field of the same record.")
    return [*steps, f"Secret {SECRET_NAME}: the value of AIRTABLE_WEBHOOK_SECRET."]


_SCRIPT = """\
// Tells kommo-airtable-sync which record changed; it reads the record itself.
const { recordId, changedAt } = input.config();
const request = {
  method: "POST",
  headers: {
    "Content-Type": "application/json",
    Authorization: `Bearer ${input.secret(@SECRET@)}`,
  },
  body: JSON.stringify({ recordId, changedAt: changedAt ?? new Date().toISOString() }),
};
const pause = (milliseconds) =>
  typeof setTimeout === "function"
    ? new Promise((done) => setTimeout(done, milliseconds))
    : Promise.resolve();
const began = Date.now();
let problem = "";
for (let attempt = 1; attempt <= 4 && Date.now() - began < 15000; attempt += 1) {
  if (attempt > 1) await pause(1000);
  try {
    const response = await fetch(@URL@, request);
    problem = response.ok ? "" : `it answered ${response.status}`;
    if (response.status < 500) break;
  } catch (error) {
    problem = "it did not answer";
  }
}
if (problem) throw new Error(`kommo-airtable-sync was not told of ${recordId}: ${problem}`);
"""
