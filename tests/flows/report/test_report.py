"""The report's page, pictures and Markdown: bounded, harmless whatever they show, right."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.adapters.history.run_details import RejectsOfKind, RunDetails, VisibleRun
from nightshift.adapters.history.run_history import RunRecord
from nightshift.adapters.ledger.pointer import PublicationChange
from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.results import Audit, CheckResult
from nightshift.flows.report.challenger import count_differences, summarize_challenger
from nightshift.flows.report.column_drift import measure_drift
from nightshift.flows.report.distributions import LAST, NOW, TRAINING, compare_distributions
from nightshift.flows.report.facts import collect_facts
from nightshift.flows.report.html import render_html
from nightshift.flows.report.markdown import escape_markup, render_markdown
from nightshift.flows.report.plots import Bar, draw_distributions, draw_ranking, on_card
from nightshift.flows.report.verdict import decide_verdict
from nightshift.flows.scoring.challenger.comparison import (
    Change,
    Comparison,
    Differences,
    Differing,
    Output,
)
from nightshift.flows.scoring.timings import StageTimings
from nightshift.flows.text import shorten

EVIL = "<script>alert(1)</script>\"'&amp;$x^2$\n| `b` ](http://evil) \u202egnp \x00\x1b[31m"
BEGAN = datetime(2024, 3, 2, 3, 0, tzinfo=UTC)
VOID = {"meta", "br", "link", "img", "rect", "path", "use"}


class Page(HTMLParser):
    """A page's tags, attributes and text. Fails if it is not well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def run(state: str = "published", **changes: Any) -> RunRecord:
    fields = {
        "run_id": 7, "job": "orders", "role": "champion", "partition": "2024-03-01",
        "model_name": "doubler", "model_version": 2, "state": state, "rows": 990, "rejected": 10,
        "started_at": BEGAN, "scored_at": BEGAN + timedelta(seconds=5),
        "published_at": BEGAN + timedelta(seconds=6), "flow_run_id": "0b0e", "error": None,
    }  # fmt: skip
    return RunRecord(**{**fields, **changes})


def record(state: str = "published", **changes: Any) -> RunDetails:
    own = changes.pop("run", run(state))
    fields = {
        "run": own, "start": BEGAN, "end": BEGAN, "chunks": 3,
        "first_commit": BEGAN + timedelta(seconds=1), "last_commit": BEGAN + timedelta(seconds=4),
        "profiles": (), "audit": None, "timings": (), "rejects": (), "challenger": None,
        "comparison": None, "earlier": None, "earlier_profiles": (), "before": None, "shown": (),
        "changes": (), "sql": "SELECT * FROM scores WHERE run_id = 7 LIMIT 10;", "cleaned": False,
    }  # fmt: skip
    return RunDetails(**{**fields, **changes})


def change(action: str, reason: str | None = None) -> PublicationChange:
    return PublicationChange(
        "orders", BEGAN, BEGAN, 7, action, BEGAN, "a person", reason, "doubler", 2
    )


def shown(run_id: int) -> VisibleRun:
    return VisibleRun(run_id, "2024-03-01", f"doubler@{run_id}", BEGAN, BEGAN, BEGAN)


def column(values: Any) -> ColumnProfile:
    table = pa.table({"x": values})
    return Profile.of(table, table).inputs["x"]


def normal(mean: float, rows: int = 2000) -> ColumnProfile:
    return column(np.random.default_rng(0).normal(mean, 1, rows))


def words(values: Sequence[str], rows: int = 1000) -> ColumnProfile:
    return column(pa.array([values[i % len(values)] for i in range(rows)]))


def profile(inputs: dict[str, ColumnProfile], outputs: dict[str, ColumnProfile]) -> Profile:
    return Profile(1000, inputs, outputs)


def check(level: str, name: str = "nulls", **changes: Any) -> CheckResult:
    fields = {"name": name, "value": 0.4, "fail": 0.3, "level": level, "text": f"{name} is {level}"}
    return CheckResult.model_validate({**fields, **changes})


# --- distributions and pictures -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "last", "training"),
    [
        (normal(0), normal(1), normal(5)),
        (normal(0), None, None),
        (normal(0), normal(1000), None),
        (words("abc"), words("abd"), words("xyz")),
        (words([str(i) for i in range(90)]), None, words("abc")),
        (column([1, 2, 2, 3]), column([2, 4]), None),
        (column([1.5]), None, column([1.5])),
        (column(pa.array([BEGAN, None, datetime(1, 1, 1, tzinfo=UTC)])), None, None),
        (column([1e300, -1e300, 0.0]), column([1e-300]), None),
        (column([True, False, True]), column([True]), None),
    ],
)
def test_a_distribution_is_over_the_same_bars_and_can_be_drawn(
    now: ColumnProfile, last: ColumnProfile | None, training: ColumnProfile | None
) -> None:
    found = compare_distributions(now, last, training)
    assert found is not None
    bars = len(found.labels) or len(found.edges) - 1
    given = {NOW: now, LAST: last, TRAINING: training}
    assert set(found.shares) == {name for name, side in given.items() if side is not None}
    for shares in found.shares.values():
        assert len(shares) == bars
        assert sum(shares) == pytest.approx(1)
    for size in ((460, 190), (200, 95)):
        svg = draw_distributions(found, "a title", size)
        assert ElementTree.fromstring(svg).get("aria-label") == "a title"
        assert len(svg) < 25_000


