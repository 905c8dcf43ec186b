"""One training sample, as in Figure 1 of the paper: instruction → documents → reading → response.

    instruction  the generator writes it from a random chunk (or several, each from a chunk of its own)
    documents    retrieved for it, until the target length is full; shuffled
    reading      every chunk of every document is read for the instruction; "nothing relevant" is an outcome
    response     written from what was read, never from the documents and never from anything planted

A sample is a pure function of (recipe, seed, config, index). One that fails a gate raises `DroppedError`.
"""

import asyncio
import collections
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from selflong.llm.engine import Engine, Message
from selflong.recipe_synthesis import DatasetConfig, Synthesis
from selflong.records import Chunk, Document, Example
from selflong.synthesis.chunks import chunk
from selflong.synthesis.prompts import VERSION, Prompts, UnusableError
from selflong.synthesis.retrieval import Retriever

# Room below this is left to the training rows' short examples: no document of any corpus is shorter.
SHORTEST_DOCUMENT_TOKENS = 16


class DroppedError(Exception):
    """A sample that is not kept; the message is the reason under which it is counted."""


class Workflow:
    """Makes samples of one dataset config after another from one corpus with one generator."""

    def __init__(
        self,
        synthesis: Synthesis,
        documents: Sequence[Document],
        retriever: Retriever,
        engine: Engine,
        prompts: Prompts,
        count_generator_tokens: Callable[[str], int],
        count_chat_tokens: Callable[[Sequence[Message]], int],
    ) -> None:
        """`count_generator_tokens` counts a text, `count_chat_tokens` a chat by the student."""
        self.synthesis, self.documents, self.retriever, self.engine = synthesis, documents, retriever, engine
        self.prompts, self.count_generator_tokens = prompts, count_generator_tokens
        self.count_chat_tokens = count_chat_tokens
        self.ignored: collections.Counter[str] = collections.Counter()
        self._chunks: dict[int, list[Chunk]] = {}
        self._document_tokens: dict[int, int] = {}

    async def sample(self, name: str, config: DatasetConfig, index: int) -> Example:
        """Make sample `index` of config `name`. Raises DroppedError."""
        rng = np.random.default_rng([self.synthesis.seed, _stable_number(name), index])
        if config.kind == "long_output":
            from selflong.synthesis.long_output import long_output_sample

            return await long_output_sample(self, config, index, rng)
        if config.kind == "short_replay":
            from selflong.synthesis.short_replay import short_replay_sample

            return await short_replay_sample(self, config, index, rng)
        written = await self._write_instructions(int(rng.choice(config.num_questions)), rng)
        instructions = [text for text, _ in written]
        # A short sample is about the document it was asked from; a long one about what retrieval finds.
        sources = [source for _, source in written] if config.kind == "short" else []
        chosen = self._retrieve(instructions, sources, config.target_length, rng)
        answered, relevant = await self._answer_all(instructions, chosen)
        instructions, responses = [text for text, _ in answered], [text for _, text in answered]
        prompt = self._turns(chosen, instructions, responses)
        num_tokens = self.count_chat_tokens([*prompt, turn("assistant", responses[-1])])
        if num_tokens > config.target_length:
            raise DroppedError("longer than the target length")
        return Example(
            index=index,
            attempt=0,
            kind=config.kind,
            target_length=config.target_length,
            prompt=tuple(prompt),
            completion=responses[-1],
            instructions=tuple(instructions),
            task_types=("question",) * len(instructions),
            document_ids=tuple(self.documents[i].id for i in chosen),
            relevant_depths_percent=self._depths(chosen, set(relevant)),
            readings=(),
            num_tokens=num_tokens,
            num_completion_tokens=self.count_generator_tokens(responses[-1]),
            generator=self.synthesis.generator.model,
            retriever=self.retriever.name,
            prompt_version=VERSION,
            seed=self.synthesis.seed,
        )

    def _turns(self, chosen: list[int], instructions: Sequence[str], responses: Sequence[str]) -> list[Message]:
        """Documents and the first instruction, then each response but the last and the instruction after it."""
        documents = [self.documents[i].text for i in chosen]
        turns = [turn("user", self.prompts.user_turn(documents, instructions[0]))]
        for response, instruction in zip(responses, instructions[1:], strict=False):
            turns += [turn("assistant", response), turn("user", instruction)]
        return turns

    # -- 1. instruction

    async def _write_instructions(self, count: int, rng: np.random.Generator) -> list[tuple[str, int]]:
        """Up to `count` different instructions, each from a random chunk of its own, and its document.

        Raises DroppedError if there is none.
        """
        written = await asyncio.gather(*map(self.write_instruction, rng.spawn(count)))
        different = {text: source for text, source, _ in filter(None, written)}
        if not different:
            raise DroppedError("no usable instruction")
        return list(different.items())

    async def write_instruction(self, rng: np.random.Generator) -> tuple[str, int, str] | None:
        """An instruction, the position of its document and the chunk that it was written from, or None."""
        for _ in range(self.synthesis.gates.max_instruction_attempts):
            source = int(rng.integers(len(self.documents)))
            chunks = self.chunks_of(source)
            text = chunks[int(rng.integers(len(chunks)))].text
            limit = self.synthesis.generator.max_instruction_tokens
            reply = await self.engine.ask("instruction", self.prompts.instruction(text), limit)
            try:
                return self.prompts.parse_instruction(reply.text, text), source, text
            except UnusableError as reason:
                self.ignored[str(reason)] += 1
        return None

    # -- 2. documents

    def _retrieve(
        self, instructions: list[str], sources: list[int], target: int, rng: np.random.Generator
    ) -> list[int]:
        """Positions of `sources` and then retrieved documents that fill `target` tokens with the responses."""
        ranked = [self.retriever.retrieve(text, self.synthesis.retrieval.candidates) for text in instructions]
        candidates = [r[rank] for rank in range(max(map(len, ranked))) for r in ranked if rank < len(r)]
        budget = target - len(instructions) * self.synthesis.generator.max_response_tokens
        used = self._prompt_tokens([], instructions)
        chosen: list[int] = []
        for position in dict.fromkeys(sources + candidates):
            needed = self.document_tokens(position)
            if used + needed <= budget:
                chosen.append(position)
                used += needed
            elif budget - used < SHORTEST_DOCUMENT_TOKENS:
                break
        # Counts add up to within a token a document, so the whole is counted once and the last ones give way.
        while chosen and self._prompt_tokens(chosen, instructions) > budget:
            chosen.pop()
        if not chosen:
            raise DroppedError("no retrieved document fits the target length")
        return [chosen[i] for i in rng.permutation(len(chosen))]

    def _prompt_tokens(self, chosen: list[int], instructions: list[str]) -> int:
        """Tokens of all turns with empty responses."""
        turns = self._turns(chosen, instructions, [""] * len(instructions))
        return self.count_chat_tokens([*turns, turn("assistant", "")])

    # -- 3. reading and 4. response

    async def _answer_all(self, instructions: list[str], chosen: list[int]) -> tuple[list[tuple[str, str]], list[int]]:
        """(instruction, response) of those that pass the gates, and the document of each relevant chunk.

        The others are counted and left out of the sample. Raises DroppedError with the last reason if none is left.
        """
        outcomes = await asyncio.gather(*(self._answer(text, chosen) for text in instructions), return_exceptions=True)
        answered, relevant = [], []
        for outcome in outcomes:
            if isinstance(outcome, DroppedError):
                if len(instructions) > 1:
                    self.ignored[f"instruction left out: {outcome}"] += 1
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                answered.append(outcome[:2])
                relevant += outcome[2]
        if not answered:
            raise DroppedError(str(outcomes[-1]))
        return answered, relevant

    async def _answer(self, instruction: str, chosen: list[int]) -> tuple[str, str, list[int]]:
        """Read every chunk of every document, then respond: instruction, response, documents of relevant chunks."""
        pieces = [(position, piece.text) for position in chosen for piece in self.chunks_of(position)]
        read = await asyncio.gather(*(self._read_chunk(instruction, text) for _, text in pieces))
        distinct = list(dict.fromkeys(finding for finding in read if finding))
        if not distinct:
            raise DroppedError("nothing relevant in any chunk")
        if self.synthesis.gates.one_distinct_finding and len(distinct) > 1:
            raise DroppedError("contradicting readings")
        response = await self._respond(instruction, distinct)
        return instruction, response, [p for (p, _), finding in zip(pieces, read, strict=True) if finding]

    async def _read_chunk(self, question: str, text: str) -> str | None:
        limit = self.synthesis.generator.max_reading_tokens
        reply = await self.engine.ask("reading", self.prompts.reading(question, text), limit)
        try:
            finding = self.prompts.parse_reading(reply.text, question)
        except UnusableError as reason:
            self.ignored[str(reason)] += 1
            return None
        if finding and self.synthesis.gates.round_trip and not await self._returns(question, text):
            self.ignored["reading failed the round trip"] += 1
            return None
        return finding

    async def _returns(self, question: str, text: str) -> bool:
        """Round-trip consistency: asked about the chunk alone, the generator writes this very instruction."""
        limit = self.synthesis.generator.max_instruction_tokens
        reply = await self.engine.ask("round trip", self.prompts.instruction(text), limit)
        try:
            return self.prompts.parse_instruction(reply.text, text) == question
        except UnusableError:
            return False

    async def _respond(self, question: str, findings: list[str]) -> str:
        findings = await self._condense(question, findings)
        limit = self.synthesis.generator.max_response_tokens
        reply = await self.engine.ask("response", self.prompts.response(question, findings), limit)
        if reply.finish_reason == "length":
            raise DroppedError("response cut at its token limit")
        try:
            return self.prompts.parse_response(reply.text, question, findings)
        except UnusableError as reason:
            raise DroppedError(str(reason)) from reason

    async def _condense(self, question: str, findings: list[str]) -> list[str]:
        """Read the findings themselves again, chunk by chunk, until they fit one call. Ends: each round must shrink."""
        generator = self.synthesis.generator
        budget = generator.context_length - generator.max_response_tokens - 16  # template tokens, counted in `ask`
        size = self.count_generator_tokens(self.prompts.response(question, findings))
        while size > budget:
            pieces = chunk("\n\n".join(findings), self.synthesis.reading.chunk_tokens, self.count_generator_tokens)
            read = await asyncio.gather(*(self._read_chunk(question, piece) for piece in pieces))
            findings = [finding for finding in read if finding]
            if not findings:
                raise DroppedError("nothing relevant left after condensing")
            last, size = size, self.count_generator_tokens(self.prompts.response(question, findings))
            if size >= last:
                raise DroppedError("findings do not get shorter")
        return findings

    # -- samples of one turn

    def single_turn(
        self,
        config: DatasetConfig,
        index: int,
        prompt: str,
        completion: str,
        instruction: str,
        positions: list[int],
    ) -> Example:
        """A sample of one prompt and its completion, from one call about one chunk. Raises DroppedError if too long."""
        num_tokens = self.count_chat_tokens([turn("user", prompt), turn("assistant", completion)])
        if num_tokens > config.target_length:
            raise DroppedError("longer than the target length")
        return Example(
            index=index,
            attempt=0,
            kind=config.kind,
            target_length=config.target_length,
            prompt=(turn("user", prompt),),
            completion=completion,
            instructions=(instruction,),
            task_types=(config.kind,),
            document_ids=tuple(self.documents[i].id for i in positions),
            relevant_depths_percent=(),
            readings=(),
            num_tokens=num_tokens,
            num_completion_tokens=self.count_generator_tokens(completion),
            generator=self.synthesis.generator.model,
            retriever=self.retriever.name,
            prompt_version=VERSION,
            seed=self.synthesis.seed,
        )

    # -- documents and their chunks

    def chunks_of(self, position: int) -> list[Chunk]:
        if position not in self._chunks:
            document, limit = self.documents[position], self.synthesis.reading.chunk_tokens
            pieces = chunk(document.text, limit, self.count_generator_tokens)
            self._chunks[position] = [Chunk(document.id, piece) for piece in pieces]
        return self._chunks[position]

    def document_tokens(self, position: int) -> int:
        """Tokens that a document adds to a prompt, its separator included."""
        if position not in self._document_tokens:
            empty, text = self.count_chat_tokens([turn("user", "")]), self.documents[position].text + "\n"
            self._document_tokens[position] = self.count_chat_tokens([turn("user", text)]) - empty
        return self._document_tokens[position]

    def _depths(self, chosen: list[int], relevant: set[int]) -> tuple[float, ...]:
        """Where the relevant documents start, in percent of all document tokens."""
        total, before, depths = sum(map(self.document_tokens, chosen)), 0, []
        for position in chosen:
            if position in relevant:
                depths.append(round(100 * before / total, 1))
            before += self.document_tokens(position)
        return tuple(depths)


def turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _stable_number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
