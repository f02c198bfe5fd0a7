"""The pages as a browser without JavaScript sees them: read, filtered, corrected, checked blind, saved; nothing that
stands in the data becomes a part of a page."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
import pytest

from preceptor.serve.pages.rendering import CSP, HERE
from preceptor.serve.pages.session import COOKIE
from tests.preceptor.serve.pages.conftest import ITEMS, OWN, Keyed, Site
from tests.preceptor.serve.pages.corpus import EVIL, evil
from tests.preceptor.serve.pages.page_reader import Page, assert_nothing_was_born, ours

MOST_PAGES = 150
FIELDS = (
    *("label-id", "prompt", "system", "tag", "reply-a", "reply-b", "model-a", "judge-reason", "judge-model"),
    *("principle", "voter", "unjudged", "judge", "person", "filename", "metadata", "job-problem", "event"),
    *("version-reason", "comment", "run-principle", "reason", "check-name", "playground", "key"),
)
"""Where the corpus stands; each has to be seen on some page, else nothing would be shown of it."""


def crawl(site: Site, start: str = "/") -> dict[str, httpx.Response]:
    """Every page that can be reached by links, up to a bound."""
    found: dict[str, httpx.Response] = {}
    waiting = [start]
    while waiting and len(found) < MOST_PAGES:
        path = waiting.pop(0)
        if path in found or path.startswith("/pairs/first/"):  # of sixty pairs that are alike
            continue
        answer = site.get(path)
        found[path] = answer
        if not answer.headers["content-type"].startswith("text/html") or path.endswith("/report"):
            continue
        for link in Page(answer.text).links:
            there = urlsplit(urljoin(site.server.url + path, link))
            waiting.append(there.path + (f"?{there.query}" if there.query else ""))
    return found


def test_what_stands_in_the_data_never_becomes_a_part_of_a_page(site: Site) -> None:
    name = hostile_id()
    made = site.send("/pairs/evil/correct", {"id": name, "letter": "b", "reason": evil("reason")})
    assert made.status_code == 200
    drawn = site.send(
        "/check/new", {"labels": "evil", "name": evil("check-name")[:120], "size": 5, "people": 1}
    )
    item = site.get(f"{drawn.url.path}/next")
    place = Page(item.text).fields["place"]
    assert EVIL not in item.text
    asked = {
        "judge": "script",
        "constitution": "own",
        "prompt": evil("playground"),
        "a": EVIL,
        "b": f"GOOD {EVIL}",
    }
    pages = {"playground": site.send("/playground", asked), "item": item}
    pages["skipped"] = site.send(
        f"{drawn.url.path}/judge", {"place": place, "verdict": "skip", "reason": evil("skip")}
    )
    pages["closed"] = site.send(f"{drawn.url.path}/close", {})
    pages["faults"] = site.send("/constitutions/own/look", {"text": f"name: {EVIL}\n", "etag": ""})
    pages["tried"] = site.send("/playground/from", {"text": EVIL, "name": EVIL})
    pages["job"] = site.send("/jobs", {"kind": EVIL, "once": "x", "settings": "{}"})
    pages["settings"] = site.send(
        "/jobs", {"kind": "label", "once": "x", "settings": json.dumps({EVIL: EVIL})}
    )
    pages["no labels"] = site.get(f"/pairs/{quote(EVIL, safe='')}")
    pages["filtered"] = site.browser.get("/pairs/evil", params={"text": EVIL, "tag": EVIL, "status": EVIL})
    pages |= crawl(site)
    texts = []
    for path, answer in pages.items():
        assert answer.status_code < 500, path
        if path.endswith("/report"):
            assert "sandbox" in answer.headers["content-security-policy"]
        elif answer.headers["content-type"].startswith("text/html"):
            page = assert_nothing_was_born(answer.text)
            assert answer.headers["content-security-policy"] == CSP
            assert "49&lt;xborn" not in answer.text
            texts.append(page.text)
    seen = "\n".join(texts)
    assert [field for field in FIELDS if f"in-{field} " not in seen] == []
    assert len(pages) > 30


def hostile_id() -> str:
    return evil("label-id")


def test_the_reader_finds_what_is_born() -> None:
    tags, attributes = ours()
    assert {"main", "form", "table"} <= tags
    assert not {"style", "iframe", "xborn", "img"} & tags
    assert not {"style", "onclick", "xborn", "onerror"} & attributes
    for text in ("<xborn>", "<p xborn=1>", "<script>x</script>", '<a href="javascript:x">', '<a href="//x">'):
        with pytest.raises(AssertionError):
            assert_nothing_was_born(text)


def test_a_page_runs_and_loads_only_our_own_files(site: Site) -> None:
    assert "'unsafe" not in CSP
    assert "default-src 'none'" in CSP
    for path in Page(site.get("/").text).values:
        if path.startswith("/static/"):
            assert site.get(path).status_code == 200
    told = (HERE / "static" / "htmx.LICENSE.txt").read_text()
    assert hashlib.sha256((HERE / "static" / "htmx.min.js").read_bytes()).hexdigest() in told
    assert site.get("/static/../keys.py").status_code == 404
    assert site.get("/static/nothing.js").status_code == 404


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null", "http://127.0.0.1:1"])
@pytest.mark.parametrize(
    "path", ["/sign-out", "/pairs/first/correct", "/keys", "/constitutions/own/save", "/files"]
)
def test_a_form_of_another_site_is_refused(site: Site, path: str, origin: str | None) -> None:
    answer = site.browser.post(path, data={"name": "x"}, headers={"origin": origin} if origin else {})
    assert answer.status_code == 403
    assert "did not come from a page of this server" in answer.text


def test_filters_and_paging_of_pairs(site: Site) -> None:
    seen: list[str] = []
    path: str | None = "/pairs/first"
    while path is not None:
        page = Page(site.get(path).text)
        assert "60 of 60 labels." in page.text
        seen += re.findall(r"pair\?id=(lift-\d+)", " ".join(page.links))
        last, path = path, next((link for link in page.links if "after=" in link), None)
    assert seen == [row["id"] for row in ITEMS]
    assert last != "/pairs/first"
    back = [link for link in Page(site.get(last).text).links if "before=" in link]
    assert re.findall(r"pair\?id=(lift-\d+)", site.get(back[0]).text) == seen[:50]
    odd = Page(site.get("/pairs/first?tag=odd&text=floor+lif&sort=least+sure").text)
    assert "30 of 60 labels." in odd.text
    assert "None of these labels is like that." in site.get("/pairs/first?status=tie").text
    for wrong in ("sort=sideways", "after=99999999999999999999", "before=0", "least=x", "shoe=1"):
        assert site.get(f"/pairs/first?{wrong}").status_code == 422
    assert site.get("/pairs/nothing").status_code == 404


def test_a_pair_leads_back_to_the_very_calls(site: Site) -> None:
    page = Page(site.get("/pairs/first/pair?id=lift-1").text)
    assert "✓ won" in page.text
    assert "GOOD: at nine, take the stairs." in page.text.replace("\n", "")
    [link, *_] = [link for link in page.links if "/call?" in link]
    call = Page(site.get(link).text)
    assert "Verdict: A" in call.text
    assert "Choose the reply that is" in call.text
    assert "$0.0000" in call.text
    assert site.get(f"/pairs/first/call?id=lift-2&key={link.partition('key=')[2]}").status_code == 404


def test_a_correction_stands_beside_the_verdict(site: Site) -> None:
    before = (site.server.folder / "labels.jsonl").read_bytes()
    said = {"id": "lift-2", "letter": "b", "reason": "=cmd|x"}
    page = site.send("/pairs/first/correct", said)
    assert page.url.path == "/pairs/first/pair"
    assert "=cmd|x" in Page(page.text).text
    assert (site.server.folder / "labels.jsonl").read_bytes() == before
    rows = list(csv.DictReader(io.StringIO(site.get("/pairs/first/corrections.csv").text)))
    assert rows[-1]["reason"] == "'=cmd|x"
    assert (rows[-1]["correction"], rows[-1]["judge_winner"]) == ("b", "a")
    *_, row = (json.loads(line) for line in site.get("/pairs/first/corrections.jsonl").text.splitlines())
    assert row["reason"] == "=cmd|x"
    assert site.send("/pairs/first/correct", said | {"reason": " "}).status_code == 422
    assert site.send("/pairs/first/correct", said | {"id": "none"}).status_code == 404
    assert site.send("/pairs/first/correct", said | {"letter": "c"}).status_code == 422


def test_a_check_is_blind_until_it_is_over(site: Site) -> None:
    drawn = site.send("/check/new", {"labels": "first", "size": 4, "people": 1, "seed": 3, "name": "blind"})
    here = drawn.url.path
    assert site.get(f"{here}/verdicts.csv").status_code == 409
    said: dict[str, str] = {}
    for _ in range(4):
        item = Page(site.get(f"{here}/next").text)
        assert "scripted" not in item.text
        assert "lift-" not in item.text
        replies = re.findall(r"(GOOD|BAD): ", item.text)
        side = ("first", "second")[replies.index("BAD")]
        said[item.fields["place"]] = side
        answer = site.send(f"{here}/judge", {"place": item.fields["place"], "verdict": side})
        if len(said) == 1:
            undone = Page(site.send(f"{here}/undo", {}).text)
            assert undone.fields["place"] == item.fields["place"]
            answer = site.send(f"{here}/judge", {"place": item.fields["place"], "verdict": side})
        assert answer.status_code == 200
        assert site.send(f"{here}/judge", {"place": item.fields["place"], "verdict": side}).status_code == 409
    assert len(said) == 4
    assert "Nothing left for you" in answer.text
    page = Page(site.get(here).text)
    assert "0% (0% to 49%)" in " ".join(page.text.split())
    assert "Where people are against the judge" in page.text
    assert site.send(f"{here}/undo", {}).status_code == 409
    assert "What could be mended" in page.text
    [mend, *_] = [link for link in page.links if link.startswith("/constitutions/own?")]
    editor = Page(site.get(mend).text)
    assert "and not saved" in editor.text
    assert "better: 'BAD: who knows.'" in editor.text
    assert editor.fields["reason"].startswith("people were against")
    assert site.get(mend.replace("principle=", "principle=x")).status_code == 404
    assert "0% (0% to 49%)" in " ".join(Page(site.get("/check").text).text.split())
    rows = list(csv.DictReader(io.StringIO(site.get(f"{here}/verdicts.csv").text)))
    assert len(rows) == 4
    assert all({row["verdict"], row["judge_winner"]} == {"a", "b"} for row in rows)
    gold = [json.loads(line) for line in site.get(f"{here}/gold.jsonl").text.splitlines()]
    assert {row["preferred"] for row in gold} <= {"a", "b"}
    for row in gold:
        assert row[f"response_{row['preferred']}"].startswith("BAD")


def test_a_constitution_is_changed_by_who_knows_what_it_changes(site: Site) -> None:
    first = Page(site.get("/constitutions/other").text)
    etag = first.fields["etag"]
    text = OWN.replace("front-desk", "other").replace("\n", "\r\n")
    looked = Page(site.send("/constitutions/other/look", {"text": text, "etag": etag}).text)
    assert "Differences to what is saved" in looked.text
    priced = Page(site.send("/constitutions/other/price", {"text": text, "etag": etag}).text)
    assert "0 labels of 0 label jobs" in priced.text
    saved = site.send("/constitutions/other/save", {"text": text, "etag": etag, "reason": "why not"})
    assert saved.url.path == "/constitutions/other"
    assert site.server.client.get("/v1/constitutions/other").json()["text"] == text.replace("\r\n", "\n")
    assert "why not" in Page(saved.text).text
    late = site.send("/constitutions/other/save", {"text": f"{text}# late\n", "etag": etag})
    assert late.status_code == 412
    page = Page(late.text)
    assert "Somebody else has saved other since you began" in page.text
    assert "# late" in page.text
    assert page.fields["etag"] not in ("", etag)
    wrong = site.send(
        "/constitutions/other/save", {"text": "name: x\nprinciples: 3\n", "etag": page.fields["etag"]}
    )
    assert wrong.status_code == 422
    assert "line 2" in Page(wrong.text).text
    assert "Its text" in site.get("/constitutions/other/versions/2").text
    assert site.get("/constitutions/other/versions/9").status_code == 404
    piece = site.send("/constitutions/other/faults", {"text": text})
    assert "No faults." in piece.text
    assert "<html" not in piece.text


def test_the_playground_shows_what_the_judge_saw(site: Site) -> None:
    asked: dict[str, Any] = {"judge": "script", "prompt": "Hello?", "a": "GOOD day", "b": "BAD day"}
    page = Page(site.send("/playground", asked | {"constitution": "own"}).text)
    assert "Verdict: A" in page.text
    assert page.text.count("what the judge saw and said") == 4
    own = OWN.replace("shorter", "greener")
    tried = Page(site.send("/playground", asked | {"text": own}).text)
    assert "greener" in tried.text
    assert site.send("/playground", asked | {"text": "name: ["}).status_code == 422
    assert site.send("/playground", asked | {"constitution": "own", "judge": "nobody"}).status_code == 404


def test_jobs_runs_and_bill(site: Site) -> None:
    job = Page(site.get(f"/jobs/{site.job}").text)
    assert "failed" in job.text
    assert "polyline" in job.tags
    stream = site.get(f"/jobs/{site.job}/stream")
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert "data: <div" in stream.text
    assert "<html" not in stream.text
    assert stream.text.endswith("event: end\ndata: \n\n")  # of a job that has ended
    assert site.send("/jobs", {"kind": "label", "once": "o"}).status_code == 422
    assert site.get("/jobs/job-none").status_code == 404
    assert "<p>ours</p>" in site.get("/runs/taught/report").text
    assert site.get("/runs/other").status_code == 404
    both = site.get("/runs?one=taught&other=taught")
    assert both.url.path == "/runs/taught/beside/taught"
    assert "Two runs" in Page(both.text).text
    assert site.get("/runs/taught/beside/other").status_code == 404
    assert "nobody was asked" in Page(site.get("/judges/executors").text).text
    judges = Page(site.get("/judges").text).text
    assert "The judges have changed since 2026-11-10." in judges  # by one principle already
    assert "30 of 40" in judges
    for by in ("model", "stage", "principle", "run", "day"):
        page = Page(site.get(f"/bill?by={by}").text)
        assert "$0.0000" in page.text
    assert "about $0.0300" in Page(site.get("/bill").text).text
    assert site.get("/bill?by=shoe").status_code == 422
    sent = site.browser.post(
        "/files", files={"file": ("my-labels.jsonl", b"{}")}, headers={"origin": site.server.url}
    )
    assert "my-labels.jsonl" in sent.text
    assert "my-labels.jsonl" in site.get("/pairs").text


def test_what_is_not_there_is_a_page_to_browsers_and_a_problem_to_programs(site: Site) -> None:
    assert "<main" in site.get("/nothing").text
    assert site.server.client.get("/nothing").json()["status"] == 404
    assert site.browser.get("/v1/nothing").headers["content-type"].startswith("application/problem+json")


# With keys


def test_without_a_session_one_signs_in_first(keyed: Keyed) -> None:
    client = keyed.server.client
    answer = client.get("/pairs/first?tag=x")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Fpairs%2Ffirst%3Ftag%3Dx"
    assert client.get("/static/pages.css").status_code == 200
    for where in ("//evil.example", "https://evil.example", "/\\evil.example", "x"):
        assert Page(client.get("/sign-in", params={"next": where}).text).fields["next"] == "/"
    wrong = client.post("/sign-in", data={"key": "pcp_no_no"}, headers={"origin": keyed.server.url})
    assert wrong.status_code == 401
    assert COOKIE not in wrong.cookies


def test_a_session_holds_no_key_and_ends_with_it(keyed: Keyed) -> None:
    with keyed.browser(keyed.admin, "Ada") as admin, keyed.browser(keyed.reader) as reader:
        cookie = admin.cookies[COOKIE]
        assert keyed.admin.split("_", 2)[2] not in cookie
        assert "Ada" in admin.get("/").text
        [header] = [
            one
            for one in httpx.post(
                f"{keyed.server.url}/sign-in",
                data={"key": keyed.reader},
                headers={"origin": keyed.server.url},
            ).headers.get_list("set-cookie")
            if COOKIE in one
        ]
        assert "HttpOnly" in header
        assert "samesite=strict" in header.lower()
        # of a cookie, no letter may be another
        for at in range(0, len(cookie), 9):
            other = "A" if cookie[at] != "A" else "B"
            forged = {"cookie": f"{COOKIE}={cookie[:at]}{other}{cookie[at + 1 :]}"}
            answer = httpx.get(f"{keyed.server.url}/keys", headers=forged)
            assert answer.status_code == 303, at
        # and programs' routes know no cookies
        assert admin.get("/v1/jobs").status_code == 401
        assert reader.get("/keys").status_code == 403
        made = admin.post(
            "/keys", data={"name": "short", "scope": ["jobs:read"]}, headers={"origin": keyed.server.url}
        )
        [shown] = re.findall(r"pcp_[A-Za-z0-9_-]+", made.text)
        assert shown not in admin.get("/keys").text
        with keyed.browser(shown) as short:
            assert short.get("/pairs").status_code == 200
            identity = shown.split("_")[1]
            ended = admin.post(f"/keys/{identity}/revoke", headers={"origin": keyed.server.url})
            assert ended.status_code == 200
            assert short.get("/pairs").url.path == "/sign-in"
        assert_nothing_was_born(admin.get("/keys").text)
        assert "in-admin-key" in admin.get("/keys").text
        bad = admin.post("/keys", data={"name": "x", "scope": "all"}, headers={"origin": keyed.server.url})
        assert bad.status_code == 422


def test_a_key_may_do_on_pages_what_it_may_do_elsewhere(keyed: Keyed) -> None:
    headers = {"origin": keyed.server.url}
    with keyed.browser(keyed.reader, "Rita") as reader, keyed.browser(keyed.weak) as weak:
        assert reader.get("/pairs/first").status_code == 200
        assert weak.get("/pairs/first").status_code == 403
        assert weak.get("/constitutions").status_code == 200
        refused = [
            reader.post("/constitutions/own/save", data={"text": OWN, "etag": "x"}, headers=headers),
            reader.post(
                "/pairs/first/correct", data={"id": "x", "letter": "a", "reason": "r"}, headers=headers
            ),
            reader.post("/check/new", data={"labels": "first"}, headers=headers),
            reader.post("/jobs", data={"kind": "label", "once": "x", "do": "start"}, headers=headers),
            reader.post("/files", files={"file": ("x", b"x")}, headers=headers),
            reader.post("/keys", data={"name": "x"}, headers=headers),
            weak.post(
                "/playground", data={"judge": "script", "prompt": "p", "a": "a", "b": "b"}, headers=headers
            ),
        ]
        assert [answer.status_code for answer in refused] == [403] * len(refused)
        out = reader.post("/sign-out", headers=headers)
        assert out.url.path == "/sign-in"
        assert reader.get("/pairs").url.path == "/sign-in"


def test_who_asks_what_would_flip_loses_no_text(site: Site) -> None:
    text = OWN.replace("politer", "politer by far")
    asked = {"text": text, "on": "first", "most_usd": "1", "etag": ""}
    answer = site.send("/constitutions/own/flips", asked)
    assert answer.status_code == 422
    page = Page(answer.text)
    assert "politer by far" in page.text
    assert "It is not known what would flip." in page.text
    assert "holds no labels with their manifest" in page.text
    assert site.send("/constitutions/own/flips", asked | {"on": "nothing"}).status_code == 404
    assert site.send("/constitutions/own/flips", asked | {"most_usd": "-1"}).status_code == 422
