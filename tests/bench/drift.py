"""Drifts of every kind, planted on both sides as people and lost webhooks make them."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.stack import Stack


def plant(stack: Stack, count: int, seed: int = 4) -> Counter[tuple[str, str]]:
    """So many random drifts, each of a deal (or client) of its own; the findings to expect."""
    dice, hands = random.Random(seed), stack.stand_ins
    records = {each["fields"]["Kommo Deal ID"]: each["id"] for each in hands.records()}
    deals = iter(dice.sample(sorted(records), count))
    clients = iter(dice.sample(hands.records("Clients"), count // 3))

    def person(method: str, record: str, fields: dict[str, Any] | None = None) -> None:
        stack.control("airtable", method, f"records/{record}", {"fields": fields})

    def added(fields: dict[str, Any]) -> None:
        stack.control("airtable", "POST", "records?table=Deals", {"fields": fields})

    def in_kommo(lead: int, n: int) -> str:
        hands.edit_lead(lead, **dice.choice(({"name": f"Renamed {n}"}, {"price": 10**6 + n})))
        return "update"

    def in_airtable(lead: int, n: int) -> str:
        cells = ({"Amount": 2 * 10**6 + n}, {"Deal Name": "typed over"}, {"Sync Status": "fine"})
        person("PATCH", records[lead], dice.choice(cells))
        return "update"

    def on_both(lead: int, n: int) -> str:
        hands.edit_lead(lead, price=10**6 + n)
        alike = dice.random() < 0.5
        person("PATCH", records[lead], {"Amount": (1 if alike else 2) * 10**6 + n})
        return "adopt" if alike else "update"

    def no_record(lead: int, _: int) -> str:
        person("DELETE", records[lead])
        return "recreate"

    def no_lead(lead: int, _: int) -> str:
        stack.control("kommo", "DELETE", f"leads/{lead}")
        return "mark"

    def copied(lead: int, _: int) -> str:
        added({"Kommo Deal ID": lead, "Deal Name": "a copy"})
        return "duplicate"

    def key_emptied(lead: int, _: int) -> str:
        person("PATCH", records[lead], {"Kommo Deal ID": None})
        return "key_changed"

    def elsewhere(_: int, n: int) -> tuple[str, str]:
        """What happens to no deal that has a record."""
        match dice.randrange(3):
            case 0:
                return f"lead:{hands.add_lead(name=f'Unheard of {n}')}", "create"
            case 1:
                added({"Kommo Deal ID": 990_000_000 + n, "Deal Name": "whose?"})
                return f"lead:{990_000_000 + n}", "orphan"
            case _:
                client = next(clients)
                person("PATCH", client["id"], {"Name": f"Typed over {n}"})
                return f"contact:{client['fields']['Kommo Contact ID']}", "update"

    kinds: list[Callable[[int, int], str | tuple[str, str]]] = [in_kommo, in_airtable, on_both]
    kinds += [no_record, no_lead, copied, key_emptied, elsewhere, elsewhere, elsewhere]
    expected: Counter[tuple[str, str]] = Counter()
    for n in range(count):
        lead = next(deals)
        told = (kinds[n] if n < len(kinds) else dice.choice(kinds))(lead, n)
        expected[(f"lead:{lead}", told) if isinstance(told, str) else told] += 1
    return expected
