"""What has changed in both accounts since they were last seen, as far as sync.yaml goes. Pure.

Told before a write fails of it, with the change to ``sync.yaml`` that mends it. What was resolved
against the accounts as they were seen is looked for by id in the accounts as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kommo_airtable_sync.core.account_drift import account_changes, problem, warning
from kommo_airtable_sync.core.config import CustomField, FieldPart, LinkField, SyncConfig
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.findings import Finding
from kommo_airtable_sync.core.mapping import Mapping as Resolved
from kommo_airtable_sync.core.mapping import resolve
from kommo_airtable_sync.core.problems import Mistakes
from kommo_airtable_sync.core.schemas import AirtableField, AirtableSchema, KommoSchema
from kommo_airtable_sync.core.sources import CUSTOM_KINDS, READABLE
from kommo_airtable_sync.core.types import ENTITIES, EntityKind
from kommo_airtable_sync.core.vocabulary import SELECTS, field_with_id, words_of

LISTED_MAX = 5
"""So many options are named; a longer list helps nobody."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Both schemas as they were at one time."""

    kommo: KommoSchema
    airtable: AirtableSchema


@dataclass(frozen=True, slots=True)
class _Use:
    """A place in sync.yaml that names an Airtable field.

    Args:
        path: e.g. ``fields[3].airtable``.
        given: what is written there.
        table_id: of the field's table.
        field: as it was seen.
        mapped: if a value of Kommo's is shown there.
        part: the line of it.
        entity: whose value.
    """

    path: str
    given: str
    table_id: str
    field: AirtableField
    mapped: FieldMapping | None = None
    part: FieldPart | LinkField | None = None
    entity: EntityKind = "leads"

    @property
    def line(self) -> str:
        """The path of the whole entry."""
        return self.path.removesuffix(".airtable")


def misfits(config: SyncConfig, now: Accounts, *, base_url: str) -> list[tuple[str, str]]:
    """What of sync.yaml does not fit the accounts: (path, the sentence with it)."""
    try:
        resolve(config, now.kommo, now.airtable, base_url=base_url)
    except Mistakes as error:
        return [(sentence.partition(":")[0], sentence) for sentence in error.found]
    return []


def compare(config: SyncConfig, seen: Accounts, now: Accounts, *, base_url: str) -> list[Finding]:
    """All that a person should know; the problems first.

    Args:
        config: ``sync.yaml``.
        seen: the accounts as they were last seen.
        now: as they are.
        base_url: of the Kommo account.
    """
    wrong = misfits(config, now, base_url=base_url)
    found: list[tuple[str, Finding]] = []
    try:
        mapping = resolve(config, seen.kommo, seen.airtable, base_url=base_url)
    except ConfigurationError:
        # sync.yaml is newer than what was seen: its lines cannot be compared with that.
        found = list(account_changes(config, seen.kommo, now.kommo, dict(wrong)))
    else:
        found = list(_Comparison(config, mapping, seen, now, dict(wrong)).all())
    told = {path for path, _ in found}
    found += [
        (path, problem(f"{sentence}.", "Mend this line of sync.yaml."))
        for path, sentence in wrong
        if not any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in told)
    ]
    if not wrong:
        found += _never_covered(config, now, {path for path, _ in found}, base_url)
    findings = list(dict.fromkeys(finding for _, finding in found))
    return sorted(findings, key=lambda each: each.level != "problem")


def _never_covered(
    config: SyncConfig, now: Accounts, told: set[str], base_url: str
) -> list[tuple[str, Finding]]:
    """Selects that could not take all that Kommo can say even before anything changed."""
    mapping = resolve(config, now.kommo, now.airtable, base_url=base_url)
    found: list[tuple[str, Finding]] = []
    for n, mapped in enumerate(mapping.fields[: len(config.fields)]):
        line, words = f"fields[{n}]", words_of(mapped.source, now.kommo)
        if line in told or words is None or mapped.type not in SELECTS or mapped.create_options:
            continue
        choices = {choice.strip() for choice in mapped.target.choices}
        lacking = sorted({word for word in words.values() if word} - choices)
        if lacking:
            named = ", ".join(repr(word) for word in lacking[:LISTED_MAX])
            message = f"Airtable field {mapped.name!r} has no option {named} ({line})."
            remedy = f"Add what leads may have, or in sync.yaml set {line}.create_options: true."
            found.append((line, warning(message, remedy)))
    return found


