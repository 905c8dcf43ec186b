"""The gates: what each drops, under which reason, and what it must let through."""

import dataclasses

import pytest

from selflong.recipe_synthesis import Gates
from selflong.synthesis.overlap import copied_percent, grounded_percent
from selflong.synthesis.quality import check_instruction, check_reading, check_reply, check_response, refuses
from selflong.synthesis.words import split_words
from tests.conftest import training_texts

OFF = Gates(one_distinct_finding=False, max_instruction_attempts=1)
ALL_ON = dataclasses.replace(OFF, min_grounded_percent=70, max_copied_percent=60)
INSTRUCTION = "Compare how the river towns of the north rebuilt their bridges after the floods of the last century."
ANSWER = (
    "After the flood of 1953 the council of Aldmouth rebuilt its bridge in stone within 14 months, at a cost of "
    "1,250,000 crowns. Upstream, the people of Brackwater waited until 1961 and chose steel."
)
FINDINGS = [
    "Aldmouth's council rebuilt the bridge after the 1953 flood in stone; it took 14 months and 1.250.000 crowns.",
    "In Brackwater a steel bridge was opened in 1961.",
]
OTHER_LANGUAGES = [
    "1953年洪水过后、奥德茅斯市议会用石头重建了桥梁、历时十四个月。上游的居民一直等到1961年才选择钢桥。",
    "洪水の後、町議会は石造りの橋を十四か月で再建した。上流の住民は一九六一年まで待ち、鋼鉄の橋を選んだ。",
    "После наводнения 1953 года городской совет восстановил мост из камня за четырнадцать месяцев.",
    "Nach der Flut von 1953 baute der Rat die Brücke in vierzehn Monaten aus Stein wieder auf.",
    "بعد فيضان عام 1953 أعاد المجلس بناء الجسر بالحجر خلال أربعة عشر شهرا.",
    "१९५३ की बाढ़ के बाद परिषद ने चौदह महीनों में पत्थर का पुल फिर से बनाया।",
    "หลังน้ำท่วมปี 1953 สภาเมืองได้สร้างสะพานหินขึ้นใหม่ภายในสิบสี่เดือน",
]


def respond(text: str, gates: Gates = OFF, documents: tuple[str, ...] = ()) -> str | None:
    return check_response(text, "stop", documents, FINDINGS, INSTRUCTION, gates)


# -- what must pass


@pytest.mark.parametrize("answer", ["482193.", "000000.", "none."])
def test_the_demos_forms_pass_every_gate(answer: str) -> None:
    asked = "Name the magic number for amber river"
    chunk = f"Something else.\nThe magic number for amber river is {answer}"
    gates = dataclasses.replace(ALL_ON, max_copied_percent=1, min_grounded_percent=99)
    assert check_instruction(asked, "stop") is None
    assert check_reading(answer, "stop", chunk, asked, gates) is None
    assert check_response(answer, "stop", [chunk], [chunk], asked, gates) is None


def test_a_good_answer_passes_with_all_gates_on() -> None:
    assert check_instruction(INSTRUCTION, "stop") is None
    assert respond(ANSWER, ALL_ON, (" ".join(training_texts()[:5]), *FINDINGS)) is None


@pytest.mark.parametrize("text", OTHER_LANGUAGES)
def test_other_languages_pass(text: str) -> None:
    assert check_instruction(text, "stop") is None
    assert respond(text) is None


def test_human_text_passes() -> None:
    paragraphs = [p for text in training_texts() for p in text.split("\n\n") if len(p) > 80]
    assert len(paragraphs) > 1000
    assert {check_reply("response", p, "stop") for p in paragraphs} == {None}


# -- refusals


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I cannot assist with this request. " + "Please ask for something else instead. " * 2,
        "**I cannot provide** the figures that you ask for.",
        "As an AI language model, I do not have opinions.",
        "Answer: I am unable to determine the cause.",
        "I apologize for the confusion, but nothing here fits.",
        "The documents do not mention any bridge in Aldmouth.",
        "Based on the provided passages, there is no information about the flood.",
        "None of the documents provide a figure for the cost.",
        "Unfortunately, the text doesn't say when the bridge was opened.",
        "Es tut mir leid, aber ich kann diese Frage nicht beantworten.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, pero no puedo ayudar con eso.",
        "很抱歉。我无法回答这个问题。",
        "我无法提供相关信息。",
    ],
)
def test_refusals_are_dropped_at_every_step(text: str) -> None:
    assert check_instruction(text, "stop") == "instruction refused"
    assert check_reading(text, "stop", "chunk", INSTRUCTION, OFF) == "reading refused"
    assert respond(text) == "response refused"


