"""A front in lines, in JSON and as a table says the same; a difference is only called one where the windows tell it."""

import csv
from dataclasses import replace

from studio.cli.front_report import front_csv, front_facts, front_rows, sentence
from studio.planning.choice import Choice
from studio.session.front import compared
from tests.unit.session.test_front import a_front, point


def test_lines_table_and_json_are_of_the_same_points() -> None:
    front = a_front()
    facts, table = front_facts(front), list(csv.DictReader(front_csv(front).splitlines()))
    assert [line["name"] for line in table] == [each["name"] for each in facts["points"]] == ["small", "guess", "large"]
    assert [each["source"] for each in facts["points"]] == ["measured", "predicted", "measured"]
    assert table[1]["kld_standard_error"] == ""
    assert facts["pairs"][0]["better"] == "large"
    rows = front_rows(front)
    assert rows[0][1].startswith("0.4000 ± 0.0100")
    assert rows[1][1].startswith("~ 0.5000")
    assert "0.2500 ± 0.0500" in rows[-1][1]


def test_a_recipe_is_beside_each_plan() -> None:
    choice = Choice.of(budget="60%", target="mlx")
    front = replace(a_front(), points=(replace(point("60%", 10), choice=choice),))
    assert Choice.of(**front_facts(front)["points"][0]["recipe"]) == choice


def test_what_cannot_be_told_apart_is_said_so() -> None:
    pair = compared(point("a", 1, 0.1, 0.5), point("b", 2, 0.2, 0.3))
    assert pair is not None
    assert "cannot be told apart" in sentence(pair)
    sure = compared(point("a", 1, 0.1, 0.2), point("b", 2, 0.3, 0.41))
    assert sure is not None
    assert "a loses less than b: by 0.2050 ± 0.0050" in sentence(sure)


def test_nothing_measured_compares_nothing() -> None:
    front = replace(a_front(), points=(point("a", 1), point("b", 2)))
    assert front_facts(front)["pairs"] == []
