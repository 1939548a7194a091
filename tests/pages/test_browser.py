"""The pages in a real browser: journeys, without scripts, by keyboard, on a phone; accessibility; nothing from elsewhere."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests import serving
from tests.pages.places import PAGES

AXE = Axe()
Tab = Callable[..., Any]


@pytest.fixture
def tab(browser: Any, gallery: serving.Served) -> Iterator[Tab]:
    """New tabs, signed in as a user: `tab("admin", width=390, dark=True)`. Requests to elsewhere, errors of scripts and violated
    policies fail the test."""
    contexts, wrong = [], []

    def opened(user: str | None = "admin", *, width: int = 1440, dark: bool = False, script: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
            base_url=gallery.url,
        )
        contexts.append(context)
        context.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(gallery.url) else None)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        if user is not None:
            page.goto("/sign-in")
            page.fill("#token", gallery.token(user))
            page.click("main button")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


SEEN = [place.path for place in PAGES]
SOME = SEEN[::6]


def violations(page: Any) -> list[str]:
    found = AXE.run(
        page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    )
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:120]} {v['nodes'][0]['failureSummary'][:200]}"
        for v in found.response["violations"]
    ]


def look(page: Any, paths: list[str], width: int) -> list[str]:
    wrong = []
    for path in paths:
        page.goto(path)
        wrong += [f"{path}: {violation}" for violation in violations(page)]
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            wrong.append(f"{path}: is {wide} pixels wide")
        if not page.title().endswith(" · dataset_registry"):
            wrong.append(f"{path}: has the title {page.title()!r}")
    return wrong


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_pages_are_accessible_and_fit_the_screen(width: int, dark: bool, tab: Tab) -> None:
    page = tab(width=width, dark=dark)
    assert look(page, ["/sign-in", *SOME], width) == []


@pytest.mark.long
@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1440, True), (390, False), (390, True)])
def test_every_page_is_accessible_and_fits_the_screen(width: int, dark: bool, tab: Tab) -> None:
    page = tab(width=width, dark=dark)
    assert look(page, ["/sign-in", *SEEN, "/datasets/absent"], width) == []


def test_pages_can_be_read_without_scripts(tab: Tab) -> None:
    page = tab(script=False)
    for path in SOME:
        page.goto(path)
        assert page.locator("h1").count() == 1, path


def test_an_analyst_finds_compares_previews_and_downloads(tab: Tab) -> None:
    page = tab("reader")
    page.keyboard.press("/")
    page.keyboard.type("price")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="raw/prices", exact=True).first.click()
    page.fill("#from", "v1")
    page.fill("#to", "main")
    page.get_by_role("button", name="Compare").click()
    assert page.url.endswith("/datasets/raw/prices/compare/v1...main")
    row = page.locator("tr.changed", has_text="6.0").first
    assert row.locator("del").inner_text() == "2.0"
    assert row.locator("ins").inner_text() == "6.0"
    page.get_by_role("link", name="v5").first.click()
    page.get_by_role("link", name="Preview").click()
    page.select_option("#filter", "price")
    page.select_option("select[name=operator]", ">")
    page.fill("input[name=value]", "1")
    page.select_option("#sort", "price")
    page.select_option("select[name=order]", "descending")
    page.get_by_role("button", name="Show").last.click()
    cells = page.locator("table.rows tbody tr td:nth-child(3)").all_inner_texts()
    assert cells == ["6.0", "3.0"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_bytes()[:4] == b"PAR1"


def test_an_engineer_goes_from_a_run_to_its_versions_and_their_lineage_and_reverts(
    tab: Tab, gallery: serving.Served
) -> None:
    dataset = gallery.owner.create_dataset("engineered/files")
    for number in (1, 2):
        dataset.commit({"data": b"%d" % number})
    page = tab("admin")
    page.goto("/runs/run-1")
    page.get_by_role("link", name="clean/prices@v1").click()
    page.get_by_role("link", name="Lineage").click()
    assert page.locator("svg.lineage rect").count() == 3
    assert page.get_by_role("heading", name="What must be rebuilt if this changes").is_visible()
    page.goto("/datasets/engineered/files@v2")
    page.get_by_text("Revert this version").click()
    page.get_by_role("button", name="Revert v2").click()
    assert page.locator("h1").inner_text() == "files@v3"
    assert "Revert v2" in page.locator("dd.message").inner_text()
    page.get_by_role("link", name="History").click()
    assert page.locator("table.history tbody tr").count() == 3


def test_a_reviewer_resolves_conflicts_row_by_row_approves_and_merges(tab: Tab, gallery: serving.Served) -> None:
    dataset = gallery.owner.create_dataset("reviewed/prices")
    from tests.pages.gallery import prices

    dataset.commit({"data": prices(1, 2)}, key="id")
    dataset.create_branch("pr-8")
    dataset.commit({"data": prices(1, 5)}, key="id", branch="pr-8")
    dataset.commit({"data": prices(7, 6)}, key="id")
    page = tab("admin")
    page.goto("/branches/pr-8")
    page.get_by_role("link", name="Open a review").click()
    page.fill("#title", "Better prices")
    page.get_by_role("button", name="Create the review").click()
    assert "1 conflict" in page.content()
    page.get_by_role("link", name="Resolve").click()
    page.get_by_role("radio", name="theirs").check()
    page.get_by_role("button", name="Merge with these decisions").click()
    assert "conflict" not in page.locator("table").inner_text()
    page.fill("#comment", "Theirs is right.")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Merge into main").click()
    assert page.locator(".state").inner_text() == "merged"
    assert dataset.version().to_arrow()["price"].to_pylist() == [7, 6]


def test_an_operator_explains_access_reads_the_log_and_plans(tab: Tab) -> None:
    page = tab("admin")
    page.get_by_role("link", name="Administration").click()
    page.get_by_role("link", name="Access").click()
    page.fill("#user", "reader")
    page.fill("#dataset", "raw/prices")
    page.get_by_role("button", name="Explain").click()
    assert "read on the prefix raw/" in page.content()
    page.fill("#to", "guest")
    page.fill("#on", "granted/")
    page.get_by_role("button", name="Grant", exact=True).click()
    page.get_by_role("button", name="Revoke the grant of guest on granted/").click()
    assert "granted/" not in page.content()
    page.get_by_role("link", name="Audit log").click()
    page.fill("#action", "check.record")
    page.get_by_role("button", name="Filter").click()
    assert page.locator("tbody tr").count() == 3
    page.get_by_role("button", name="Check the seals").click()
    assert "as it was sealed" in page.locator("[role=status]").inner_text()
    page.get_by_role("link", name="Storage").click()
    page.get_by_role("button", name="Plan a collection").click()
    assert "A collection would delete" in page.content()
    page.get_by_role("button", name="Verify now").click()
    assert "0 findings" in page.locator("[role=status]").inner_text()


def test_the_keyboard_alone_reaches_everything(tab: Tab) -> None:
    page = tab("reader")
    page.goto("/datasets/raw/prices@main")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    seen = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.outerHTML.slice(0, 300)"))
    wanted = page.evaluate(
        """[...document.querySelectorAll("a[href]:not([tabindex='-1']), button, input:not([type=hidden]), summary, select")]
        .filter(e => e.checkVisibility()).map(e => e.outerHTML.slice(0, 300))"""
    )
    assert [element for element in wanted if element not in seen] == []
