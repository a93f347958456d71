"""What the labs and the teacher's page say of minutes, exercises and papers; oracle: labs and tables."""

from __future__ import annotations

import re

import pytest

from minimp.labs.answers import exercises_of
from minimp.labs.catalogue import LabFolder, folder, labs
from minimp.labs.child import load_checks
from minimp.reproductions.catalogue import REPRODUCTIONS

LABS = labs()
EACH = pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
PAGE = (folder() / "README.md").read_text("utf-8")
PART = re.compile(r"^# ## Part (?P<number>\d+): (?P<title>.*) \((?P<minutes>\d+) minutes\)$", re.MULTILINE)
EXERCISE = re.compile(
    r"^# ### Exercise (?P<part>\d+)[a-z] \((?:.*, )?(?P<minutes>\d+) minutes\)$", re.MULTILINE
)
WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def parts_of(lab: LabFolder) -> dict[str, tuple[str, int]]:
    """Return each part's title and minutes by its number."""
    return {
        each["number"]: (each["title"], int(each["minutes"]))
        for each in PART.finditer(lab.script.read_text("utf-8"))
    }


@EACH
def test_the_minutes_of_the_parts_are_those_of_the_lab(lab: LabFolder) -> None:
    """Oracle: sums; the exercises of a part take no longer than the part."""
    text, parts = lab.script.read_text("utf-8"), parts_of(lab)
    assert len(parts) == text.count("# ## Part ")
    assert sum(minutes for _, minutes in parts.values()) == lab.minutes
    found = [(each["part"], int(each["minutes"])) for each in EXERCISE.finditer(text)]
    assert len(found) == text.count("# ### Exercise ")
    for number, (_, minutes) in parts.items():
        assert sum(own for part, own in found if part == number) <= minutes


def test_the_page_has_the_labs_minutes_and_exercises() -> None:
    """Oracle: the least and the most of all labs."""
    minutes = [lab.minutes or 0 for lab in LABS]
    counts = [len(exercises_of(load_checks(lab.checks))) for lab in LABS]
    least, most = (WORDS[count - 2] for count in (min(counts), max(counts)))
    assert f"{min(minutes)} to {max(minutes)} minutes, {least} to {most} exercises" in PAGE
    assert f"a notebook of {min(minutes)} to {max(minutes)} minutes" in PAGE
    for lab in LABS:
        assert re.search(rf"^\| {lab.number:02d} ", PAGE, re.MULTILINE), lab.name


def test_the_weeks_of_the_page_are_long_enough() -> None:
    """Oracle: two labs each, their open questions at home, in two and a half hours."""
    assert "**Six weeks (two to two and a half hours each).**" in PAGE
    plan = PAGE.partition("**Six weeks")[2].partition("\n\n")[0]
    weeks = re.findall(r"\d: (\d\d) and (\d\d)", plan)
    assert len(weeks) == 5
    for week in weeks:
        own = [parts_of(LABS[int(number)]) for number in week]
        asked = [minutes for parts in own for title, minutes in parts.values() if title != "an open question"]
        assert sum(asked) <= 150, week


def test_each_misconception_has_its_exercise() -> None:
    """Oracle: the exercises that the labs have."""
    rows = re.findall(r"\| lab (\d\d), ([^|]*) \|$", PAGE, re.MULTILINE)
    assert len(rows) > 30
    for number, names in rows:
        known = [each.name for each in exercises_of(load_checks(LABS[int(number)].checks))]
        assert set(re.findall(r"\d[a-z]", names)) <= set(known), (number, names)


def test_the_page_has_the_papers() -> None:
    """Oracle: the reproductions that there are."""
    table = PAGE.partition("## Papers, measured again")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([a-z][a-z0-9-]+) \|", table, re.MULTILINE)[1:] == list(REPRODUCTIONS)