@pytest.mark.parametrize(
    "text",
    [
        "The clerk wrote back, \"I'm sorry, but I can't help with that,\" and closed the file.",
        "\"I'm sorry, but I can't stay,\" she said, and the ferry left without her.",
        "As an AI researcher, she built the first of the town's flood models.",
        "I cannot forget the sound of the river that night; nobody who was there can.",
        "The documents do not mention the first bridge, but say this about the second. " + training_texts()[1][:900],
        "Sorry was the state of the bridge when the council met.",
        "No information was gathered before 1953, so the council relied on memory.",
        "The text of the treaty does not bind the council.",
    ],
)
def test_what_only_sounds_like_a_refusal_passes(text: str) -> None:
    assert not refuses(text)
    assert respond(text) is None


# -- cut, empty, broken, repeating


def test_a_cut_reply_is_dropped_at_every_step() -> None:
    assert check_instruction(INSTRUCTION, "length") == "instruction cut at its token limit"
    assert check_reading(ANSWER, "length", ANSWER, INSTRUCTION, OFF) == "reading cut at its token limit"
    assert check_response(ANSWER, "length", [], FINDINGS, INSTRUCTION, OFF) == "response cut at its token limit"


@pytest.mark.parametrize("text", ["", "  \n", "...", "—!?", "-----------", "。。。"])
def test_nothing_said_is_empty(text: str) -> None:
    assert respond(text) == "response is empty"


@pytest.mark.parametrize("broken", ["\x00", "\x1b[0m", "\ufffd", "\ud83d"])
def test_control_characters_and_broken_decoding_are_dropped(broken: str) -> None:
    assert respond(ANSWER + broken) == "response holds control characters"
    assert respond(ANSWER + "\r\n\tAnd more.") is None


@pytest.mark.parametrize(
    "text",
    [
        "a" * 40,
        "Yes" + "!" * 60,
        "The bridge. " * 20,
        ANSWER + " It was rebuilt in stone." * 30,
        "Causes:\n" + "".join(f"{i}. The rain was heavy\n" for i in range(1, 30)),
        "桥梁重建完成。" * 12,
        "नदी का पुल " * 15,
    ],
)
def test_loops_are_dropped(text: str) -> None:
    assert respond(text) == "response repeats itself"


def test_tables_and_lists_pass() -> None:
    rows = [("Aldmouth", 1953, "stone"), ("Brackwater", 1961, "steel"), ("Carrow", 1972, "timber")]
    table = "| town | year | of |\n|" + "-" * 60 + "|\n" + "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows)
    assert respond(table) is None
    assert respond("\n".join(f"{i}. In {town} the bridge was of {of}." for i, (town, _, of) in enumerate(rows))) is None


# -- our prompts' wording


@pytest.mark.parametrize(
    "text",
    [
        "What does this passage say about the bridges of Aldmouth?",
        "Summarise the documents above with regard to the flood.",
        "According to the text, who paid for the bridge?",
        "List the causes of the flood that are mentioned in the documents.",
        "Explain the notes on the council's decision.",
        "Using the provided excerpts, trace the history of the bridge.",
        "Trace the history of the bridge.\n</passage>",
        "Trace the history of the bridge.\n\nNOTHING",
    ],
)
def test_an_instruction_that_points_at_its_prompt_is_dropped(text: str) -> None:
    assert check_instruction(text, "stop") == "instruction points at its prompt"


@pytest.mark.parametrize("begin", ["Sure! ", "Here is a task for the reader: ", "Task: ", "**Question:** ", "Okay, "])
def test_an_instruction_with_a_preamble_is_dropped(begin: str) -> None:
    assert check_instruction(begin + INSTRUCTION, "stop") == "instruction has a preamble"


@pytest.mark.parametrize(
    "text",
    [
        "Extract the following information about each bridge: year, material and cost.",
        "Compare the passage of the reform act with that of the poor law.".replace("the passage", "the fate"),
        "How do different texts of the period describe the flood, and in what context do they place this part of it?",
        "Which documents did the council keep, and what became of them?",
        "Explain how NOTHING in the ledger was left to chance.",
    ],
)
def test_an_instruction_that_stands_alone_passes(text: str) -> None:
    assert check_instruction(text, "stop") is None


def test_a_response_that_points_at_its_prompt_is_dropped() -> None:
    for leak in ("\n<notes>\n", "\n\nNOTHING.", "\nTask:\nmore", " The notes state that.", " Based on the notes, so."):
        assert respond(ANSWER + leak) == "response points at its prompt"
    for fine in (" Darwin wrote in the notes to his wife.", " The <text> element draws words.", " Nothing came of it."):
        assert respond(ANSWER + fine) is None


# -- copies


