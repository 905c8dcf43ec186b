"""`selflong inspect`: look at a dataset's samples before training on them, in the terminal or as one page.

In: a dataset repository (`dataset_rows.py`). Out: text for the terminal, or an HTML file that needs nothing else. What
documents say is data: the page escapes it, holds no script and forbids any to run.
"""

import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from selflong.errors import UserError
from selflong.manifest import write_text
from selflong.publishing.dataset_rows import ConfigSummary, DatasetRepository, commonest_first, open_dataset
from selflong.publishing.inspect_terminal import Screen, render_overview, render_sample
from selflong.publishing.sample_view import SampleView, build_view, cut, visible
from selflong.publishing.templates import number, template_folder

# Text of a sample's documents on the page, shared among them: a browser scrolls two megabytes with ease, and each
# document shows at least a paragraph and at most a few pages.
PAGE_CHARS = 2_000_000
SHORTEST_EXCERPT_CHARS, LONGEST_EXCERPT_CHARS = 400, 12_000


def inspect(reference: str, config: str | None, split: str, sample: int | None, html: Path | None) -> str:
    """Return what to print: all configs (or `config`), or one sample of `config`.

    With `html`, write the page instead and say so; without `sample` it shows the first one of each config. Raises
    UserError for a dataset, config, split or sample that is not there, and for a file that cannot be written.
    """
    if html and (html.is_dir() or not html.parent.is_dir()):
        raise UserError(html, "cannot be written", "give a file in a folder that exists")
    dataset = open_dataset(reference)
    if config:
        dataset.check_config(config)
    if html:
        return _write_page(dataset, config, split, sample, html)
    screen = Screen.of(sys.stdout)
    shown = config or dataset.shown_config
    if sample is not None:
        return render_sample(_view(dataset, shown, split, sample), dataset.gates(shown), screen)
    summaries = [dataset.summary(name) for name in ([config] if config else dataset.configs)]
    return render_overview(dataset.name, summaries, commonest_first(dataset.facts.get("ignored")), shown, screen)


def render_page(name: str, summaries: list[ConfigSummary], ignored: dict[str, int], views: list[SampleView]) -> str:
    """Return the page. No string of `views` can become markup: all pass `visible` and are escaped, none is a link."""
    environment = Environment(
        loader=FileSystemLoader(template_folder("dataset_cards")),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_visible_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, cut=cut)
    template = environment.get_template("inspect.html.jinja")
    return template.render(
        name=name, summaries=summaries, ignored=ignored, views=[(view, _excerpt_chars(view)) for view in views]
    )


def _write_page(dataset: DatasetRepository, config: str | None, split: str, sample: int | None, html: Path) -> str:
    configs = [config] if config else dataset.configs if sample is None else [dataset.shown_config]
    views = [_view(dataset, name, split, sample or 0) for name in configs]
    ignored = commonest_first(dataset.facts.get("ignored"))
    write_text(html, render_page(dataset.name, [dataset.summary(name) for name in configs], ignored, views))
    return f"wrote {html} ({html.stat().st_size / 1024:,.0f} kB): open it in a browser"


def _view(dataset: DatasetRepository, config: str, split: str, position: int) -> SampleView:
    row, num_rows = dataset.row(config, split, position)
    return build_view(row, config, split, position, num_rows, dataset.target_length(config))


def _excerpt_chars(view: SampleView) -> int:
    fair = PAGE_CHARS // max(1, len(view.documents))
    return min(max(fair, SHORTEST_EXCERPT_CHARS), LONGEST_EXCERPT_CHARS)


def _visible_text(value: Any) -> Any:
    """What every expression of the template passes before it is escaped. A macro's output has passed already."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
