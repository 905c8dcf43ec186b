"""The plan's section `synthesis`: `SynthesisPlan` → tables, each above the formulas that made it."""

from selflong import plan_assumptions as assumed
from selflong.plan_synthesis import (
    INDEX_BYTES_PER_CHAR,
    INDEXING_BYTES_PER_CHAR,
    ZSTD_RATIO,
    CorpusPlan,
    StepPlan,
    SynthesisPlan,
    mean_questions,
    plan_synthesis,
)
from selflong.plan_text import columns, section, size, table
from selflong.rates import Rates
from selflong.recipe_synthesis import Synthesis

TOKEN_HEADER = ["calls", "prompt tokens", "reply tokens", "replies at limit"]


def synthesis_section(synthesis: Synthesis, rates: Rates) -> str:
    """Return the section: calls by config, totals by step with price and hours, disk and memory, assumptions."""
    plan = plan_synthesis(synthesis)
    generator = synthesis.generator
    opening = (
        f"generator {generator.model}: {generator.prompts} prompts, {generator.context_length:,} tokens a call, chunks "
        f"of at most {synthesis.reading.chunk_tokens:,}"
    )
    tables = [opening, _calls(synthesis, plan), _totals(plan, rates), _rows(synthesis, plan), _disk(plan)]
    return section("synthesis", "\n\n".join([*tables, _assumptions(synthesis)]))


def _calls(synthesis: Synthesis, plan: SynthesisPlan) -> str:
    rows = [["config", "target length", "samples", "step", *TOKEN_HEADER]]
    for name, config in synthesis.configs.items():
        lead = [name, f"{config.target_length:,}", f"{config.num_samples:,}"]
        for step, took in plan.configs[name].steps.items():
            rows.append([*lead, step, *_cells(took)])
            lead = ["", "", ""]
    formulas = [
        "samples that a gate drops come on top: all figures x tried / kept, which is unknown before the first run",
        "instruction = samples x mean of num_questions x attempts; at most x "
        f"{synthesis.gates.max_instruction_attempts} (max_instruction_attempts)",
        "reading = questions x chunks of their documents, and the pieces of further rounds",
        "round trip = questions x findings; response = questions that got an instruction; topic = samples of "
        "long_output",
        "short_replay: the steps of its skills, by their shares; open prompt and replay = one call a sample each",
        "prompt tokens = calls x (chunk, findings or opening + instruction + wording); at limit = calls x largest "
        "reply",
    ]
    return table(columns(rows), formulas)


def _totals(plan: SynthesisPlan, rates: Rates) -> str:
    totals = {step: took for step, took in plan.totals.items() if took.calls}
    totals["all"] = sum(totals.values(), StepPlan(0, 0, 0, 0))
    header = ["step", *TOKEN_HEADER]
    header += ["USD", "at limit"] if rates.usd_per_million_tokens else []
    header += ["hours", "at limit"] if rates.tokens_per_second else []
    rows = [[step, *_cells(took), *_costs(took, rates)] for step, took in totals.items()]
    return table(columns([header, *rows]), [_price_formula(rates), _hours_formula(rates)])


def _costs(took: StepPlan, rates: Rates) -> list[str]:
    """Price and hours, each as expected and at the limit; nothing for what is unknown."""
    replies = (took.completion_tokens, took.max_completion_tokens)
    prices = [rates.usd(took.prompt_tokens, tokens) for tokens in replies]
    hours = [rates.hours(took.prompt_tokens, tokens) for tokens in replies]
    return [f"{n:,.2f}" for n in prices if n is not None] + [f"{n:,.1f}" for n in hours if n is not None]


def _price_formula(rates: Rates) -> str:
    price = rates.usd_per_million_tokens
    if price is None:
        return "USD unknown: give --usd-per-million-tokens PROMPT,COMPLETION"
    return f"USD = (prompt tokens x {price.prompt:g} + reply tokens x {price.completion:g}) / 1,000,000"


def _hours_formula(rates: Rates) -> str:
    speed = rates.tokens_per_second
    if speed is None:
        return "hours unknown: give --tokens-per-second PROMPT,COMPLETION of the whole server"
    return (
        f"hours = (prompt tokens / {speed.prompt:,.10g} + reply tokens / {speed.completion:,.10g}) / 3,600, "
        "if the server does either at a time"
    )


