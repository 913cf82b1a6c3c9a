from __future__ import annotations

import json
from datetime import date, datetime, timezone

import pytest
from dagster._utils.schedules import is_valid_cron_string

from kommo_airtable_sync.core.config import CustomField, json_schema, parse_config
from kommo_airtable_sync.core.errors import ConfigurationError
from tests.core.accounts import config_text

# The example of the contract, comments left out.
WHOLE = r"""
version: 1
kommo:
  include:
    pipelines: ["Sales", 8765]
    stages: ["Sales / Won", "Enterprise / In Progress"]
    tags: []
    custom_fields: [{field: "Region", in: ["EU", "UK"]}]
    sticky: true
  exclude:
    tags: ["internal", "test"]
    name_matches: "(?i)^test\\b"
    custom_fields: []
  when_excluded: keep
  when_deleted: mark
airtable:
  table: Deals
  key_field: Kommo Deal ID
  status_field: Sync Status
  modified_field: Last Modified
  when_deleted: recreate
fields:
  - {airtable: Deal Name, kommo: name}
  - {airtable: Stage, kommo: stage, names: {"142": "Won"}, create_options: true}
  - {airtable: Amount, kommo: price, owner: both, on_conflict: kommo}
  - {airtable: Manager, kommo: responsible_user}
  - {airtable: Onboarding Status, kommo: {custom_field: 789012}, owner: airtable}
links:
  - airtable: Client
    kommo: main_contact
    table: Clients
    key_field: Kommo Contact ID
    fields:
      - {airtable: Name, kommo: name}
      - {airtable: Phone, kommo: {custom_field: PHONE}}
enrich: []
safety: {max_share_changed: 0.3, max_records_changed: 500, max_deletes: 20}
reconcile: {cron: "0 3 * * *", timezone: Europe/Berlin, since: null}
realtime: {linger_seconds: 6, settle_seconds: 0, max_attempts: 8}
"""


def refused(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text)
    return caught.value.message


def test_the_whole_contract_is_read():
    config = parse_config(WHOLE)
    assert config.kommo.include.pipelines == ("Sales", 8765)
    assert config.kommo.include.custom_fields[0].any_of == ("EU", "UK")
    assert config.fields[1].names == {"142": "Won"}
    assert config.fields[4].kommo == CustomField(custom_field=789012)
    assert config.links[0].fields[1].kommo == CustomField(custom_field="PHONE")


def test_what_is_left_out_has_the_contracts_defaults():
    config = parse_config(config_text("airtable: Deal Name, kommo: name"))
    field = config.fields[0]
    assert (field.owner, field.on_conflict, field.create_options) == ("kommo", "kommo", False)
    assert (config.kommo.when_excluded, config.kommo.when_deleted) == ("keep", "mark")
    assert (config.kommo.include.sticky, config.kommo.include.stages) == (True, ())
    assert config.airtable.when_deleted == "recreate"
    assert config.safety.model_dump() == {
        "max_share_changed": 0.3,
        "max_records_changed": 500,
        "max_deletes": 20,
    }
    assert config.reconcile.cron == "0 3 * * *"
    assert config.realtime.model_dump() == {
        "linger_seconds": 6,
        "settle_seconds": 0,
        "max_attempts": 8,
    }


def test_the_json_schema_describes_the_whole_file():
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["properties"]) == {
        "version", "kommo", "airtable", "fields", "links", "enrich", "safety", "reconcile",
        "realtime",
    }  # fmt: skip
    assert schema["required"] == ["version", "airtable", "fields"]
    assert schema["additionalProperties"] is False
    assert set(schema["$defs"]["Condition"]["properties"]) == {"field", "in"}


@pytest.mark.parametrize(
    ("key", "value", "path", "allowed"),
    [
        ("kommo", "nme", "fields[0].kommo", "did you mean 'name'"),
        ("owner", "kommmo", "fields[0].owner", "allowed: kommo, airtable, both"),
        ("on_conflict", "latest", "fields[0].on_conflict", "kommo, airtable, newest, hold"),
        ("create_options", "3", "fields[0].create_options", "boolean"),
        ("names", "[a]", "fields[0].names", "mapping"),
        ("kommo", "{custom_field: [1]}", "fields[0].kommo.custom_field", "must be a valid integer"),
        ("kommo", "{custom_feld: 1}", "fields[0].kommo.custom_feld", "did you mean 'custom_field'"),
        ("ownr", "kommo", "fields[0].ownr", "did you mean 'owner'"),
    ],
)
def test_a_mistake_in_a_field_is_named_by_its_path(key, value, path, allowed):
    entry = {"airtable": "Deal Name", "kommo": "name"} | {key: value}
    message = refused(config_text(", ".join(f"{k}: {v}" for k, v in entry.items())))
    assert f"{path}: " in message
    assert allowed in message


