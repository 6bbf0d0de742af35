"""Drives the page of a running `kvcast serve` in Chromium: race, chat, errors, keyboard, narrow and dark.

    pip install playwright; apt install chromium
    python tests/clients/page_check.py http://127.0.0.1:8080 OUTPUT_DIRECTORY [/usr/bin/chromium]

Writes screenshots and fails on a wrong page, on anything in the browser's log, or on a request to
anywhere else.
"""
import pathlib
import sys
import time

from playwright.sync_api import sync_playwright

url, out = sys.argv[1].rstrip("/"), pathlib.Path(sys.argv[2])
program = sys.argv[3] if len(sys.argv) > 3 else "/usr/bin/chromium"
out.mkdir(parents=True, exist_ok=True)
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


class Watched:
    """A page whose log and requests are watched."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(viewport=WIDE, **options)
        self.page = self.context.new_page()
        self.problems = []
        self.page.on("console", lambda m: m.type == "error" and self.problems.append(m.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda r: r.url.startswith((url, "data:"))
                     or self.problems.append("outside request: " + r.url))

    def open(self, tab):
        self.page.goto(f"{url}/#{tab}")
        until(self.page, "document.querySelectorAll('#chat-prefill option').length > 0")
        return self.page


def until(page, expression, seconds=120):
    """Waits until a JavaScript expression is true: the page's policy forbids Playwright's own way."""
    for _ in range(seconds * 20):
        if page.evaluate(expression):
            return
        time.sleep(0.05)
    raise AssertionError("never true: " + expression)


def shots(page, name):
    for size, width in ((WIDE, "wide"), (NARROW, "narrow")):
        page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.evaluate("window.scrollTo(0, 0)")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), \
                f"{name} scrolls sideways at {size['width']}"
            page.screenshot(path=out / f"{name}-{width}-{scheme}.png")
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light")


def check_race(browser):
    watched = Watched(browser, permissions=["clipboard-read", "clipboard-write"])
    page = watched.open("race")
    page.get_by_role("button", name="Start the race").press("Enter")
    page.wait_for_selector("#race-share:visible", timeout=120_000)
    times = page.evaluate("[...document.querySelectorAll('.clock')].map((c) => parseFloat(c.textContent))")
    widths = page.evaluate("[...document.querySelectorAll('.bar')].map((b) => b.getBoundingClientRect().width)")
    ratio, drawn = times[0] / times[1], widths[0] / widths[1]
    print(f"race: {times} ms; {page.inner_text('#race-ratio')} {page.inner_text('#race-verdict')}")
    assert abs(drawn / ratio - 1) < 0.05, (times, widths)  # lengths are times
    shown = page.inner_text("#race-ratio")
    assert shown.endswith("×") and abs(float(shown[:-1]) / max(ratio, 1 / ratio) - 1) < 0.06, shown
    for size in (WIDE, NARROW):  # a clock is one line, and inside its lane
        page.set_viewport_size(size)
        assert page.evaluate("""[...document.querySelectorAll('.clock')].every((clock) => {
            const [box, track] = [clock.getBoundingClientRect(), clock.parentElement.getBoundingClientRect()];
            return clock.getClientRects().length === 1 && box.height < 32 && box.right <= track.right; })"""), size
    page.set_viewport_size(WIDE)
    # Headline, lanes with their stages and the legend are in sight without scrolling.
    assert page.evaluate("document.getElementById('race-legend').getBoundingClientRect().bottom < innerHeight")
    assert page.locator("#lane-left .bar span").count() == 6
    page.get_by_role("button", name="Copy the result").click()
    page.wait_for_selector("text=Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "time to first token" in copied and "×" in copied, copied
    assert page.locator("#race-table tr").count() == 11
    shots(page, "race")
    assert not watched.problems, watched.problems

    # An error that the user made goes when the prompt is touched.
    page.fill("#race-input", "too long " * 3000)
    page.get_by_role("button", name="Start the race").click()
    page.wait_for_selector("#race-error:visible")
    assert "context" in page.inner_text("#race-error")
    assert page.locator("#race-headline").is_hidden(), "an old result beside an error"
    shots(page, "error")
    page.fill("#race-input", "short")
    assert page.locator("#race-error").is_hidden()
    assert all("400" in text for text in watched.problems), watched.problems


def check_chat(browser):
    watched = Watched(browser)
    page = watched.open("chat")
    shots(page, "examples")
    # By keyboard only: an example, then a message.
    page.locator("#chat-examples button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".assistant .stats:has-text('first token after')", timeout=120_000)
    page.locator("#chat-input").focus()
    page.keyboard.type("And then? <script>alert(1)</script> <b>bold</b>")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two lines.")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.assistant .stats')[1]?.textContent.includes('first token after')")
    assert page.evaluate("document.querySelectorAll('#log b, #log script').length") == 0
    assert page.evaluate("document.activeElement.id") == "chat-input"
    # The composer is at the bottom, whatever the conversation's length.
    below = page.evaluate("innerHeight - document.getElementById('chat-send').getBoundingClientRect().bottom")
    assert 0 <= below < 60, below
    shots(page, "chat")

    # Kept on reload.
    said = page.locator("#log .text").all_inner_texts()
    page.reload()
    page.wait_for_selector(".assistant")
    assert page.locator("#log .text").all_inner_texts() == said
    # Settings in one place, kept too.
    page.get_by_role("button", name="Settings").click()
    shots(page, "settings")
    page.fill("#chat-tokens", "1500")
    page.select_option("#theme", "dark")
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('settings').open")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    page.reload()
    page.wait_for_selector("text=up to 1500 tokens")
    # Escape stops an answer.
    page.fill("#chat-input", "Tell me everything about the sea and the light in the fog at night.")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.assistant')[2]?.querySelector('.text').textContent")
    page.keyboard.press("Escape")
    page.wait_for_selector("#chat-send:visible")
    page.get_by_role("button", name="New conversation").click()
    assert page.locator("#log article").count() == 0
    page.reload()
    page.wait_for_selector("#chat-examples button")
    assert page.locator("#log article").count() == 0
    assert not watched.problems, watched.problems


def check_revision(browser):
    """A forecast that heals is corrected where everybody sees it, to what exact says."""
    watched = Watched(browser)
    page = watched.open("chat")
    # On which forecast and exact differ; new to the server, which would have made it exact by now.
    question = "The old keeper climbed the stairs and"
    texts = []
    for prefill in ("kv-prediction:refine=auto", "exact"):
        page.get_by_role("button", name="New conversation").click()
        page.get_by_role("button", name="Settings").click()
        page.select_option("#chat-prefill", prefill)
        page.fill("#chat-tokens", "48")
        page.keyboard.press("Escape")
        page.fill("#chat-input", question)
        page.keyboard.press("Enter")
        page.wait_for_selector(".assistant .stats:has-text('first token after')", timeout=120_000)
        texts.append(page.evaluate(r"""(() => {
            const text = document.querySelector('.assistant .text').cloneNode(true);
            text.querySelector('del')?.remove();
            return text.textContent.replace(/\s+/g, ' ').trim();
        })()"""))
        if prefill != "exact":
            assert "revised" in page.inner_text(".assistant .stats"), page.inner_text(".assistant .stats")
            assert page.locator(".assistant del").count() == 1 and page.locator(".assistant ins").count() == 1
            shots(page, "revised")
    assert texts[0] == texts[1], texts
    assert not watched.problems, watched.problems


def check_access(browser):
    watched = Watched(browser, reduced_motion="reduce")
    page = watched.open("race")
    page.locator("#tab-race").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-chat"
    assert page.locator("#chat").is_visible() and page.locator("#race").is_hidden()
    moving = page.evaluate("""(() => {
        document.getElementById('race-headline').hidden = false;
        document.getElementById('tab-race').click();
        return document.getAnimations().length;
    })()""")
    assert moving == 0, "something moves although less motion is asked for"
    # Every control has a name that a screen reader can say.
    nodes = watched.context.new_cdp_session(page)
    for tab in ("race", "chat"):
        page.locator("#tab-" + tab).click()
        tree = nodes.send("Accessibility.getFullAXTree")["nodes"]
        nameless = [n["role"]["value"] for n in tree if not n.get("ignored")
                    and n["role"]["value"] in ("button", "textbox", "combobox", "spinbutton", "tab", "log", "dialog")
                    and not n.get("name", {}).get("value")]
        assert not nameless, nameless
    assert not watched.problems, watched.problems


with sync_playwright() as driver:
    chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
    for check in (check_race, check_revision, check_chat, check_access):
        check(chromium)
        print(check.__name__, "passed")
    chromium.close()
print("the page is fine; screenshots in", out)
