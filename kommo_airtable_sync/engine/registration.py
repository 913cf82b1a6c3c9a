"""Register with Kommo and Airtable, so that they tell us of changes; list and remove that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.registration import (
    KOMMO_PATH,
    PING_PATH,
    AirtableWebhook,
    kommo_hooks,
    specification,
)
from kommo_airtable_sync.core.types import Json
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.pull import pull_webhook, refresh
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.gaps import Gaps
from kommo_airtable_sync.store.registrations import registered
from kommo_airtable_sync.store.standing import database_now

KOMMO_DOCUMENT = "kommo webhook"
"""The address that Kommo calls, without the secret; its age: when it was last seen well."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One webhook of ours, as both sides know it.

    Args:
        side: ``kommo`` or ``airtable``.
        id: as the API gives it.
        address: where it sends to, without the secret.
        state: ``ok``, or what is wrong.
        tells: the events, or the ids of the fields that it watches.
    """

    side: str
    id: str
    address: str
    state: str
    tells: tuple[str, ...]


def register_kommo(engine: Engine, base_url: str, secret: str) -> tuple[str, ...]:
    """Have Kommo call the receiver; the same address again changes the webhook that is there.

    One that we registered for another address is ended, once the new one is there.

    Returns:
        The events that it will send.
    """
    documents, events = Documents(engine.database), kommo_hooks(engine.config)
    destination, there = f"{base_url}{KOMMO_PATH}{secret}", _with_secret(engine, secret)
    if there.get(base_url, {}).get("disabled"):
        # Registering it anew may leave it disabled (reference/kommo-api 6.4).
        engine.kommo.unsubscribe(destination)
    engine.kommo.subscribe(destination, events)
    former = there.get(documents.get(KOMMO_DOCUMENT) or base_url)
    if former is not None and former["destination"] != destination:
        engine.kommo.unsubscribe(str(former["destination"]))
    documents.put(KOMMO_DOCUMENT, base_url)
    return events


def mend_kommo_webhook(engine: Engine, secret: str) -> str:
    """Register Kommo's webhook again if Kommo disabled it or it is gone.

    What happened since it was last seen well is a gap, which a reconciliation looks through.

    Returns:
        What was wrong; ``""`` if all is well, or if no webhook was ever registered.
    """
    documents = Documents(engine.database)
    there = _made_by_us(engine, documents, secret)
    # A webhook that another version registered is taken as it is.
    base_url = documents.get(KOMMO_DOCUMENT) or next(iter(there), None)
    if base_url is None:
        return ""
    shown = there.get(base_url)
    if shown is not None and not shown.get("disabled"):
        documents.put(KOMMO_DOCUMENT, base_url)
        return ""
    age = documents.age_seconds(KOMMO_DOCUMENT)
    if age is None:
        well_at = float(there[base_url].get("updated_at") or 0)
    else:
        well_at = database_now(engine.database) - age
    # Noted first: if what follows fails, the next look notes it again.
    Gaps(engine.database).note(well_at)
    register_kommo(engine, base_url, secret)
    return "gone from Kommo" if shown is None else "disabled by Kommo after too many errors"


def register_airtable(engine: Engine, base_url: str) -> AirtableWebhook:
    """Have Airtable ping the receiver when a record is made, deleted, or edited where it matters.

    A webhook that already does just that is kept. One that does not is replaced: Airtable cannot
    change one. It is pulled to its end after the new one is there, so nothing falls between.
    """
    documents = Documents(engine.database)
    url, wanted = f"{base_url}{PING_PATH}", specification(engine.directory.mapping())
    there = {str(shown["id"]): shown for shown in engine.airtable.webhooks()}
    known = registered(documents)
    kept = next((hook for hook in known if _fits(hook, there.get(hook.id), url, wanted)), None)
    if kept is not None:
        refresh(engine, kept)
    else:
        kept = _create(engine, documents, url, wanted)
    for hook in known:
        if hook.id != kept.id:
            _retire(engine, documents, hook, is_there=hook.id in there)
    # Left by a store that is gone: it pings this address with a secret that nobody has any more.
    for webhook_id in there.keys() - {hook.id for hook in known}:
        if there[webhook_id].get("notificationUrl") == url:
            engine.airtable.delete_webhook(webhook_id)
    return kept


def remove(engine: Engine, secret: str) -> list[Registration]:
    """End every webhook of ours: Kommo's that carry our secret, Airtable's that we registered.

    Returns:
        Those that were there.
    """
    removed: list[Registration] = []
    documents = Documents(engine.database)
    for shown in _made_by_us(engine, documents, secret).values():
        engine.kommo.unsubscribe(str(shown["destination"]))
        removed.append(_kommo_registration(shown, secret))
    documents.delete(KOMMO_DOCUMENT)
    listed = {each.id: each for each in _in_airtable(engine, secret)}
    for hook in registered(documents):
        found = listed[hook.id]
        if found.state != _GONE:
            engine.airtable.delete_webhook(hook.id)
        documents.delete(hook.document)
        removed.append(found)
    return removed


def _fits(hook: AirtableWebhook, shown: Json, url: str, wanted: Json) -> bool:
    return (
        (hook.url, hook.specification, hook.broken) == (url, wanted, "")
        and shown is not None
        and shown.get("isHookEnabled") is not False
    )


def _create(engine: Engine, documents: Documents, url: str, wanted: Json) -> AirtableWebhook:
    user_id = engine.airtable.user_id()
    made = engine.airtable.create_webhook(url, wanted)
    now = engine.seconds()
    hook = AirtableWebhook(
        id=str(made["id"]),
        secret=str(made["macSecretBase64"]),
        url=url,
        specification=wanted,
        user_id=user_id,
        registered_at=now,
        refreshed_at=now,
    )
    documents.put(hook.document, hook.to_json())
    return hook


def _retire(engine: Engine, documents: Documents, hook: AirtableWebhook, *, is_there: bool) -> None:
    if is_there:
        # One that can tell nothing more is no reason to keep it.
        with contextlib.suppress(ConfigurationError):
            pull_webhook(engine, hook.id)
        engine.airtable.delete_webhook(hook.id)
    documents.delete(hook.document)


def _in_kommo(engine: Engine, secret: str) -> list[Registration]:
    shown = [each for each in engine.kommo.webhooks() if KOMMO_PATH in str(each.get("destination"))]
    ours = _our_addresses(engine, secret, shown)
    found = [_kommo_registration(each, secret) for each in shown]
    return [each for each in found if each.address.partition(KOMMO_PATH)[0] in ours]


def _with_secret(engine: Engine, secret: str) -> dict[str, Json]:
    """Kommo's webhooks that carry our secret, by the receiver's address."""
    return _calling_us(engine.kommo.webhooks(), secret)


def _made_by_us(engine: Engine, documents: Documents, secret: str) -> dict[str, Json]:
    try:
        return _with_secret(engine, secret)
    except ConfigurationError:
        # Kommo's plan has no webhooks by API, or the user no right: a person made one by hand.
        if documents.get(KOMMO_DOCUMENT) is None:
            return {}
        raise


def _calling_us(there: list[Json], secret: str) -> dict[str, Json]:
    ending = KOMMO_PATH + secret
    found = {str(shown.get("destination")): shown for shown in there}
    return {url.removesuffix(ending): shown for url, shown in found.items() if url.endswith(ending)}


def _our_addresses(engine: Engine, secret: str, in_kommo: list[Json]) -> set[str]:
    """The receiver's, as far as the store or the secret in Kommo's webhooks tell."""
    documents = Documents(engine.database)
    pinged = {hook.url.removesuffix(PING_PATH) for hook in registered(documents)}
    return {documents.get(KOMMO_DOCUMENT) or ""} | pinged | _calling_us(in_kommo, secret).keys()


def _kommo_registration(shown: Json, secret: str) -> Registration:
    base, _, given = str(shown["destination"]).partition(KOMMO_PATH)
    state = "ok" if given == secret else "carries another secret than KOMMO_WEBHOOK_SECRET"
    if shown.get("disabled"):
        state = "disabled by Kommo after too many errors: register again"
    return Registration(
        "kommo",
        str(shown.get("id") or ""),
        f"{base}{KOMMO_PATH}***",
        state,
        tuple(shown.get("settings") or ()),
    )


_GONE = "gone from Airtable: register again"


def _in_airtable(engine: Engine, secret: str) -> list[Registration]:
    known = {hook.id: hook for hook in registered(Documents(engine.database))}
    there = {str(shown["id"]): shown for shown in engine.airtable.webhooks()}
    strangers = [
        webhook_id
        for webhook_id, shown in there.items()
        if webhook_id not in known and str(shown.get("notificationUrl")).endswith(PING_PATH)
    ]
    if strangers:
        in_kommo: list[Json] = []
        with contextlib.suppress(ConfigurationError):  # its plan may have no webhooks by API
            in_kommo = engine.kommo.webhooks()
        ours = {address + PING_PATH for address in _our_addresses(engine, secret, in_kommo)}
        # Others are of another installation that syncs this base.
        strangers = [id_ for id_ in strangers if there[id_]["notificationUrl"] in ours]
    return [
        *(_airtable_registration(hook, there.get(hook.id)) for hook in known.values()),
        *(
            Registration(
                "airtable", id_, there[id_]["notificationUrl"], "not registered by this store", ()
            )
            for id_ in strangers
        ),
    ]


def _airtable_registration(hook: AirtableWebhook, shown: Json) -> Registration:
    state = "ok"
    if shown is None:
        state = _GONE
    elif hook.broken or shown.get("isHookEnabled") is False:
        state = f"ended by Airtable ({hook.broken or 'expired'}): register again"
    elif shown.get("areNotificationsEnabled") is False:
        state = "its pings are off since too many failed: register again"
    watched = hook.specification["options"]["filters"]["watchDataInFieldIds"]
    return Registration("airtable", hook.id, hook.url, state, tuple(watched))


SIDES: dict[str, Callable[[Engine, str], list[Registration]]] = {
    "kommo": _in_kommo,
    "airtable": _in_airtable,
}
"""What each side has registered for our receiver, by our secret."""
