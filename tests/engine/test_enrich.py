from __future__ import annotations

import contextlib
import threading

import pytest

from kommo_airtable_sync.core.errors import ConfigurationError, LeadFailed
from kommo_airtable_sync.engine.enrich import Enricher, Enrichment, load_functions

LONG = 60.0
SHORT = 0.05


def enricher(*functions, **options) -> Enricher:
    return Enricher([Enrichment(f"mine:f{i}", f) for i, f in enumerate(functions)], **options)


def refused(*functions) -> LeadFailed:
    with pytest.raises(LeadFailed) as caught:
        enricher(*functions).enrich({"id": 5}, LONG)
    return caught.value


def test_functions_give_values_by_field_name():
    both = enricher(lambda lead: {"Risk": lead["id"]}, lambda _: {"Notes": "x"})
    assert both.enrich({"id": 5}, LONG) == {"Risk": 5, "Notes": "x"}


def test_without_functions_nothing_is_added():
    assert enricher().enrich({"id": 5}) == {}


def test_a_function_cannot_change_the_lead():
    lead = {"id": 5, "_embedded": {"tags": [{"name": "hot"}]}}

    def vandal(copy):
        copy["_embedded"]["tags"].clear()
        return {}

    seen = []
    enricher(vandal, lambda copy: seen.append(copy) or {}).enrich(lead, LONG)
    assert seen == [lead]
    assert lead["_embedded"]["tags"] == [{"name": "hot"}]


def test_an_error_in_a_function_fails_its_lead_and_may_pass():
    def boom(_):
        raise ZeroDivisionError("by nought")

    failed = refused(boom)
    assert failed.reason == "enrich: mine:f0: ZeroDivisionError: by nought."
    assert not failed.permanent


def test_a_function_that_wants_to_end_the_process_fails_its_lead():
    def leave(_):
        raise SystemExit

    assert "mine:f0: SystemExit" in refused(leave).reason


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "it returned NoneType, not a dict"),
        ([("Notes", "x")], "it returned list, not a dict"),
        ({1: "x"}, "1 is not the name of an Airtable field"),
        ({"Notes": object()}, "Notes: object is no value for a cell; allowed: str; int"),
    ],
)
def test_a_bad_answer_fails_its_lead_for_good(given, said):
    failed = refused(lambda _: given)
    assert failed.reason.startswith("enrich: mine:f0: ")
    assert said in failed.reason
    assert failed.permanent


def test_two_functions_cannot_fill_one_field():
    assert "mine:f1: 'Notes' is given by another" in refused(*[lambda _: {"Notes": "x"}] * 2).reason


def test_a_function_that_hangs_costs_its_lead_the_deadline_and_no_more():
    wake, begun = threading.Event(), threading.Semaphore(0)
    ended = threading.Semaphore(0)

    def hang(_):
        begun.release()
        wake.wait(LONG)
        ended.release()
        return {}

    hanging = enricher(hang, hanging_max=2)
    for _ in range(2):
        with pytest.raises(LeadFailed, match=r"mine:f0: no answer within 0\.05 s") as caught:
            hanging.enrich({"id": 5}, SHORT)
        assert not caught.value.permanent
    # Both threads hang: no third one is begun, and nobody waits.
    with pytest.raises(LeadFailed, match="earlier calls still hang"):
        hanging.enrich({"id": 5}, LONG)
    assert [begun.acquire(blocking=False) for _ in range(3)] == [True, True, False]

    wake.set()
    assert all(ended.acquire(timeout=LONG) for _ in range(2))
    for _ in range(3):
        while True:  # a thread gives its place back just after it has ended
            with contextlib.suppress(LeadFailed):
                assert hanging.enrich({"id": 5}, LONG) == {}
                break


def test_a_function_that_hangs_does_not_keep_the_process():
    daemons = []
    enricher(lambda _: daemons.append(threading.current_thread().daemon) or {}).enrich({}, LONG)
    assert daemons == [True]


def test_functions_are_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "mine_enrich.py").write_text("def risk(lead):\n    return {'Risk': lead['id']}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    [loaded] = load_functions(["mine_enrich:risk"])
    assert loaded.entry == "mine_enrich:risk"
    assert Enricher([loaded]).enrich({"id": 5}, LONG) == {"Risk": 5}


def test_entries_that_cannot_be_called_are_named(tmp_path, monkeypatch):
    (tmp_path / "broken_enrich.py").write_text("raise RuntimeError('no licence')\n")
    (tmp_path / "value_enrich.py").write_text("risk = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = ["absent_enrich:risk", "broken_enrich:risk", "value_enrich:risk", "value_enrich:no"]
    with pytest.raises(ConfigurationError) as caught:
        load_functions(entries)
    for said in (
        "enrich[0]: absent_enrich:risk cannot be imported: ModuleNotFoundError",
        "enrich[1]: broken_enrich:risk cannot be imported: RuntimeError: no licence",
        "enrich[2]: value_enrich:risk is not a function",
        "enrich[3]: value_enrich:no cannot be imported: AttributeError",
    ):
        assert said in caught.value.message
