"""What was read for a comparison: wanted until it is settled, and again once more is read."""

from __future__ import annotations

from pathlib import Path

from kommo_airtable_sync.store.survey import Survey
from tests.conftest import HandClock


def test_what_is_settled_is_wanted_again_once_more_is_read_of_it(tmp_path: Path, clock: HandClock):
    survey = Survey(tmp_path / "survey.db", clock)

    def wanted() -> list[int]:
        return [each for some in survey.portions("lead", 10) for each in some]

    survey.want("lead", [1, 2, 3])
    survey.add_entities("lead", [{"id": 1}, {"id": 2}, {"id": 4}])
    survey.add_records("lead", [({"id": "recA"}, 1), ({"id": "recB"}, 2), ({"id": "recC"}, None)])
    assert survey.on_both_sides("lead", [1, 2, 3, 4]) == [1, 2]
    survey.settle("lead", [1, 2])
    assert wanted() == [3, 4]
    survey.add_records("lead", [({"id": "recD"}, 1)])
    assert wanted() == [1, 3, 4]
    survey.settle("lead", [1])
    survey.add_entities("lead", [{"id": 2}])
    assert wanted() == [2, 3, 4]
    survey.settle("lead", [2])
    survey.forget_records("lead")
    assert wanted() == [1, 2, 3, 4]
    assert survey.on_both_sides("lead", [1, 2]) == []
    survey.close()
