"""Box 2 of the demo: passages → a short-context instruct model `base/`, because a fresh machine has no weights.

It plays the part of Llama-3-Instruct. Phase one trains copying and binding until the answer loss of rows with several
facts falls; that jump can stall, so a stalled run is restarted with a derived seed, counted and shown. Phase two adds
the other short skills. Legend: B rows, T tokens, V vocabulary.
"""

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selflong.recipe import Base, BaseModel, BaseTraining
from selflong.text_skills import ASK, NOTHING, TITLE, fact, question, writing_request
from selflong.training.short_skills import ANSWER, COPY, TEXT, WRITTEN, Mix, ShortSkills

BINDING = Mix(copy=4, several=10, single=2, ask=0, title=0, write=0, absent=0.0)
SKILLS = Mix(copy=3, several=5, single=4, ask=1, title=2, write=1, absent=0.4)
TEXT_WEIGHT = 0.3
HELPS = [
    "structured initialisation: three heads of the first layer start out attending 1, 2 and 3 tokens back, and two "
    "heads of every later layer start out comparing what those see, which is the shape of looking up a key",
    "every name word and every two-digit pair is one token of the tokenizer",
    "its training rows ask for synthetic facts in one fixed wording, the wording of synthesis and evaluation",
    "those rows use every name word, with keys and values drawn anew each time, as a pretrained model has met every "
    "word; the words of evaluation's keys stand in no fact of the corpus: synthesis and stages never ask for them",
    "a run whose answer loss stalls is restarted with another seed (counted below)",
]


def build_base(base: Base, corpus: Path, work: Path, facts: dict[str, Any]) -> None:
    """Train tokenizer and model on `corpus/passages.parquet` and save both into `work` for `from_pretrained`."""
    import pyarrow.parquet as pq
    import torch

    torch.set_num_threads(base.threads)
    documents = pq.read_table(corpus / "passages.parquet")["text"].to_pylist()
    names = json.loads((corpus / "names.json").read_text(encoding="utf-8"))
    tokenizer = build_tokenizer(documents, names, base)
    seeds: list[int] = []
    while True:
        seeds.append(base.seed + 1000 * len(seeds))
        skills = ShortSkills(tokenizer, documents, names, base.model.context_length, seeds[-1])
        model = build_model(base.model, tokenizer, seeds[-1])
        run = _Run(model, skills, base.training)
        stalled = not run.bind(last_try=len(seeds) > base.training.max_restarts)
        if not stalled:
            break
        tqdm.write(f"base: seed {seeds[-1]} stalled at answer loss {run.answer_loss:.2f}; restarting with another seed")
    run.teach()
    model.save_pretrained(str(work))
    tokenizer.save_pretrained(str(work))
    facts.update(
        parameters=sum(p.numel() for p in model.parameters()),
        context_length=base.model.context_length,
        rope_theta=base.model.rope_theta,
        seed=base.seed,
        seeds_tried=seeds,
        restarts=len(seeds) - 1,
        steps=run.steps,
        binding_steps=run.binding_steps,
        answer_loss=round(run.answer_loss, 4),
        helps=HELPS,
    )


def build_tokenizer(documents: list[str], names: dict[str, list[str]], base: Base) -> Any:
    """Train the tokenizer; the phrases of the short skills are part of its text."""
    from selflong.training.base_tokenizer import train_tokenizer

    phrases = [
        "\n" + question("a"), "\n" + fact("a", ""), f"\n{ASK}\n{TITLE}", writing_request(1, "a"), f" {NOTHING}.",
    ]  # fmt: skip
    return train_tokenizer(documents, names["train"] + names["heldout"], phrases, base.tokenizer.vocab_size)


def build_model(model: BaseModel, tokenizer: Any, seed: int) -> Any:
    """A fresh `LlamaForCausalLM` in float32 with the structured initialisation."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from selflong.training.structured_init import initialize

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_attention_heads,
        max_position_embeddings=model.context_length,
        rope_parameters={"rope_type": "default", "rope_theta": float(model.rope_theta)},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    llama = LlamaForCausalLM(config)
    initialize(llama, seed)
    return llama


class _Run:
    """One try at training the base: optimizer, running losses and the two phases."""

    def __init__(self, model: Any, skills: ShortSkills, training: BaseTraining) -> None:
        import torch

        matrices = [p for p in model.parameters() if p.ndim == 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98))
        self.model, self.skills, self.training = model, skills, training
        self.recent: list[float] = []
        self.steps = self.binding_steps = 0

    @property
    def answer_loss(self) -> float:
        """Mean answer loss (values only, nats a token) of the last 20 steps."""
        recent = self.recent[-20:]
        return sum(recent) / max(1, len(recent))

    def bind(self, last_try: bool) -> bool:
        """Phase one. Returns False if the answer loss is still above the stall mark at the step limit."""
        limit = self.training.max_binding_steps
        with tqdm(total=limit, desc="base model, binding (stops early)", unit=" steps") as bar:
            while self.steps < limit:
                self.step(BINDING, min(1.0, (self.steps + 1) / self.training.warmup_steps))
                bar.set_postfix_str(f"answer loss {self.answer_loss:.2f}", refresh=False)
                bar.update()
                if self.steps >= 20 and self.answer_loss < self.training.stop_answer_loss:
                    break
        self.binding_steps = self.steps
        return last_try or self.answer_loss <= self.training.stalled_answer_loss

    def teach(self) -> None:
        """Phase two, with a linear decay of the learning rate at its end."""
        total, decay = self.training.skills_steps, self.training.decay_steps
        for left in tqdm(range(total, 0, -1), desc="base model, short skills", unit=" steps"):
            self.step(SKILLS, min(1.0, max(0.05, left / decay)))

    def step(self, mix: Mix, scale: float) -> None:
        """One optimizer step on a fresh batch (B, T)."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * scale
        ids, roles = (torch.from_numpy(a) for a in self.skills.batch(mix))
        loss, answer_loss = skills_loss(self.model(input_ids=ids, use_cache=False).logits, ids, roles)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.recent.append(answer_loss)
        self.steps += 1


def skills_loss(logits: Any, ids: Any, roles: Any) -> tuple[Any, float]:
    """Sum of mean losses a role (text at 0.3), and the answers' own mean. logits (B, T, V), ids and roles (B, T)."""
    import torch.nn.functional as functional

    targets, roles = ids[:, 1:], roles[:, 1:]
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="none").view(
        roles.shape
    )

    def mean(role: int) -> Any:
        chosen = roles == role
        return (losses * chosen).sum() / chosen.sum().clamp(min=1)

    answers = mean(ANSWER)
    return mean(COPY) + answers + mean(WRITTEN) + TEXT_WEIGHT * mean(TEXT), float(answers.detach())
