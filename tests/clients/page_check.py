"""Drives the page of a running `kvcast serve` in headless Chromium: chat, race, narrow window, errors.

    pip install aiohttp
    python tests/clients/page_check.py http://127.0.0.1:8080 OUTPUT_DIRECTORY [chromium]

Writes screenshots and fails on a wrong page, on anything in the browser's log, or on a request to
anywhere else.
"""
import asyncio
import base64
import pathlib
import subprocess
import sys
import tempfile

import aiohttp

url, out = sys.argv[1].rstrip("/"), pathlib.Path(sys.argv[2])
program = sys.argv[3] if len(sys.argv) > 3 else "chromium"
out.mkdir(parents=True, exist_ok=True)


class Page:
    def __init__(self, socket):
        self.socket, self.next_id, self.answers, self.problems = socket, 1, {}, []

    async def listen(self):
        async for message in self.socket:
            data = message.json()
            if "id" in data:
                self.answers.pop(data["id"]).set_result(data)
            elif data["method"] == "Log.entryAdded" and data["params"]["entry"]["level"] == "error":
                self.problems.append(data["params"]["entry"].get("text", ""))
            elif data["method"] == "Runtime.exceptionThrown":
                self.problems.append(str(data["params"]["exceptionDetails"]))
            elif data["method"] == "Network.requestWillBeSent":
                target = data["params"]["request"]["url"]
                if not target.startswith((url, "data:")):
                    self.problems.append("outside request: " + target)

    async def call(self, method, **params):
        future = asyncio.get_running_loop().create_future()
        self.answers[self.next_id] = future
        await self.socket.send_json({"id": self.next_id, "method": method, "params": params})
        self.next_id += 1
        answer = await asyncio.wait_for(future, 30)
        assert "error" not in answer, answer
        return answer["result"]

    async def js(self, expression):
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                                 returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression, seconds=60):
        for _ in range(seconds * 20):
            if await self.js(expression):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("never true: " + expression)

    async def size(self, width, height, dark=False):
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                        deviceScaleFactor=1, mobile=False)
        await self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    async def shot(self, name):
        data = await self.call("Page.captureScreenshot", format="png")
        (out / (name + ".png")).write_bytes(base64.b64decode(data["data"]))

    async def key(self, key, code):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                            windowsVirtualKeyCode=code, **text)


async def check(page):
    for domain in ("Page", "Runtime", "Log", "Network"):
        await page.call(domain + ".enable")
    await page.size(1100, 800)
    await page.call("Page.navigate", url=url + "/")
    await page.until("document.querySelectorAll('#chat-prefill option').length > 0")

    # Chat, by keyboard only.
    await page.js("document.getElementById('chat-input').focus()")
    await page.call("Input.insertText", text="Tell me about the lighthouse and the old keeper.")
    await page.key("Enter", 13)
    await page.until("document.querySelector('.assistant .stats')?.textContent.includes('first token')")
    assert await page.js("document.querySelector('.assistant .text').textContent.length > 5")
    assert await page.js("document.activeElement.id") == "chat-input"
    await page.shot("chat")

    # Stop with Escape.
    await page.js("document.getElementById('chat-tokens').value = 1500")
    await page.call("Input.insertText", text="And then? <script>alert(1)</script> <b>bold</b>")
    await page.key("Enter", 13)
    await page.until("document.querySelectorAll('.assistant')[1]?.querySelector('.text').textContent")
    await page.key("Escape", 27)
    await page.until("!document.getElementById('chat-send').disabled")
    assert await page.js("document.querySelectorAll('#log b, #log script').length") == 0

    # The tabs by arrow keys, then the race.
    await page.js("document.getElementById('tab-chat').focus()")
    await page.key("ArrowRight", 39)
    assert await page.js("document.activeElement.id") == "tab-race"
    await page.js("document.getElementById('race-form').requestSubmit()")
    await page.until("!document.getElementById('plot').hidden")
    print("race:", await page.js("document.getElementById('race-verdict').textContent"))
    assert await page.js("document.querySelectorAll('#plot-table tr').length") == 7
    await page.size(1100, 1250)
    await page.shot("race")
    await page.size(1100, 1250, dark=True)
    await page.shot("race-dark")
    await page.size(380, 1400)
    assert await page.js("document.documentElement.scrollWidth <= innerWidth"), "scrolls sideways"
    await page.shot("race-narrow")
    await page.js("document.getElementById('tab-chat').click()")
    assert await page.js("document.documentElement.scrollWidth <= innerWidth"), "scrolls sideways"
    await page.size(380, 800)
    await page.shot("chat-narrow")

    # Every control has a name; what a screen reader would find missing.
    tree = await page.call("Accessibility.getFullAXTree")
    nameless = [n["role"]["value"] for n in tree["nodes"] if not n.get("ignored")
                and n["role"]["value"] in ("button", "textbox", "combobox", "spinbutton", "tab", "log")
                and not n.get("name", {}).get("value")]
    assert not nameless, nameless

    # An error the user made: a prompt beyond the context.
    assert not page.problems, page.problems
    await page.size(1100, 700)
    await page.js("document.getElementById('tab-race').click();"
                  "document.getElementById('race-input').value = 'too long '.repeat(3000);"
                  "document.getElementById('race-form').requestSubmit()")
    await page.until("!document.getElementById('error').hidden")
    assert "context" in await page.js("document.getElementById('error').textContent")
    await page.js("window.scrollTo(0, 0)")
    await page.shot("error")
    assert all("400" in text for text in page.problems), page.problems


async def main():
    with tempfile.TemporaryDirectory() as profile:
        browser = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--remote-debugging-port=0", "--user-data-dir=" + profile, "about:blank"],
            stderr=subprocess.PIPE, text=True)
        try:
            while "ws://" not in (line := browser.stderr.readline()):
                assert line, "chromium did not start"
            port = line.split("127.0.0.1:")[1].split("/")[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as response:
                    target = [t for t in await response.json() if t["type"] == "page"][0]
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    listener = asyncio.create_task(page.listen())
                    await check(page)
                    listener.cancel()
        finally:
            browser.terminate()
            browser.wait()
    print("the page is fine; screenshots in", out)


asyncio.run(main())