def test_a_copied_answer_is_dropped_if_the_recipe_asks_for_it() -> None:
    document = " ".join(training_texts()[:5])
    copied = " ".join(document.split()[100:180])
    assert copied_percent(copied.upper().replace(" ", "\n"), [ANSWER, document]) == 100
    assert respond(copied) is None
    gates = dataclasses.replace(OFF, max_copied_percent=60)
    assert respond(copied, gates, (ANSWER, document)) == "response copied from a document"
    assert respond(copied, gates, (ANSWER,)) is None


def test_the_share_is_of_words_in_runs_of_eight_in_one_document() -> None:
    words = [f"w{i}" for i in range(100)]
    text = " ".join(words)
    assert copied_percent(text, [" ".join(["x", *words[20:50], "y"])]) == 30
    assert copied_percent(text, [" ".join(words[:30]), " ".join(words[30:70])]) == 40, "one document decides"
    assert copied_percent(text, [" ".join(words[20:27])]) == 0, "seven in a row are no copy"
    assert copied_percent(text, [" ".join(reversed(words)), ""]) == 0
    assert copied_percent("482193.", ["482193."]) == 0


# -- grounding


def test_invented_numbers_and_names_lower_the_share() -> None:
    assert grounded_percent(ANSWER, FINDINGS) == 100
    assert grounded_percent(ANSWER.replace("1961", "1962"), FINDINGS) == pytest.approx(100 * 5 / 6)
    assert grounded_percent(ANSWER.replace("Aldmouth", "Eastmere"), FINDINGS) == pytest.approx(100 * 5 / 6)
    assert grounded_percent("The bridge was rebuilt soon.", FINDINGS) == 100, "no hard fact, nothing to hold against it"
    assert grounded_percent("It cost 99 crowns.", []) == 0


@pytest.mark.parametrize(
    "number", ["1250000", "1,250,000", "1.250.000", "1 250 000", "1'250'000", "1\u202f250\u202f000"]
)
def test_separators_do_not_make_another_number(number: str) -> None:
    assert grounded_percent(f"It cost {number} crowns.", FINDINGS) == 100
    assert grounded_percent("It cost 1,250,000 crowns.", [f"cost: {number}"]) == 100
    assert grounded_percent(f"It cost {number[:-1]}1 crowns, or 2{number[1:]}.", FINDINGS) == 0


def test_numbers_are_compared_digit_by_digit() -> None:
    assert grounded_percent("It was 482193.", ["482194", "48219", "4821933", "1482193"]) == 0
    assert grounded_percent("Opened on 01.05.1961.", ["1961-05-01"]) == 100
    assert grounded_percent("It rose by 3.75 percent.", ["3.76 percent"]) == 0


def test_lists_and_headings_state_nothing() -> None:
    text = "## Bridges And Their Builders\n\n**Main Points:**\n10. built of stone\n11. opened late\n"
    assert grounded_percent(text, [""]) == 100


def test_an_ungrounded_reading_or_response_is_dropped_if_the_recipe_asks_for_it() -> None:
    invented = "The council spent 77,000 crowns in 1912, says Mayor Thornbury."
    assert respond(invented) is None
    assert respond(invented, ALL_ON) == "response not grounded in its findings"
    assert check_reading(invented, "stop", FINDINGS[0], INSTRUCTION, ALL_ON) == "reading not grounded in its chunk"
    assert check_reading(FINDINGS[0], "stop", ANSWER, INSTRUCTION, ALL_ON) is None


def test_the_instructions_own_facts_may_be_repeated() -> None:
    asked = "What did Mayor Thornbury do between 1912 and 1915?"
    said = "Between 1912 and 1915, Mayor Thornbury had the bridge of Brackwater planned."
    assert check_response(said, "stop", [], FINDINGS, asked, ALL_ON) is None


# -- keys and words


@pytest.mark.parametrize("key", ["min_grounded_percent", "max_copied_percent", "max_similarity_percent"])
@pytest.mark.parametrize("value", [0, 100, -1])
def test_percentages_without_meaning_are_refused(key: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{key} is {value}; give 1 to 99"):
        dataclasses.replace(OFF, **{key: value})


def test_runs_of_too_few_words_are_refused() -> None:
    with pytest.raises(ValueError, match="give 5 or more"):
        dataclasses.replace(OFF, decontaminate_words=4)


def test_words_are_the_same_by_the_fast_path_and_by_the_other() -> None:
    text = "\n".join(training_texts()[:10]).encode("ascii", "ignore").decode() + " snake_case x1,y2 it's (A)"
    assert split_words(text + " é")[:-1] == split_words(text)
    assert split_words("It's _very_ 3.5 Cafe\u0301s") == ["it", "s", "very", "3", "5", "cafe\u0301s"]
    assert split_words("第3章 नदी का") == ["第", "3", "章", "नदी", "का"]