def test_nothing_to_show_is_no_distribution() -> None:
    assert compare_distributions(column(pa.nulls(3)), normal(0), normal(0)) is None
    assert compare_distributions(ColumnProfile(), None, None) is None
    alone = compare_distributions(normal(0), words("ab"), None)  # another kind than the run's
    assert alone is not None
    assert set(alone.shares) == {NOW}


def test_few_whole_numbers_have_a_bar_each() -> None:
    found = compare_distributions(column([0, 1, 1, 1]), column([0, 2]), None)
    assert found is not None
    assert found.labels == ("0", "1", "2")
    assert found.shares == {NOW: (0.25, 0.75, 0.0), LAST: (0.5, 0.0, 0.5)}


@pytest.mark.parametrize("text", [EVIL, "$\\frac{a}{b}$", "クルミ", "\ud800", "[[0]]", ""])
def test_a_picture_holds_any_text(text: str) -> None:
    """Also what matplotlib would take for mathematics, or has no glyph for."""
    svg = draw_ranking([Bar(text, 1.0, text), Bar("other", 0.5, "0.5")], text, {"warn": 0.2})
    tree = ElementTree.fromstring(svg)
    texts = ["".join(part.itertext()) for part in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count(shorten(text, 26)) >= 2
    tags = {part.tag.rpartition("}")[2] for part in tree.iter()}
    assert tags <= {"svg", "path", "text"}


def test_a_picture_takes_the_colour_of_the_text_around_it() -> None:
    found = compare_distributions(normal(0), None, None)
    assert found is not None
    svg = draw_distributions(found, "x")
    assert svg.count("currentColor") == svg.count("<text")
    assert draw_distributions(found, "x") == svg  # no numbers of chance, no date
    card = on_card(svg)
    ElementTree.fromstring(card)
    assert 'style="color:#2b3440"' in card


def test_a_ranking_may_be_empty_or_all_zero() -> None:
    for bars in ([], [Bar("a", 0.0, "0")], [Bar("a", -1.0, "-1"), Bar("b", float("1e300"), "")]):
        ElementTree.fromstring(draw_ranking(bars, "x", {"warn": 0.1, "fail": 0.25}, most=1.0))


# --- features, stages, challengers --------------------------------------------------------------


def test_columns_are_ranked_by_what_the_audit_found() -> None:
    now = {"a": normal(0), "b": normal(3), "c": normal(1), "few": normal(0, 10)}
    training = {name: normal(0) for name in now}
    audit = Audit.of(
        [
            check("fail", "drift", column="input a", value=0.01, warn=0.1, fail=0.2),
            check("ok", "drift", column="input c", value=9.0),
        ]
    )
    found = measure_drift(now, {}, training, audit, "input")
    assert [column.name for column in found] == ["a", "c", "b", "few"]
    a, c, b, few = found
    assert (a.level, a.drift, a.limits) == ("fail", 0.01, (0.1, 0.2))
    assert c.drift == 9.0
    assert b.drift is not None
    assert b.drift > 1  # measured here, as the audit has nothing
    assert few.drift is None


def test_stages_count_and_merge() -> None:
    stages = StageTimings()
    with pytest.raises(ZeroDivisionError), stages.of("write"):
        raise ZeroDivisionError
    assert list(stages.each("read", iter([None, 1, 2]))) == [None, 1, 2]
    stages.add("predict", 1.25)
    assert set(stages.seconds) == {"write", "read", "predict"}
    again = StageTimings.from_json(stages.to_json())
    assert again.merged(again).seconds["predict"] == 2.5
    assert again.seconds["predict"] == 1.25
    assert StageTimings.from_json(None).seconds == {}
    with pytest.raises(ValueError, match="not stage timings"):
        StageTimings.from_json("[1]")


@given(
    st.dictionaries(st.integers(-300, 300), st.integers(1, 1000), min_size=1, max_size=40),
)
def test_the_bars_of_differences_have_every_row(counts: dict[int, int]) -> None:
    rows = sum(counts.values())
    found = Differences(rows=rows, low=-1.0, high=1.0, counts=counts)
    bars = count_differences(found)
    assert sum(count for _, count in bars) == rows
    assert len({label for label, _ in bars}) == len(bars) <= 9


def test_the_bars_of_differences_are_powers_of_ten() -> None:
    # around 1e-12 x 10^(n/16): 208 ends at 10, 192 at 1
    found = Differences(rows=6, low=-0.9, high=9, counts={0: 2, 208: 1, -192: 1, 100: 2})
    assert count_differences(found) == [
        ("1 to 10 more", 1),
        ("within 0.001", 4),
        ("0.1 to 1 less", 1),
    ]


# --- verdicts -----------------------------------------------------------------------------------

WARNED = Audit.of([check("warn"), check("warn", "drift"), check("ok", "volume")])
FAILED = Audit.of([check("fail"), check("ok", "volume")])


@pytest.mark.parametrize(
    ("found", "audit", "word", "tone", "reason", "readers"),
    [
        (
            record(changes=[change("publish")]), None, "Published", "good", "",
            "seen its 990 rows since",
        ),
        (record(), WARNED, "Published", "warn", "nulls is warn (and 1 more)", "its 990 rows"),
        (
            record(changes=[change("release", "it is right")]), FAILED, "Released", "warn",
            "By a person: it is right. It had been quarantined: nulls is fail", "990 rows",
        ),
        (
            record(changes=[change("rollback", "worse")]), None, "Rolled back to", "warn", "worse",
            "990",
        ),
        (
            record(changes=[change("replay", "3 rows"), change("publish")]), None, "Published",
            "good", "", "seen its 990 rows since",
        ),
        (record("superseded", shown=[shown(8)]), None, "Superseded", "idle", "", "see run 8 ("),
        (record("quarantined", shown=[shown(3)]), FAILED, "Quarantined", "bad", "nulls is fail",
         "still see run 3 (doubler@3), published 2024-03-02 03:00:00 UTC."),
        (record("quarantined"), None, "Quarantined", "bad", "audit failed", "see nothing of this"),
        (record(run=run("failed", error="no table")), None, "Failed", "bad", "no table", "nothing"),
        (record("running"), None, "Running", "idle", "990 rows are written", "nothing"),
        (record("scored"), None, "Scored, not published", "idle", "990 rows", "nothing"),
    ],
)  # fmt: skip
def test_verdicts(
    found: RunDetails, audit: Audit | None, word: str, tone: str, reason: str, readers: str
) -> None:
    verdict = decide_verdict(found, audit)
    assert (verdict.word, verdict.tone) == (word, tone)
    assert reason in verdict.reason
    assert readers in verdict.readers


def test_what_to_do_about_it() -> None:
    assert decide_verdict(record(), None).commands == ()
    without_rejects = record("quarantined", run=run("quarantined", rejected=0))
    release, again = decide_verdict(without_rejects, FAILED).commands
    assert release.startswith("nightshift runs release 7 --reason")
    assert again == "nightshift run orders --partition 2024-03-01"
    replay, _ = decide_verdict(record("quarantined"), FAILED).commands
    assert replay == "nightshift rejects orders --run 7 --replay"
    assert decide_verdict(record("failed"), None).commands == (again,)
    # not to be released any more
    assert decide_verdict(record("quarantined", shown=[shown(8)]), FAILED).commands == (again,)


# --- the page -----------------------------------------------------------------------------------


def everything(name: str, columns: int) -> tuple[RunDetails, Profile]:
    """A run with all that a report can show, all of it named so."""
    moved, still = normal(3), normal(0)
    categories = words([f"{name}{i}" for i in range(300)], 3000)
    inputs = {f"{name}{i}": moved if i % 2 else categories for i in range(columns)}
    outputs = {f"{name}{i}": moved for i in range(6)}
    now = profile(inputs, outputs)
    training = profile(dict.fromkeys(inputs, still), dict.fromkeys(outputs, still))
    results = [
        check("fail", column=f"input {name}{i}", text=name * 5, name=name) for i in range(columns)
    ]
    own = run("quarantined", error=name, job=name, partition=name, model_name=name)
    comparison = Comparison(
        rows=990, agreed=900, missing=3, skipped=4, failure=name,
        champion_seconds=1, challenger_seconds=2,
        outputs={
            name: Output(
                agreed=1, differences=Differences(rows=5, low=-1.0, high=2.0, counts={5: 2, 0: 3}),
            ),
            f"{name}2": Output(changes=(Change(champion=name, challenger=None, rows=3),)),
        },
        most=(Differing(key=(name, 2), difference=None, champion={name: name}, challenger={}),),
    )  # fmt: skip
    found = record(
        run=own,
        profiles=[now.to_json()],
        audit=Audit.of(
            [*results, check("ok", text=name), check("not judged", text=name)]
        ).to_json(),
        timings=[json.dumps({"read": 1.0, name: 2.0})],
        rejects=[RejectsOfKind(name, 8, name, name * 50, json.dumps({name: name * 500}))],
        challenger=run("scored", role="challenger", model_name=name),
        comparison=comparison.to_json(),
        earlier=run("published", run_id=5, partition=name),
        earlier_profiles=[now.to_json()],
        before=run("published", run_id=5, model_name=name),
        shown=[shown(5)],
        sql=name,
    )
    return found, training


def test_nothing_that_it_shows_is_markup() -> None:
    found, training = everything(EVIL, 8)
    html = render_html(collect_facts(found, training, [EVIL]), "https://prefect/runs/1")
    page = Page(html)
    assert "script" not in page.tags
    assert not {name for name in page.attributes if name.startswith("on")}
    assert html.count("<script>") == 0
    assert "alert(1)" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", html)
    assert "default-src 'none'" in html
    assert page.text.count("Quarantined") >= 1


def test_its_size_is_bounded_whatever_the_columns() -> None:
    found, training = everything("column_" * 10, 1000)
    html = render_html(collect_facts(found, training))
    assert len(html.encode()) < 500_000
    page = Page(html)
    assert "and 970 more inputs" in page.text
    assert "and 940 more" in page.text
    assert "and 2 more outputs" in page.text


def test_verdict_then_counts_then_checks_and_so_on() -> None:
    found, training = everything("col", 8)
    text = Page(render_html(collect_facts(found, training), "https://prefect/runs/flow-run/1")).text
    order = [
        "Quarantined", "Readers still see run 5", "nightshift rejects", "1,000 rows read",
        "990 predictions written", "10 rows rejected", "rows before", "Checks",
        "1 check not judged", "1 check passed",
        "Rejected rows", "and 2 rows with other errors", "Predictions", "Drift of the inputs",
        "Challenger col@2", "90.91% of 990 rows agree", "2 × the champion's time",
        "Where the time went", "Look further",
    ]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_a_run_without_anything_has_a_page_too() -> None:
    bare = record(
        "failed", run=run("failed", rows=0, rejected=0, scored_at=None), first_commit=None
    )
    text = Page(render_html(collect_facts(bare, None))).text
    assert "Failed" in text
    assert "The run did not come to its checks." in text
    for absent in ("Rejected rows", "Predictions", "Drift", "Challenger"):
        assert absent not in text


def test_documents_of_another_version_are_left_out_and_reported() -> None:
    odd = record(audit='{"verdict": 3}', profiles=["{}"], timings=["[]"], comparison="[]",
                 challenger=run(role="challenger"))  # fmt: skip
    text = Page(render_html(collect_facts(odd, None))).text
    for what in ("audit", "profile", "timings", "comparison"):
        assert f"The {what} cannot be read" in text


def test_challenged_without_a_champion_to_compare_with() -> None:
    found = summarize_challenger(run(role="challenger"), Comparison(skipped=5, failure="it raised"))
    assert (found.agreement, found.cost, found.failure) == (None, None, "it raised")


# --- Markdown -----------------------------------------------------------------------------------


def test_the_summary_says_the_verdict_first_and_escapes() -> None:
    found, training = everything(EVIL, 3)
    facts = collect_facts(found, training)
    line, text = render_markdown(facts, EVIL, found.sql)
    assert text.startswith("## Quarantined: ")
    assert "quarantined" in line
    assert text.count("data:image/svg+xml;base64,") == 1
    assert len(text) < 40_000
    before, after = text.split("```sql\n")
    sql, _, commands = after.partition("\n```\n")
    assert "\n" not in sql
    assert all(line.count("`") in (0, 2) for line in commands.splitlines())
    outside = before + re.sub(r"`[^`]*`", "", commands)
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\(http://evil", outside)
    for row in (line for line in text.splitlines() if line.startswith("| ")):
        assert len(re.findall(r"(?<!\\)\|", row)) == 4


def test_the_summary_of_a_quiet_run_is_short() -> None:
    before = run(run_id=5, rows=800, rejected=0)
    found = record(run=run(rejected=0, rows=1000), before=before, changes=[change("publish")])
    found = replace(found, audit=Audit.of([check("ok"), check("not judged")]).to_json())
    line, text = render_markdown(collect_facts(found, None), "table 'orders'", "SELECT 1;")
    assert line == "orders 2024-03-01: 1,000 rows published"
    assert "| rows written | 1,000 | 800 |" in text
    assert "1 checks passed, 1 not judged" in text
    assert "data:" not in text
    assert len(text) < 1000


@given(st.text())
def test_literal_text_is_one_line(text: str) -> None:
    found = escape_markup(text)
    assert "\n" not in found
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*\[\]]", found)