def _rows(synthesis: Synthesis, plan: SynthesisPlan) -> str:
    rows = [["config", "questions", "documents", "chunks", "findings", "more rounds", "tokens", "Parquet"]]
    for name, config in synthesis.configs.items():
        row = plan.configs[name].row
        cells = [f"{row.documents:,.1f}", f"{row.chunks:,.1f}", f"{row.findings:,.1f}", f"{len(row.rereadings)}"]
        if not row.chunks:
            cells[1:] = ["-", "-", "-"]
        questions = f"{mean_questions(config):g}" if row.chunks else "-"
        rows.append([name, questions, *cells, f"{row.tokens:,.0f}", size(plan.configs[name].parquet_bytes)])
    formulas = [
        "of one mean row, findings a question; documents fill target_length, and all of them are read",
        f"findings: {_findings(synthesis)}; more rounds: readings of findings that exceed one call",
        f"Parquet = samples x tokens x characters a token x {ZSTD_RATIO:.3f} (zstd, measured: 100 rows of 650 kB)",
    ]
    return table(columns(rows), [*formulas, *_too_few_candidates(synthesis, plan)])


def _too_few_candidates(synthesis: Synthesis, plan: SynthesisPlan) -> list[str]:
    """A warning for each config whose rows need more documents than retrieval returns."""
    lines = []
    for name, config in synthesis.configs.items():
        row, found = plan.configs[name].row, synthesis.retrieval.candidates * min(config.num_questions)
        if row.chunks and row.documents > found:
            lines.append(
                f"WARNING {name}: a row needs {row.documents:,.0f} documents, retrieval finds {found:,}; raise "
                "retrieval.candidates"
            )
    return lines


def _findings(synthesis: Synthesis) -> str:
    if synthesis.gates.one_distinct_finding:
        return "1 a question (one_distinct_finding)"
    return f"{assumed.RELEVANT_PERCENT} % of the chunks, at least 1"


def _disk(plan: SynthesisPlan) -> str:
    corpus = plan.corpus
    sizes = {
        "corpus": corpus.disk_bytes,
        "bm25 index: disk": corpus.index_bytes,
        "bm25 index: memory at its peak": corpus.indexing_bytes,
        "dataset: Parquet": plan.parquet_bytes,
    }
    rows = [["disk and memory", "size"]]
    rows += [[what, "unknown" if found is None else size(found)] for what, found in sizes.items()]
    return table(columns(rows), _disk_formulas(corpus))


def _disk_formulas(corpus: CorpusPlan) -> list[str]:
    documents = "unknown: how many documents; where corpus.max_documents is set, it is that many"
    if corpus.documents is not None:
        documents = f"at most {corpus.documents:,} documents of {corpus.document_chars:,.0f} characters in the mean"
    return [
        documents,
        f"corpus = characters (documents.arrow) + characters x {ZSTD_RATIO:.3f} (passages.parquet, heldout.parquet)",
        f"index = characters x {INDEX_BYTES_PER_CHAR:g} B on disk, x {INDEXING_BYTES_PER_CHAR:g} B at the peak of "
        f"building a shard of {corpus.shard_documents:,} documents (bm25)",
    ]


def _assumptions(synthesis: Synthesis) -> str:
    """What the figures rest on, beside the recipe."""
    expected, corpus, prompts = assumed.expect(synthesis), synthesis.corpus, synthesis.generator.prompts
    askable = f"{corpus.facts.share_percent} % (facts)" if corpus.facts else "all"
    tokens = {assumed.chars_per_token(m) for m in (synthesis.student, _counted_by(synthesis))}
    lines = [
        f"documents have {corpus.min_document_chars:,} to {corpus.max_document_chars:,} characters, each doubling of "
        f"size half as many: {expected.document_chars:,.0f} in the mean" + (", facts included" if corpus.facts else ""),
        f"a token has {' or '.join(f'{n:g}' for n in sorted(tokens))} characters; chunks end with their document: "
        f"{expected.chunks_per_document:.2f} a document, {expected.chunk_tokens:,.0f} tokens each",
        f"{askable} of the chunks have something to ask, {assumed.USABLE_PERCENT[prompts]} % of the replies about "
        "those are usable",
        f"so a question takes {expected.attempts:.2f} attempts, and {100 * expected.asked_share:.1f} % of them get an "
        "instruction",
        f"replies, of their limit: instructions {assumed.INSTRUCTION_PERCENT} %, findings {assumed.FINDING_PERCENT} %, "
        f"responses {assumed.RESPONSE_PERCENT} %; nothing relevant: {assumed.NOTHING_TOKENS} tokens",
        f"wording and chat template: {expected.wording_tokens} tokens a call",
    ]
    return table("assumptions", lines)


def _counted_by(synthesis: Synthesis) -> str:
    return synthesis.generator.tokenizer or synthesis.generator.model


def _cells(took: StepPlan) -> list[str]:
    found = (took.calls, took.prompt_tokens, took.completion_tokens, took.max_completion_tokens)
    return [f"{number:,}" for number in found]