@dataclass(frozen=True)
class _Comparison:
    """Both accounts then and now; each method yields (path, finding)."""

    config: SyncConfig
    mapping: Resolved
    seen: Accounts
    now: Accounts
    wrong: Mapping[str, str]

    def all(self) -> Iterator[tuple[str, Finding]]:
        yield from self._tables()
        for use in self._uses():
            yield from self._airtable_field(use)
            if use.mapped is not None and use.part is not None:
                yield from self._kommo_field(use, use.mapped, use.part)
                yield from self._words(use, use.mapped)
        yield from account_changes(self.config, self.seen.kommo, self.now.kommo, self.wrong)

    # ---------------------------------------------------------------- what sync.yaml names

    def _uses(self) -> Iterator[_Use]:
        """Every field that sync.yaml names."""
        own, mapping = self.config.airtable, self.mapping
        yield from self._special(mapping, "airtable.key_field", own.key_field)
        for name in ("status_field", "modified_field"):
            given = getattr(own, name)
            if given is not None:
                yield from self._special(mapping, f"airtable.{name}", given)
        yield from self._mapped(mapping, "fields", self.config.fields, "leads")
        for n, (part, link) in enumerate(zip(self.config.links, mapping.links, strict=True)):
            path = f"links[{n}]"
            yield _Use(f"{path}.airtable", part.airtable, mapping.table_id, link.target)
            yield from self._special(link.mapping, f"{path}.key_field", part.key_field)
            entity = ENTITIES[link.kind]
            yield from self._mapped(link.mapping, f"{path}.fields", part.fields, entity)

    def _special(self, mapping: Resolved, path: str, given: str) -> Iterator[_Use]:
        field = mapping.table.find_field(given)
        if field is not None:
            yield _Use(path, given, mapping.table_id, field)

    def _mapped(
        self,
        mapping: Resolved,
        path: str,
        parts: tuple[FieldPart, ...] | tuple[LinkField, ...],
        entity: EntityKind,
    ) -> Iterator[_Use]:
        # The fields that link come after those of `fields`.
        for n, (part, mapped) in enumerate(zip(parts, mapping.fields, strict=False)):
            where = f"{path}[{n}].airtable"
            yield _Use(where, part.airtable, mapping.table_id, mapped.target, mapped, part, entity)

    # ---------------------------------------------------------------- Airtable

    def _tables(self) -> Iterator[tuple[str, Finding]]:
        named = [("airtable.table", self.config.airtable.table, self.mapping.table)]
        named += [
            (f"links[{n}].table", part.table, link.mapping.table)
            for n, (part, link) in enumerate(
                zip(self.config.links, self.mapping.links, strict=True)
            )
        ]
        for path, given, table in named:
            now = next((each for each in self.now.airtable.tables if each.id == table.id), None)
            if now is None:
                message = f"Airtable table {table.name!r} was deleted ({path})."
                yield path, problem(message, "Name another one, or restore it from the trash.")
            elif now.name != table.name:
                message = f"Airtable table {table.name!r} is now called {now.name!r} ({path})."
                yield path, _renamed(path, given, table.name, now.name, message)

    def _airtable_field(self, use: _Use) -> Iterator[tuple[str, Finding]]:
        table = next((t for t in self.now.airtable.tables if t.id == use.table_id), None)
        if table is None:
            return
        was = use.field
        now = next((each for each in table.fields if each.id == was.id), None)
        if now is None:
            before = next(t for t in self.seen.airtable.tables if t.id == use.table_id)
            known = {each.id for each in before.fields}
            new = [f for f in table.fields if f.id not in known and f.type == was.type]
            message = f"Airtable field {was.name!r} of {table.name} was deleted ({use.path})."
            yield use.path, problem(message, _instead(use, new))
            return
        if now.name != was.name:
            message = f"Airtable field {was.name!r} is now called {now.name!r} ({use.path})."
            yield use.path, _renamed(use.path, use.given, was.name, now.name, message)
        if now.type != was.type:
            message = (
                f"Airtable field {now.name!r} was a {was.type} field, now it is {now.type} "
                f"({use.path})."
            )
            yield use.path, self._retyped(use, message, f"Make it a {was.type} field again")
        elif now.linked_table_id != was.linked_table_id:
            message = f"Airtable field {now.name!r} links to another table now ({use.path})."
            yield use.path, problem(message, "Let it link to the table that sync.yaml names.")
        elif use.mapped is not None and now.choices != was.choices:
            yield from self._options(use, use.mapped, now)

    def _retyped(self, use: _Use, message: str, back: str) -> Finding:
        wrong = [text for path, text in self.wrong.items() if path.startswith(f"{use.line}.")]
        if use.mapped is None and use.path in self.wrong:
            wrong = [self.wrong[use.path]]
        if not wrong:
            remedy = "It still fits; its values are compared anew."
            return warning(message, remedy)
        if any(text.startswith(f"{use.line}.owner") for text in wrong):
            return problem(message, f"{back}, or in sync.yaml set {use.line}.owner: kommo.")
        return problem(message, f"{back}, or take {use.line} out of sync.yaml: {wrong[0]}.")

    def _options(
        self, use: _Use, mapped: FieldMapping, now: AirtableField
    ) -> Iterator[tuple[str, Finding]]:
        """Choices that came and went; one of each is taken for a rename."""
        name, line = repr(now.name), use.line
        gone = [each for each in use.field.choices if each not in now.choices]
        new = [each for each in now.choices if each not in use.field.choices]
        words = words_of(mapped.source, self.now.kommo, use.entity)
        known = set((words or {}).values())
        renamed = f" It may be {new[0]!r} now." if len(gone) == len(new) == 1 else ""
        for choice in gone:
            message = f"Option {choice!r} of Airtable field {name} is gone ({line}).{renamed}"
            if choice not in known and words is not None:
                yield use.path, warning(message)
            elif mapped.create_options:
                remedy = "The next lead that needs it makes it again"
                ids = [key for key, word in (words or {}).items() if word == choice]
                if renamed and ids and mapped.source.name == "stage":
                    remedy += f"; to use the new text set {line}.names: " + _names(ids, new[0])
                yield use.path, Finding("schema", "warning", message, f"{remedy}.")
            else:
                remedy = f"Add it again, or in sync.yaml set {line}.create_options: true."
                yield use.path, problem(message, remedy)
        for choice in new:
            message = f"Airtable field {name} has a new option {choice!r} ({line})."
            if choice in known or words is None:
                if not mapped.create_options:  # else the sync itself may have made it
                    yield use.path, warning(message)
            elif mapped.owner == "kommo":
                remedy = "Kommo knows no such value, and what is chosen by hand is taken back."
                yield use.path, warning(message, remedy)
            else:
                remedy = f"Kommo's {mapped.source.name} needs it too, else choosing it is refused."
                yield use.path, warning(message, remedy)

    # ---------------------------------------------------------------- Kommo

    def _kommo_field(
        self, use: _Use, mapped: FieldMapping, part: FieldPart | LinkField
    ) -> Iterator[tuple[str, Finding]]:
        was = mapped.source.custom_field
        if was is None or not isinstance(part.kommo, CustomField):
            return
        path = f"{use.line}.kommo.custom_field"
        now = field_with_id(was.id, self.now.kommo, use.entity)
        if now is None:
            message = f"Kommo field {was.name!r} ({was.id}) was deleted ({path})."
            yield path, problem(message, f"Take {use.line} out of sync.yaml, or map another one.")
            return
        if now.name != was.name:
            message = f"Kommo field {was.name!r} is now called {now.name!r} ({path})."
            given = part.kommo.custom_field
            if given == was.name:
                yield path, problem(message, f"In sync.yaml set {path}: {now.id}.")
            else:
                yield path, warning(message)
        if now.type != was.type:
            message = f"Kommo field {now.name!r} was of type {was.type}, now it is {now.type}."
            fits = now.type in CUSTOM_KINDS or now.type in READABLE
            finding = self._retyped(use, message, f"Make it {was.type} again")
            yield path if fits else use.line, finding

    def _words(self, use: _Use, mapped: FieldMapping) -> Iterator[tuple[str, Finding]]:
        """What Kommo can say now and could not, and the other way round."""
        before = words_of(mapped.source, self.seen.kommo, use.entity)
        after = words_of(mapped.source, self.now.kommo, use.entity)
        if before is None or after is None or mapped.source.name == "responsible_user_email":
            return
        field = mapped.source.custom_field
        noun = f"value of {field.name!r}" if field else mapped.source.name.replace("_", " ")
        if not after and mapped.source.name == "responsible_user":
            return  # no account is without users: the token may not list them any more
        for key in {**before, **after}:
            old, new = before.get(key), after.get(key)
            if old == new:
                continue
            if new is None:
                yield use.line, self._word_gone(mapped, noun, str(old), key)
            else:
                came = f"{new!r} is new" if old is None else f"{old!r} is now called {new!r}"
                what = f"Kommo's {noun} {came} ({key})"
                yield use.line, self._word_came(use, mapped, what, new, key)

    def _word_came(
        self, use: _Use, mapped: FieldMapping, what: str, word: str, key: str
    ) -> Finding:
        table = next((t for t in self.now.airtable.tables if t.id == use.table_id), None)
        now = table and next((f for f in table.fields if f.id == mapped.id), None)
        if now is None or now.type not in SELECTS or word in now.choices:
            return warning(f"{what}.")
        if mapped.create_options:
            remedy = f"{now.name} gets the option with the first lead."
            return warning(f"{what}.", remedy)
        remedy = f"Add it, or in sync.yaml set {use.line}.create_options: true"
        if mapped.source.name == "stage" and now.choices:
            remedy += f", or {use.line}.names: " + _names([key], "an option that there is")
        return problem(f"{what}, but no option of Airtable field {now.name!r}.", f"{remedy}.")

    def _word_gone(self, mapped: FieldMapping, noun: str, word: str, key: str) -> Finding:
        left = f"Kommo's {noun} {word!r} ({key}) is gone."
        if mapped.source.name == "responsible_user":
            gone = "gone or no longer active"
            remedy = "Leads keep showing them until Kommo gives them to somebody else."
            return Finding("schema", "warning", f"Kommo user {word!r} ({key}) is {gone}.", remedy)
        if mapped.owner == "kommo":
            return warning(left)
        remedy = f"Take the option out of Airtable field {mapped.name}: choosing it is refused."
        return warning(left, remedy)


def _renamed(path: str, given: str, old: str, new: str, message: str) -> Finding:
    if given == old:
        return problem(message, f'In sync.yaml set {path}: "{new}".')
    return warning(message)


def _instead(use: _Use, new: list[AirtableField]) -> str:
    if len(new) == 1:
        return f'If {new[0].name!r} took its place, in sync.yaml set {use.path}: "{new[0].name}".'
    if use.mapped is None and use.path.endswith(("key_field", ".airtable")):
        return "Restore it from the trash, or name another one in sync.yaml."
    return f"Take {use.line} out of sync.yaml, or restore it from the trash."


def _names(keys: list[str], text: str) -> str:
    return "{" + ", ".join(f'"{key}": "{text}"' for key in keys) + "}"
