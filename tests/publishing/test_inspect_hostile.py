"""What documents say stays data: nothing of it becomes markup on the page or a command to the terminal."""

import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from selflong.publishing.dataset_rows import ConfigSummary, Gates
from selflong.publishing.inspect_dataset import inspect, render_page
from selflong.publishing.inspect_terminal import Screen, render_sample
from selflong.publishing.sample_view import SampleView, visible
from tests.publishing.rows import example, row, spans_of, view

HOSTILE = (
    "<script>alert(1)</script></pre><img src=x onerror=alert(1)> {{ 7*7 }} {% raise %} {# gone #} &lt;b&gt; ' \" "
    "\x1b[31mred\x1b]0;title\x07 \x00 \u202egnp.exe\u2066 \r\n]]> <!-- \u2028 --> \U000e0041"
)


def hostile_views(text: str) -> list[SampleView]:
    """A sample with `text` in every string that a row holds, its documents undivided and divided."""
    texts, question = [f"{text}{i}" for i in range(4)], f"{text}?"
    made = example(
        texts=texts,
        questions=[question],
        completion=text,
        kind=text,
        task_types=(text,),
        document_ids=tuple(texts),
        generator=text,
        retriever=text,
        prompt_version=text,
    )
    divided = {"document_spans": spans_of(texts), "relevant_documents": [2]}
    return [view(row(made, **more), config=text, split=text) for more in ({}, divided)]


class Structure(HTMLParser):
    """Tags and attributes of a page, its texts apart."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[Any] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", data))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(text: str) -> str:
    gates = Gates(3, 1, {text: 2})
    summary = ConfigSummary(text, {text: 1}, {text: 1}, 9, 9.0, 9, (9, 12), 75.0, {text: 1}, gates)
    return render_page(text, [summary], {text: 4}, hostile_views(text))


def test_nothing_of_a_document_becomes_markup() -> None:
    page = page_of(HOSTILE)
    hostile, harmless = Structure(page), Structure(page_of("harmless"))
    assert hostile.tags == harmless.tags and len(hostile.tags) > 150
    assert "".join(hostile.texts).count("<script>alert(1)</script></pre>") == "".join(harmless.texts).count("harmless")
    assert "{{ 7*7 }} {% raise %} {# gone #}" in page and "&amp;lt;b&amp;gt;" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page)
    assert "⟨U+202E⟩gnp.exe" in page and "⟨U+0000⟩" in page


def test_the_page_is_self_contained_and_runs_nothing() -> None:
    tags = [tag for tag in Structure(page_of("harmless")).tags if isinstance(tag, tuple)]
    assert not {name for name, _ in tags} & {"script", "link", "img", "iframe", "object", "base", "a", "form"}
    assert not {key for _, attributes in tags for key, _ in attributes} & {"src", "href", "style", "onload", "onclick"}
    policy = [dict(a)["content"] for name, a in tags if name == "meta" and dict(a).get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    style = re.search("<style>(.*?)</style>", page_of("harmless"), re.DOTALL)
    assert style and "prefers-color-scheme: dark" in style[1] and "url(" not in style[1] and "@import" not in style[1]


@pytest.mark.parametrize("colours", [False, True])
def test_no_document_controls_the_terminal(colours: bool) -> None:
    for seen in hostile_views(HOSTILE):
        shown = render_sample(seen, None, Screen(100, colours))
        ours = re.findall(r"\x1b\[(?:1|32|2)m", shown)
        assert bool(ours) == colours
        rest = re.sub(r"\x1b\[(?:1|32|2|0)m", "", shown) if colours else shown
        assert "\x1b" not in rest and "red⟨U+001B⟩" in rest.replace("\n", "").replace(" ", "")
        kinds = {unicodedata.category(c) for c in rest.replace("\n", "")}
        assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_joiners_stay_and_line_ends_are_one() -> None:
    assert visible("क\u094d\u200dष 👩\u200d💻\r\nnext\ttab") == "क\u094d\u200dष 👩\u200d💻\nnext\ttab"
    assert visible("a\rb\u202ec\ud800") == "a⟨U+000D⟩b⟨U+202E⟩c⟨U+D800⟩"


def test_the_page_shows_a_sample_of_each_config_or_the_one_asked_for(dataset: Path) -> None:
    page = dataset / "page.html"
    printed = inspect(str(dataset), None, "train", None, page)
    assert printed.startswith(f"wrote {page}")
    text = "".join(Structure(page.read_text(encoding="utf-8")).texts)
    for config in ("short_128", "long_input_2048"):
        assert f"{config} · train · sample 0" in text
    for told in ("nothing relevant in any chunk 7", "Answer 0.", "The last answer.", "Document 7 begins.", "97.7 %"):
        assert told in text
    inspect(str(dataset), "short_128", "train", 3, page)
    text = page.read_text(encoding="utf-8")
    assert "sample 3" in text and "sample 0" not in text and "long_input_2048" not in text