@pytest.mark.parametrize(
    ("more", "path", "allowed"),
    [
        ("reconcile: {timezone: Europe/Berln}", "reconcile.timezone", "Europe/Berlin"),
        ("reconcile: {cron: daily}", "reconcile.cron", "five parts"),
        ("reconcile: {cron: 0 25 * * *}", "reconcile.cron", "hour (0 to 23)"),
        ("realtime: {settle_seconds: .inf}", "realtime.settle_seconds", "finite"),
        ("reconcile: {since: 2026-01-01 10:00:00}", "reconcile.since", "timezone"),
        ("safety: {max_share_changed: 3}", "safety.max_share_changed", "less than or equal to 1"),
        ("realtime: {linger: 3}", "realtime.linger", "did you mean 'linger_seconds'"),
        ("enrich: [boom]", "enrich[0]", "pattern"),
        ("links: [{airtable: A, kommo: contact}]", "links[0].kommo", "main_contact, company"),
        ("links: [{fields: [{airtable: A, kommo: price}]}]", "links[0].fields[0].kommo",
         "first_name, last_name, responsible_user, url, id"),
        ("links: [{fields: [{airtable: A, kommo: name, owner: both}]}]",
         "links[0].fields[0].owner", "airtable, kommo, create_options"),
        ("lnks: []", "lnks", "did you mean 'links'"),
    ],
)  # fmt: skip
def test_a_mistake_elsewhere_is_named_by_its_path(more, path, allowed):
    message = refused(config_text("airtable: Deal Name, kommo: name") + "\n" + more)
    assert f"{path}: " in message
    assert allowed in message


@pytest.mark.parametrize(
    ("kommo", "path"),
    [
        ("{include: {pipelines: [yes]}}", "kommo.include.pipelines[0]"),
        (
            "{include: {custom_fields: [{field: A, inn: [x]}]}}",
            "kommo.include.custom_fields[0].inn",
        ),
        ("{exclude: {name_matches: '('}}", "kommo.exclude.name_matches"),
        ("{exclud: {}}", "kommo.exclud"),
        ("{when_excluded: drop}", "kommo.when_excluded"),
    ],
)
def test_a_mistake_in_the_filters_is_named_by_its_path(kommo, path):
    assert f"{path}: " in refused(config_text("airtable: Deal Name, kommo: name", kommo=kommo))


def test_all_mistakes_are_named_at_once():
    message = refused("version: 2\nairtable: {table: Deals}\nfields: []\nfoo: 1")
    assert message.startswith("sync.yaml has 4 problems:")
    for path in ("version", "airtable.key_field", "fields", "foo"):
        assert f"\n  {path}: " in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not valid YAML"),
        ("", "must be a mapping"),
        ("- 1", "must be a mapping"),
        ("version: 1\nversion: 1", "'version' is given twice (line 2, column 1)"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_such_yaml_is_refused(text, said):
    assert said in refused(text)


def test_stage_ids_may_stand_without_quotes():
    config = parse_config(config_text("airtable: Stage, kommo: stage, names: {142: Won}"))
    assert config.fields[0].names == {"142": "Won"}


def test_since_may_be_a_day_or_a_time_with_zone():
    base = config_text("airtable: Deal Name, kommo: name")
    assert parse_config(base + "\nreconcile: {since: 2026-01-01}").reconcile.since == date(
        2026, 1, 1
    )
    timed = parse_config(base + "\nreconcile: {since: 2026-01-01T10:00:00Z}").reconcile.since
    assert timed == datetime(2026, 1, 1, 10, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "line",
    [
        "0 3 * * *", "*/15 0-6 1,15 jan-mar MON-fri", "59 23 31 12 7", "0 0 * * sun", "5/10 * * * *",
        "99 3 * * *", "0 24 * * *", "0 3 0 * *", "0 3 * 13 *", "0 3 * * 8", "*/0 * * * *",
        "0 3 * foo *", "mon 3 * * *", "1- * * * *", "a b c d e", "0,,5 * * * *", "0 3 * * ?x",
    ],
)  # fmt: skip
def test_a_cron_line_is_refused_that_dagster_would_not_load(line):
    text = config_text("airtable: Deal Name, kommo: name") + f'\nreconcile: {{cron: "{line}"}}\n'
    if is_valid_cron_string(line):
        assert parse_config(text).reconcile.cron == line
    else:
        with pytest.raises(ConfigurationError, match=r"reconcile\.cron"):
            parse_config(text)
