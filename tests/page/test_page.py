"""What a person sees: pictures, look-alikes, progress and errors."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from streams.errors import DependencyError
from tests.api_rig import picture
from tests.page.conftest import Site

DROP = """
([name, text]) => {
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name));
    for (const kind of ["dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}
"""


def drop(page: Page, name: str, data: bytes) -> None:
    """Drop a file onto the page."""
    page.evaluate(DROP, [name, base64.b64encode(data).decode()])


def wait_for_pictures(pictures: Locator) -> None:
    """Until every picture was loaded and decoded by the browser."""
    for picture_ in pictures.all():
        picture_.scroll_into_view_if_needed()
        expect(picture_).to_have_js_property("complete", True)
        assert picture_.evaluate("image => image.naturalWidth") > 0


def test_the_tenants_pictures_are_shown(page: Page, site: Site) -> None:
    """Every thumbnail is a picture that the browser could decode."""
    page.goto(site.address)
    tiles = page.locator("#images img")
    expect(tiles).to_have_count(12)
    wait_for_pictures(tiles)
    expect(page.locator("#status")).to_contain_text("12 pictures")


def test_a_click_shows_the_look_alikes_with_scores(page: Page, site: Site) -> None:
    """The family comes first, best first; a hit can be clicked in turn."""
    page.goto(site.address)
    page.locator('#images button[data-image-id="f1-m0"]').click()
    hits = page.locator("#hits button")
    expect(hits).to_have_count(11)
    assert {hit.get_attribute("data-image-id") for hit in hits.all()[:3]} == {"f1-m1", "f1-m2", "f1-m3"}
    scores = [float(text) for text in page.locator("#hits small").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9
    wait_for_pictures(page.locator("#hits img"))
    wait_for_pictures(page.locator("#query"))
    hits.first.click()
    expect(page.locator("#answer-title")).to_have_text("Look-alikes of f1-m1")


def test_a_dropped_file_is_searched_for(page: Page, site: Site) -> None:
    """A picture of a known family finds that family; the dropped picture is shown beside."""
    page.goto(site.address)
    drop(page, "mine.jpg", picture(2, 1))
    hits = page.locator("#hits button")
    expect(hits).to_have_count(12)
    assert hits.first.get_attribute("data-image-id") == "f2-m1"
    expect(page.locator("#answer-title")).to_have_text("Look-alikes of mine.jpg")
    wait_for_pictures(page.locator("#query"))
    expect(page.locator("#status")).to_contain_text("12 look-alikes")


def test_a_chosen_file_is_searched_for(page: Page, site: Site, tmp_path: Path) -> None:
    """The same through the file dialog, which the keyboard reaches."""
    chosen = tmp_path / "chosen.jpg"
    chosen.write_bytes(picture(0, 2))
    page.goto(site.address)
    page.locator("#file").set_input_files(chosen)
    expect(page.locator("#hits button").first).to_have_attribute("data-image-id", "f0-m2")


def test_everything_works_with_the_keyboard(page: Page, site: Site) -> None:
    """Tab reaches the tenant, the file and the pictures; Enter shows look-alikes."""
    page.goto(site.address)
    expect(page.locator("#images button")).to_have_count(12)
    focused = []
    for _ in range(3):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.name || document.activeElement.id || 'tile'"))
    assert focused[:2] == ["tenant", "file"]
    page.keyboard.press("Enter")
    expect(page.locator("#answer-title")).to_have_text("Look-alikes of f0-m0")
    expect(page.locator("#answer-title")).to_be_focused()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [("notes.txt", b"not a picture", "image_unreadable"), ("<b>.jpg", b"", "image_unreadable")],
)
def test_what_went_wrong_is_said_as_text(page: Page, site: Site, name: str, data: bytes, said: str) -> None:
    """A file that is no picture is told with its reason; nothing that was there goes away."""
    page.goto(site.address)
    drop(page, name, data)
    expect(page.locator("#status")).to_contain_text(said)
    expect(page.locator("#status")).to_have_class("error")
    expect(page.locator("#images button")).to_have_count(12)


def test_a_service_that_is_down_is_said_as_text(page: Page, site: Site) -> None:
    """And the next try, when it is back, works."""
    page.goto(site.address)
    expect(page.locator("#images button")).to_have_count(12)
    wait_for_pictures(page.locator("#images img"))  # or one of them would meet the fault
    site.rig.embedder.faults.append(DependencyError("embedder", "the embedding process is loading"))
    drop(page, "mine.jpg", picture(2, 1))
    expect(page.locator("#status")).to_contain_text("embedder_unavailable")
    drop(page, "mine.jpg", picture(2, 1))
    expect(page.locator("#status")).to_contain_text("look-alikes in")


def test_names_from_outside_are_text(page: Page, site: Site) -> None:
    """An image id, a tenant and a file name full of markup are shown as they are, and run nothing."""
    nasty = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
    site.rig.add(nasty, picture(1, 1), key="acme/nasty.jpg")
    page.goto(site.address)
    tile = page.locator("#images button").filter(has_text="onerror")
    expect(tile.locator("span")).to_have_text(nasty)
    assert page.locator("#images script, #images img[src='x']").count() == 0
    drop(page, nasty, picture(1, 1))
    expect(page.locator("#answer-title")).to_have_text(f"Look-alikes of {nasty}")
    page.goto(f"{site.address}/?tenant=%22%3E%3Cimg src=x onerror=alert(3)%3E")
    expect(page.locator("#status")).to_contain_text("tenant_not_found")
    expect(page.locator("input[name=tenant]")).to_have_value('"><img src=x onerror=alert(3)>')
    assert page.locator("script").count() == 1


def test_more_pictures_come_when_asked_for(page: Page, site: Site) -> None:
    """A page at a time; the button goes when there are no more."""
    for number in range(50):
        site.rig.add(f"g{number:02}", picture(7, number % 9, size=(16, 12)))
    page.goto(site.address)
    expect(page.locator("#images button")).to_have_count(48)
    page.locator("#more").click()
    expect(page.locator("#images button")).to_have_count(62)
    expect(page.locator("#more")).to_be_hidden()


class Elsewhere(BaseHTTPRequestHandler):
    """Another site: an empty page without any policy."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of another site on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_another_site_may_not_load_a_thumbnail(page: Page, site: Site, elsewhere: str) -> None:
    """A page of another origin does not even learn whether an image exists."""
    page.goto(elsewhere)
    url = f"{site.address}/v1/tenants/acme/images/f0-m0/thumbnail"
    load = """url => new Promise((done) => {
        const image = new Image();
        image.onload = () => done("loaded");
        image.onerror = () => done("refused");
        image.src = url;
    })"""
    assert page.evaluate(load, url) == "refused"
