"""The demo page, in a real Chromium: what people do there, and what they see."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from serve.page import ASSETS
from serve.settings import Limits
from tests.serve.conftest import Serve
from tests.serve.fakes import FakeManifest, FakeNer, FakeParser

HEBREW = "הילדים משחקים בגן."
HOSTILE = "<script>hacked = 1</script> <img src=x onerror='hacked = 1'> <b>Ada</b>"
KEY = "key-0123456789abcdef"

CONTROLS = """
    return [...document.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")]
        .filter((element) => element.checkVisibility() && !element.disabled)
"""


class Page:
    """The page in a browser: what one does there, and what one sees."""

    def __init__(self, browser: Chrome, client: httpx.Client) -> None:
        self.browser = browser
        browser.get(str(client.base_url))
        self.wait_for("return document.querySelector('#samples button, .error') !== null")

    def script(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def wait_for(self, condition: str) -> None:
        WebDriverWait(self.browser, 20, poll_frequency=0.02).until(
            lambda _: self.script(condition), condition
        )

    def wait_for_answer(self) -> None:
        self.wait_for("return document.getElementById('results').ariaBusy === 'false'")

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def choose(self, **models: str) -> None:
        for task, name in models.items():
            self.one(f"#{task}-model option[value^='{name}']").click()

    def run(self, text: str) -> None:
        # By a script, because the driver cannot type an emoji.
        self.script("document.getElementById('text').value = arguments[0]", text)
        self.one("#run").click()
        self.wait_for_answer()

    def press(self, *keys: str, holding: str = "") -> None:
        chain = ActionChains(self.browser)
        if holding:
            chain.key_down(holding).send_keys(*keys).key_up(holding).perform()
        else:
            chain.send_keys(*keys).perform()

    @property
    def message(self) -> str:
        return self.one("#message").text

    @property
    def marked(self) -> list[str]:
        """The marked parts of the text."""
        found: list[str] = self.script(
            "return [...document.querySelectorAll('mark')].map((mark) => mark.firstChild.data)"
        )
        return found

    @property
    def text(self) -> str:
        """The text of the answer, marked and unmarked parts together, without labels and scores."""
        joined: str = self.script(
            "return [...document.querySelector('.entities').childNodes]"
            ".map((part) => (part.firstChild ?? part).data).join('')"
        )
        return joined

    @property
    def arrows(self) -> list[str]:
        """What hovering over each arrow of the trees shows."""
        titles: list[str] = self.script(
            "return [...document.querySelectorAll('.displacy-arrow > title')].map((each) => each.textContent)"
        )
        return titles

    def contents(self, selector: str) -> list[str]:
        """The text of elements, with all its white space."""
        return [str(element.get_property("textContent")) for element in self.all(selector)]

    @property
    def commands(self) -> list[str]:
        """The curl commands on the screen."""
        return self.contents("code")


@pytest.fixture(scope="module")
def served(serve: Serve) -> httpx.Client:
    """A server with an English and a Hebrew model for each task."""
    return serve(
        {
            "names": FakeNer(),
            "names-he": FakeNer(FakeManifest(language="he")),
            "trees": FakeParser(),
            "trees-he": FakeParser(FakeManifest(task="parse", language="he", labels=("root", "dep"))),
        }
    )


@pytest.fixture
def page(browser: Chrome, served: httpx.Client) -> Page:
    return Page(browser, served)


def output_of(command: str) -> str:
    """What a shell prints for it."""
    environment = os.environ | {"NO_PROXY": "*"}
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_the_page_and_its_files_allow_nothing_but_themselves_and_are_no_part_of_the_api(
    served: httpx.Client,
) -> None:
    answers = [served.get("/"), *(served.get(f"/page/{name}") for name in ASSETS)]
    assert {answer.headers["content-type"].partition(";")[0] for answer in answers} == {
        "text/html", "text/css", "text/javascript", "image/svg+xml"
    }  # fmt: skip
    for answer in answers:
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy)
    assert not [path for path in served.get("/openapi.json").json()["paths"] if path in ("/", "/page/{name}")]


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fdemo.py", "demo.py"])
def test_no_other_file_is_given_out(served: httpx.Client, name: str) -> None:
    answer = served.get(f"/page/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_entities_are_marked_at_their_characters_also_after_an_emoji(page: Page) -> None:
    text = "👩\u200d🚀 🎉 met Ada Lovelace\n\nand 𝒜 𝒷 Bob  😀."
    page.run(text)
    assert page.message == "Done."
    assert page.text == text
    assert page.marked == ["Ada Lovelace", "𝒜", "Bob"]


def test_an_entity_tells_its_label_and_score_to_mouse_keyboard_and_screen_reader(page: Page) -> None:
    page.run("so Ada is here")
    mark, score = page.one("mark"), page.one("mark .score")
    assert mark.get_attribute("title") == "NAME, score 0.50"
    assert mark.accessible_name == "Ada: NAME, score 0.50"
    assert not score.is_displayed()
    page.script("arguments[0].focus()", mark)
    assert score.is_displayed()
    assert score.text == "0.50"


def test_a_tree_has_an_arrow_for_each_token_and_the_place_under_it_shows_its_score(page: Page) -> None:
    page.run("Ada sleeps here. Bob too.")
    assert len(page.all("figure.tree svg")) == 2
    assert len(page.arrows) == len(page.all(".displacy-word")) == 7
    arc = page.one(".displacy-arc")
    page.script("arguments[0].scrollIntoView({ block: 'center' })", arc)
    ActionChains(page.browser).move_to_element(arc).perform()
    hovered = page.script("return document.querySelector('.displacy-arrow:hover > title').textContent")
    assert hovered.startswith("dep 0.25: ")


def test_a_tree_can_be_read_as_a_list_without_a_mouse(page: Page) -> None:
    page.run("Ada sleeps")
    page.one(".tree summary").send_keys(Keys.ENTER)
    assert [each.text for each in page.all(".tree li")] == page.arrows
    assert len(page.arrows) == 2


def test_right_to_left_text_is_read_from_the_right_in_text_and_tree(page: Page) -> None:
    page.choose(ner="names-he", parse="trees-he")
    page.run("הילדים משחקים בגן " * 8)
    assert page.one("#text").value_of_css_property("direction") == "rtl"
    assert page.one(".entities").value_of_css_property("direction") == "rtl"
    places = [word.rect["x"] for word in page.all(".displacy-word")]
    assert len(places) == 24
    assert places == sorted(places, reverse=True)
    frame, first = page.one(".frame").rect, page.one(".displacy-word").rect
    assert frame["x"] <= first["x"]
    assert first["x"] + first["width"] <= frame["x"] + frame["width"]


def test_everything_works_by_keyboard_alone_and_shows_where_one_is(page: Page) -> None:
    page.press(Keys.TAB, Keys.TAB)
    assert page.browser.switch_to.active_element == page.one("#text")
    page.press("a", holding=Keys.CONTROL)
    page.press("so Ada sleeps")
    page.press(Keys.ENTER, holding=Keys.CONTROL)
    page.wait_for_answer()
    assert page.marked == ["Ada"]
    expected = page.script(CONTROLS)
    after_text = expected.index(page.one("#text")) + 1
    for control in expected[after_text:]:
        page.press(Keys.TAB)
        focused = page.browser.switch_to.active_element
        assert focused == control
        assert focused.value_of_css_property("outline-style") == "solid"
    assert page.one("mark") in expected
    assert page.one(".frame") in expected


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here: apt-get install curl")
def test_the_curl_commands_on_the_screen_give_the_answers_on_the_screen(page: Page) -> None:
    page.run("it's \"Ada\" \\n $HOME `id` 100 % !\n\n'Bob'\t🎉 - " + HEBREW)
    entities, trees = [output_of(command) for command in page.commands]
    (result,) = json.loads(entities)["results"]
    assert [entity["text"] for entity in result["entities"]] == page.marked == ["Ada", "HOME", "Bob"]
    assert trees.count("<figure") == len(page.all("figure.tree"))
    assert trees.count("<title>") == len(page.arrows)


def test_the_copy_button_copies_the_command(page: Page, served: httpx.Client) -> None:
    page.browser.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"origin": str(served.base_url), "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    page.run("Ada")
    page.one("section button").click()
    page.wait_for("return document.getElementById('message').textContent === 'Copied.'")
    copied = page.browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == page.commands[0]


def test_the_page_names_the_model_and_the_time_of_an_answer(page: Page) -> None:
    page.choose(ner="names-he")
    page.run("Ada and Bob")
    entities, trees = [found.text for found in page.all(".found")]
    assert entities.startswith("2 entities by names-he")
    assert trees.startswith("1 tree by trees")
    for time in page.all(".time"):
        assert " ms there and back, " in time.text
        assert " ms of it in the server: reading " in time.text


def test_the_page_says_what_a_model_keeps_of_its_teacher(browser: Chrome, serve: Serve) -> None:
    reached = {"f1": 58.21, "precision": 60.0, "kept": 95.6, "gap": 44.7, "agreement": 81.04}
    served = serve(
        {
            "names": FakeNer(FakeManifest(scores={"test": reached})),
            "names-he": FakeNer(FakeManifest(language="he", scores={"test": {"agreement": 91.0}})),
            "trees": FakeParser(),
        }
    )
    page = Page(browser, served)
    said = page.one("#ner-reached")
    for part in ("F1 58.2", "96 % of its teacher's", "agreement with its teacher 81.0"):
        assert part in said.text
    page.choose(ner="names-he")
    assert "agreement with its teacher 91.0" in said.text
    assert "F1" not in said.text
    assert page.one("#parse-reached").text == ""


def test_markup_in_the_text_is_shown_as_text(page: Page) -> None:
    page.run(HOSTILE)
    assert page.text == HOSTILE
    assert any(word.startswith("<") for word in page.contents(".displacy-word"))
    assert not page.all("#results script, #results img, #results b")
    assert page.script("return typeof hacked") == "undefined"


def test_the_page_asks_nothing_of_any_other_place_and_complains_of_nothing(
    page: Page, served: httpx.Client
) -> None:
    page.browser.get_log("browser")
    page.browser.refresh()
    page.wait_for("return document.querySelector('#samples button') !== null")
    page.run("Ada sleeps")
    asked = page.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    paths = {str(httpx.URL(address).path) for address in asked}
    assert {"/models", "/ner", "/parse", "/page/page.js", "/page/page.css"} <= paths
    assert [address for address in asked if not address.startswith(str(served.base_url))] == []
    assert page.browser.get_log("browser") == []


def test_a_refusal_is_shown_with_its_reason(browser: Chrome, serve: Serve) -> None:
    page = Page(browser, serve({"names": FakeNer()}, limits=Limits(text_characters=20)))
    page.run("Ada")
    assert page.marked == ["Ada"]
    page.run("Ada " * 10)
    assert "/texts/0: 40 characters" in page.message
    assert page.one("#message").get_attribute("class") == "error"
    assert page.marked == []


def test_a_task_without_a_model_cannot_be_chosen(browser: Chrome, serve: Serve) -> None:
    page = Page(browser, serve({"names": FakeNer()}))
    assert not page.one("#parse").is_enabled()
    page.run("Ada")
    assert [heading.text for heading in page.all("h2")] == ["Entities"]
    page.one("#ner").click()
    page.run("Ada")
    assert "Choose" in page.message


@pytest.mark.parametrize(
    ("fetch", "text", "message"),
    [
        ("async () => { throw new Error('sent all the same') }", " \n", "a text first"),
        (
            "async () => new Response('busy', { status: 429, headers: { 'Retry-After': '3' } })",
            "Ada",
            "429. Try again in 3 seconds",
        ),
        ("async () => { throw new TypeError('Failed to fetch') }", "Ada", "cannot be reached"),
    ],
)
def test_an_empty_text_a_refusal_and_a_server_out_of_reach_are_shown(
    page: Page, fetch: str, text: str, message: str
) -> None:
    page.script(f"fetch = {fetch}")
    page.run(text)
    assert message in page.message


def test_a_new_run_gives_up_the_one_before(page: Page) -> None:
    page.script(
        """
        asked = [];
        fetch = (path, { signal }) => new Promise((_, reject) => {
            asked.push(signal);
            signal.addEventListener("abort", () => reject(signal.reason));
        });
        """
    )
    page.one("#run").click()
    assert page.message == "Running…"
    assert page.one("#results").get_attribute("aria-busy") == "true"
    page.one("#run").click()
    assert page.script("return asked.map((signal) => signal.aborted)") == [True, True, False, False]
    assert page.message == "Running…"


def test_a_key_is_asked_for_where_the_server_wants_one_and_stays_in_memory(
    browser: Chrome, serve: Serve, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"demo:{KEY}\n")
    keys.chmod(0o600)
    page = Page(browser, serve({"names": FakeNer(), "trees": FakeParser()}, api_keys=keys))
    assert "Send a valid key" in page.message
    assert page.browser.switch_to.active_element == page.one("#key")
    page.press(KEY, Keys.TAB)
    page.wait_for("return document.querySelector('#samples button') !== null")
    page.run("Ada")
    assert page.marked == ["Ada"]
    assert len(page.arrows) == 1
    for command in page.commands:
        assert '-H "Authorization: Bearer $API_KEY"' in command
    kept = "return JSON.stringify([localStorage, sessionStorage, document.cookie, document.body.innerHTML])"
    assert KEY not in page.script(kept)


@pytest.mark.parametrize(("language", "offered"), [("he", "he"), ("pt", "pt"), ("de", "de"), ("fi", "en")])
def test_examples_are_in_the_language_of_the_models_or_else_in_english(
    browser: Chrome, serve: Serve, language: str, offered: str
) -> None:
    page = Page(browser, serve({"names": FakeNer(FakeManifest(language=language))}))
    examples = page.all("#samples button")
    assert {example.get_attribute("lang") for example in examples} == {offered}
    examples[1].click()
    page.wait_for_answer()
    assert page.text == page.one("#text").get_property("value") == examples[1].text


def test_an_example_chooses_models_of_its_language(page: Page) -> None:
    page.one("#samples [lang='he']").click()
    page.wait_for_answer()
    assert [found.text.split(" by ")[1][:8] for found in page.all(".found")] == ["names-he", "trees-he"]
