"""What survives a reload, what a link shows, and what nobody else can see."""

from __future__ import annotations

import re

import pytest
from steps import ask, expect, toast, upload
from test_people import HURT, PAYLOADS

from vl3.webapp import saved
from vl3.webapp.saved import ConversationStore

pytest_plugins = ["page_fixtures"]


def settings_open(page) -> None:
    page.locator(".sidebar .toggle-button").click()
    expect(page.get_by_label("Temperature", exact=True)).to_be_visible()


def test_a_reload_keeps_conversation_video_and_settings(page, clip, script, server):
    upload(page, clip)
    page.get_by_label("Frames per s", exact=True).fill("3")
    expect(page.locator("#budget p")).to_contain_text("12 frames")
    page.get_by_label("From", exact=True).fill("0:01")
    expect(page.locator("#budget p")).to_contain_text("9 frames")
    script.answer = f"Kept. {PAYLOADS[2]} {PAYLOADS[0]}"
    ask(page, f"What moves? {PAYLOADS[3]}")
    settings_open(page)
    page.get_by_label("Temperature", exact=True).fill("0.5")
    page.get_by_label("System prompt", exact=True).fill("Be brief.")
    page.locator("#settings").get_by_label("Remove repeated patches").uncheck()
    page.get_by_label("Dark", exact=True).check()
    page.wait_for_function("localStorage.getItem('vl3-settings')?.includes('brief')")
    fork = [entry[1] for entry in script.log if entry[0] == "fork"][-1]
    page.reload()
    expect(page.locator("#player .facts")).to_contain_text(clip.name)
    expect(page.locator("#chat .bot-row")).to_contain_text("Kept.")
    expect(page.locator("#chat .caption")).to_contain_text("0:01–0:04 · 9 frames")
    expect(page.locator("#budget p")).to_contain_text("9 frames")
    expect(page.get_by_label("From", exact=True)).to_have_value("0:01")
    expect(page.get_by_label("Frames per s", exact=True)).to_have_value("3")
    assert page.evaluate(HURT)
    settings_open(page)
    expect(page.get_by_label("Temperature", exact=True)).to_have_value("0.5")
    expect(page.get_by_label("System prompt", exact=True)).to_have_value("Be brief.")
    expect(page.locator("#settings").get_by_label("Remove repeated patches")).not_to_be_checked()
    expect(page.get_by_label("Dark", exact=True)).to_be_checked()
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    assert fork.released, "the page before the reload holds nothing any more"
    ask(page, "And then?", 2)
    *_, last = [entry for entry in script.log if entry[0] == "answered"]
    assert [message["role"] for message in last[2]] == ["system", "user", "assistant", "user"]
    page.get_by_role("button", name="Clear conversation", exact=True).click()
    expect(page.locator("#chat .user-row")).to_have_count(0)
    page.reload()
    expect(page.locator("#player .facts")).to_contain_text(clip.name)
    expect(page.locator("#chat .user-row")).to_have_count(0)


def copied(page) -> str:
    """The address that "Copy link" put into the clipboard."""
    page.evaluate(
        "() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; }"
    )
    page.get_by_role("button", name="Copy link", exact=True).click()
    text = toast(page)
    assert "Link copied" in text
    assert "Anybody who can reach this server and has the link" in text
    return page.evaluate("window.copied")


@pytest.mark.slow
def test_a_link_opens_a_copy(new_page, server, script, clip):
    first = new_page(server, apart=True)
    upload(first, clip)
    ask(first, "When?")
    link = copied(first)
    ask(first, "After the link?", 2)
    second = new_page(server, apart=True, query=link.removeprefix(server.url + "/"))
    text = toast(second)
    assert "A copy of a conversation" in text
    assert "?run=" not in second.url
    expect(second.locator("#player .facts")).to_contain_text(clip.name)
    expect(second.locator("#chat .user-row")).to_contain_text(["When?"])
    expect(second.locator("#chat .bot-row")).to_have_count(1)
    ask(second, "Only here?", 2)
    second.reload()
    expect(second.locator("#chat")).to_contain_text("Only here?")
    first.reload()
    expect(first.locator("#chat")).to_contain_text("After the link?")
    assert "Only here?" not in first.locator("#chat").inner_text()


def revoke(page) -> None:
    settings_open(page)
    page.get_by_role("button", name="Revoke links", exact=True).click()


@pytest.mark.slow
def test_a_link_can_be_revoked(new_page, server, script, clip):
    first = new_page(server, apart=True)
    upload(first, clip)
    ask(first, "When?")
    query = copied(first).removeprefix(server.url + "/")
    reader = new_page(server, apart=True, query=query)
    toast(reader)
    address = f"{server.url}/{reader.locator('#player video').get_attribute('src')}"
    assert reader.context.request.get(address).ok, "a link gives its video along"
    stranger = new_page(server, apart=True)
    assert stranger.context.request.get(address).status == 403
    revoke(stranger)
    assert "No link was copied" in toast(stranger)
    first.reload()  # the links are the browser's, not the page's
    revoke(first)
    assert "has stopped working" in toast(first)
    late = new_page(server, apart=True, query=query)
    assert "The link is wrong, revoked" in toast(late)
    expect(late.locator("#chat .user-row")).to_have_count(0)


@pytest.mark.slow
def test_a_name_that_is_not_ones_own_shows_nothing(new_page, server, script, clip):
    owner = new_page(server, apart=True)
    upload(owner, clip)
    ask(owner, "Secret question?")
    own = owner.evaluate("sessionStorage.getItem('vl3-run')")
    assert len(own) >= 20
    for name in (own, "forged", "../../etc/passwd", PAYLOADS[2]):
        stranger = new_page(server, apart=True, query=f"?run={name}")
        text = toast(stranger)
        assert "Conversation not found" in text
        assert "The link is wrong" in text
        expect(stranger.locator("#chat .user-row")).to_have_count(0)
        expect(stranger.locator("#player .facts")).to_have_count(0)
        assert stranger.evaluate(HURT)
        stranger.close()


@pytest.mark.slow
def test_without_a_clipboard_the_link_is_shown(page, clip):
    page.get_by_role("button", name="Copy link", exact=True).click()
    assert "Ask a question first." in toast(page)
    upload(page, clip)
    ask(page, "When?")
    page.evaluate(
        "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }"
    )
    page.get_by_role("button", name="Copy link", exact=True).click()
    box = page.get_by_role("dialog", name="Copy this link")
    expect(box).to_contain_text("Anybody who can reach this server")
    expect(box.get_by_label("Link", exact=True)).to_have_value(
        re.compile(r"^http://127.*\?run=.{20,}")
    )
    box.get_by_role("button", name="Close").click()
    expect(box).to_be_hidden()


# The same without a browser.


def test_a_shelf_is_bounded():
    from test_view_models import done

    shelf = ConversationStore(most=3, characters=100)
    for number in range(5):
        shelf.put(f"name{number}", [done()], None)
    assert [shelf.get(f"name{number}") is not None for number in range(5)] == [False] * 2 + [
        True
    ] * 3
    shelf.put("long", [done("x" * 70)], None)
    assert shelf.get("name4") is None
    assert shelf.get("long").turns[0].question == "x" * 70
    shelf.put("long", [], None)
    assert len(shelf) == 0, "an empty conversation is not kept"
    shelf.put("old", [done()], None)
    shelf.trim(keep_s=-1)
    for name in ("old", None, 3, ["old"], {}):
        assert shelf.get(name) is None
    assert len({saved.new_name() for _ in range(1000)}) == 1000
