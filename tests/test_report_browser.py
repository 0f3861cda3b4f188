"""The report in a real browser: the slider by mouse, touch and keyboard, silence, names, contrast, and how it looks.

Screenshots go to ``tests/output/report``, for people to look at.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

selenium = pytest.importorskip("selenium", reason="needs selenium: pip install '.[dev]'")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from acclimate.report import write_report  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver: apt-get install chromium chromium-driver"
)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-quic")  # fmt: skip
SIZES = {"phone": (390, 844), "laptop": (1280, 900)}
OUTPUT = Path(__file__).parent / "output" / "report"

CONTRAST = """
const lightness = ([r, g, b]) => {
  const linear = [r, g, b].map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = rgba(getComputedStyle(e).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return rgba(getComputedStyle(document.body).backgroundColor);
};
const ratio = (a, b) => {
  const [x, y] = [lightness(a), lightness(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
};
const bad = []; let seen = 0;
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.checkVisibility({ visibilityProperty: true })) continue;
  if (element.closest(".stage, .thumb, noscript, option")) continue;
  const style = getComputedStyle(element), large = parseFloat(style.fontSize) >= 24;
  const found = ratio(rgba(style.color), behind(element)); seen += 1;
  if (found < (large ? 3 : 4.5)) bad.push([element.tagName, element.textContent.trim().slice(0, 30), found.toFixed(2)]);
}
for (const element of document.querySelectorAll("svg .bar, svg .line, svg .mark, svg .level, svg .dot, .swatch")) {
  const style = getComputedStyle(element);
  const filled = element.matches(".swatch") ? style.backgroundColor : style.fill;
  const paint = element.matches(".bar, .dot, .swatch") ? filled : style.stroke;
  const track = element.matches(".bar, .mark") && element.parentElement.querySelector(".track");
  const under = track ? rgba(getComputedStyle(track).fill) : behind(element.closest("div"));
  const found = ratio(rgba(paint), under); seen += 1;
  if (found < 3) bad.push([element.tagName, paint, found.toFixed(2)]);
}
return [seen, bad];
"""


class Browser:
    """A Chromium with one page open."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))

    def open(self, page: Path, size: str = "laptop", scheme: str = "light") -> None:
        width, height = SIZES[size]
        phone = size == "phone"
        self.say("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.say("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.say("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.driver.get(page.as_uri())

    def say(self, command: str, **what: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, what)

    def ask(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def box(self, selector: str) -> dict[str, float]:
        """Place of an element in the window, which scrolls to it."""
        return self.ask(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect(); return {x: b.x, y: b.y, width: b.width, height: b.height}",
            selector,
        )

    def at(self) -> float:
        """Where the divider is drawn, from 0 to 1 of the picture."""
        return self.ask(
            "const stage = document.querySelector('.stage'), whole = stage.getBoundingClientRect();"
            "const line = stage.querySelector('.divider').getBoundingClientRect();"
            "return (line.x + line.width / 2 - whole.x) / whole.width"
        )

    def shoot(self, name: str, step: int = 2400) -> None:
        """The whole page, in as many pictures as it takes."""
        OUTPUT.mkdir(parents=True, exist_ok=True)
        width, height = self.ask("return [innerWidth, document.documentElement.scrollHeight]")
        for number, top in enumerate(range(0, height, step)):
            clip = {"x": 0, "y": top, "width": width, "height": min(step, height - top), "scale": 1}
            taken = self.say("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
            (OUTPUT / f"{name}-{number}.png").write_bytes(base64.b64decode(taken["data"]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def pages(tiny_runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    compared = write_report(tiny_runs[:1] * 2, tmp_path_factory.mktemp("page") / "compared.html", "cpu")
    return {"measured": tiny_runs[0] / "report.html", "blind": tiny_runs[1] / "report.html", "compared": compared}


def test_the_mouse_drags_the_divider(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["measured"])
    box = browser.box(".stage")
    y = box["y"] + box["height"] * 0.3  # anywhere on the picture, not on the grip alone
    middle, goal = box["x"] + box["width"] / 2, box["x"] + box["width"] * 0.8
    assert browser.at() == pytest.approx(0.5, abs=0.02)
    for kind, x in (
        ("mousePressed", middle),
        ("mouseMoved", middle + 40),
        ("mouseMoved", goal),
        ("mouseReleased", goal),
    ):
        browser.say("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    assert browser.at() == pytest.approx(0.8, abs=0.02)
    left = browser.ask("return getComputedStyle(document.querySelector('.layer[data-on=left]')).clipPath")
    right = browser.ask("return getComputedStyle(document.querySelector('.layer[data-on=right]')).clipPath")
    assert left != right and left.startswith("inset(") and right.startswith("inset(")


def test_a_finger_drags_the_divider_and_scrolls_past_it(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["measured"], "phone")
    box = browser.box(".stage")
    y, x = box["y"] + box["height"] / 2, box["x"] + box["width"] / 2
    browser.say("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    for share in (0.45, 0.35, 0.25):
        moved = {"x": box["x"] + box["width"] * share, "y": y}
        browser.say("Input.dispatchTouchEvent", type="touchMove", touchPoints=[moved])
    browser.say("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert browser.at() == pytest.approx(0.25, abs=0.03)
    assert browser.ask("return getComputedStyle(document.querySelector('.handle')).touchAction") == "pan-y"


def test_the_keyboard_moves_the_divider_and_chooses(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["measured"])
    handle = browser.driver.find_element(By.CSS_SELECTOR, ".handle")
    outline = "return getComputedStyle(document.querySelector('.stage')).outlineStyle"
    assert browser.ask(outline) == "none"
    strength = browser.driver.find_element(By.CSS_SELECTOR, "[data-strength]")
    strength.send_keys(Keys.TAB)  # from the control before it
    assert browser.ask("return document.activeElement.className") == "handle"
    assert browser.ask(outline) == "solid"
    handle.send_keys(Keys.ARROW_RIGHT * 5)
    assert browser.at() == pytest.approx(0.55, abs=0.005)
    assert handle.get_attribute("aria-valuetext").startswith("55 % source only, 45 % ")
    handle.send_keys(Keys.HOME)
    assert browser.at() == pytest.approx(0, abs=0.005)
    handle.send_keys(Keys.END)
    assert browser.at() == pytest.approx(1, abs=0.005)


def test_sides_images_and_colours_can_be_chosen(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["measured"])
    shown = "return [...document.querySelectorAll('.layer[data-on]')].map((e) => [e.dataset.key, e.dataset.on])"
    for side, title in (("left", "photo alone"), ("right", "labels")):
        browser.driver.find_element(By.CSS_SELECTOR, f"[data-side={side}]").send_keys(title)
    assert browser.ask(shown) == [["truth", "right"]] * 2  # of two images
    assert browser.ask("return document.querySelector('.tag.left').textContent") == "photo alone"
    second = browser.driver.find_elements(By.CSS_SELECTOR, ".thumb")[1]
    second.send_keys(Keys.ENTER)
    assert second.get_attribute("aria-pressed") == "true"
    assert browser.ask("return [...document.querySelectorAll('.scene')].map((e) => e.hidden)") == [True, False]
    browser.driver.find_element(By.CSS_SELECTOR, "[data-strength]").send_keys(Keys.HOME)
    opacity = "return getComputedStyle(document.querySelectorAll('.stage')[1].querySelector('[data-on]')).opacity"
    assert float(browser.ask(opacity)) == pytest.approx(0.1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("name", ["measured", "blind", "compared"])
def test_a_page_is_legible_fits_and_keeps_to_itself(
    browser: Browser, pages: dict[str, Path], name: str, size: str, scheme: str
) -> None:
    for kind in ("browser", "performance"):
        browser.driver.get_log(kind)
    browser.open(pages[name], size, scheme)
    browser.shoot(f"{name}-{size}-{scheme}")
    browser.ask("for (const e of document.querySelectorAll('details')) e.open = true")
    width = browser.ask("return document.documentElement.scrollWidth")
    assert width <= SIZES[size][0], "the page scrolls sideways"
    seen, pale = browser.ask(CONTRAST)
    assert seen > 100 and pale == []
    assert browser.driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("data:", pages[name].as_uri())) for url in asked)


def test_everything_has_a_name(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["measured"])
    nodes = browser.say("Accessibility.getFullAXTree")["nodes"]
    needing = {"slider", "combobox", "button", "image", "img", "link", "region", "navigation", "table"}
    named = [(node["role"]["value"], node.get("name", {}).get("value", ""))
             for node in nodes if not node.get("ignored") and "role" in node]  # fmt: skip
    assert [role for role, name in named if role in needing and not name.strip()] == []
    roles = [role for role, _ in named]
    assert {"slider", "combobox", "button", "image", "heading", "main", "navigation"} <= set(roles)
    assert ("slider", "Colours") in named and any(r == "slider" and n.startswith("Divider in") for r, n in named)
    levels = browser.ask("return [...document.querySelectorAll('h1,h2,h3,h4')].map((e) => +e.tagName[1])")
    assert levels.count(1) == 1 and all(after <= before + 1 for before, after in pairwise(levels))


def test_tab_goes_through_controls_and_each_shows_where_it_is(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["measured"])
    browser.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.ask("return document.activeElement.className") == "skip"
    met: list[str] = []
    while not browser.ask("return document.activeElement === document.body") and len(met) < 99:
        state = browser.ask(
            "const e = document.activeElement, s = getComputedStyle(e.matches('.handle') ? e.closest('.stage') : e);"
            "return [e.tagName + '.' + e.className, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]"
        )
        assert state[1], state
        met.append(state[0])
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert {"A.", "BUTTON.thumb", "SELECT.", "INPUT.handle", "SUMMARY."} <= set(met)
    assert 15 < len(met) < 99


def test_who_wants_no_motion_gets_none(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["measured"])
    browser.say("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    moving = (
        "const moves = (s) => s.scrollBehavior === 'smooth' || parseFloat(s.transitionDuration) > 0;"
        "return [...document.querySelectorAll('*')].filter((e) => moves(getComputedStyle(e))).length"
    )
    assert browser.ask(moving) == 0
